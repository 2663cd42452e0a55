"""Fetching the official archive: one member comes out of it, checked, or nothing does."""

import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import tensorflow as tf
from conftest import load_script

fetcher = load_script("model/fetch_mobilenet_v2.py")
NAME = "mobilenet_v2_1.0_224_frozen.pb"


def frozen_graph(changes=()):
    """Returns a graph that has the nodes of MobileNet V2 by name, op and shape, and nothing else."""
    graph_def = tf.compat.v1.GraphDef()
    for name, op in fetcher.expected_ops().items():
        node = graph_def.node.add(name=name, op=op)
        shape = dict(changes).get(name, fetcher.SHAPES.get(name, []))
        if op == "Placeholder":
            node.attr["shape"].shape.CopyFrom(tf.TensorShape([None, *shape]).as_proto())
        elif op == "Const":
            node.attr["value"].tensor.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    return graph_def.SerializeToString()


def tar(*members, mode="w:gz"):
    """Returns an archive; a member is a name and its content, or a TarInfo without any."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return file.getvalue()


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setattr(fetcher, "MODEL", tmp_path / "model" / NAME)
    return fetcher.MODEL


def fetch(tmp_path, content):
    (tmp_path / "archive.tgz").write_bytes(content)
    return fetcher.main(["--archive", str(tmp_path / "archive.tgz")])


@pytest.mark.parametrize("member", [NAME, f"./{NAME}", f"some/folder/{NAME}", f"../../{NAME}", f"/etc/{NAME}"])
@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_only_the_graph_comes_out_of_the_archive(tmp_path, model, member, mode):
    others = [("./mobilenet_v2_1.0_224.ckpt.meta", b"checkpoint"), ("../escaped", b"!")]
    graph = frozen_graph()
    assert fetch(tmp_path, tar(others[0], (member, graph), others[1], mode=mode)) == 0
    assert model.read_bytes() == graph
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["archive.tgz", NAME]
    assert not (tmp_path.parent / "escaped").exists()


def test_it_is_a_no_op_when_the_model_is_there(tmp_path, model, capsys):
    model.parent.mkdir()
    model.write_bytes(frozen_graph())
    before = model.stat().st_mtime_ns
    assert fetcher.main(["--archive", str(tmp_path / "no such archive")]) == 0
    assert model.stat().st_mtime_ns == before and "there already" in capsys.readouterr().out


def test_another_model_in_its_place_is_left_alone(tmp_path, model, capsys):
    model.parent.mkdir()
    model.write_bytes(b"mine")
    assert fetch(tmp_path, tar((NAME, frozen_graph()))) == 1
    assert model.read_bytes() == b"mine" and "out of the way" in capsys.readouterr().err


def huge(size):
    info = tarfile.TarInfo(NAME)
    info.size = size
    return info


def symlink():
    info = tarfile.TarInfo(NAME)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar(("README", b"nothing here")), "does not hold"),
        (tar(symlink()), "does not hold"),
        (tar((NAME, frozen_graph()))[:-200], "damaged"),
        (tar((NAME, frozen_graph()), mode="w")[:2000], "damaged"),
        (b"no archive at all", "damaged or none"),
        (b"", "damaged or none"),
        (tar(huge(2**40), mode="w"), "far larger"),
        (tar(huge(2**27), mode="w"), "too large"),
        (tar((NAME, b"no graph")), "no frozen TensorFlow model"),
        (tar((NAME, tf.compat.v1.GraphDef().SerializeToString())), "it has no "),
        (tar((NAME, frozen_graph({"MobilenetV2/Conv/weights": [3, 3, 3, 48]}.items()))), "[3, 3, 3, 48]"),
        (tar((NAME, frozen_graph({"input": [192, 192, 3]}.items()))), "'input' has the shape [192, 192, 3]"),
    ],
)  # fmt: skip
def test_other_archives_are_refused(tmp_path, model, capsys, content, message):
    assert fetch(tmp_path, content) == 1
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not model.exists()


class Server(BaseHTTPRequestHandler):
    content = tar((NAME, frozen_graph()))

    def do_GET(self):
        if self.path != "/archive.tgz":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_):
        pass


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_is_fetched_from_an_address_with_progress(model, address, capsys):
    assert fetcher.main(["--archive", f"{address}/archive.tgz"]) == 0
    assert model.read_bytes() == frozen_graph()
    assert "archive.tgz" in capsys.readouterr().err


def test_an_address_without_it_is_named(model, address, capsys):
    assert fetcher.main(["--archive", f"{address}/elsewhere"]) == 1
    error = capsys.readouterr().err
    assert "404" in error and f"{address}/elsewhere" in error and "--archive" in error
    assert not model.exists()


@pytest.mark.parametrize(
    "text", ["http://[bad", "http://" + "a" * 70 + ".org/x", "http://", "http://a:b/", "https://a b/"]
)
def test_what_is_no_address_is_named(model, capsys, text):
    assert fetcher.main(["--archive", text]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert text in error
    assert not model.exists()


def test_an_interrupted_fetch_leaves_nothing(tmp_path, model, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetcher, "extract_graph", interrupt)
    assert fetch(tmp_path, tar((NAME, frozen_graph()))) == 130
    assert not model.exists()


def test_the_real_graph_is_accepted(shared):
    fetcher.check_graph((shared / "model" / NAME).read_bytes())
