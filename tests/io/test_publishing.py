"""Files that belong together appear together, or not at all; locks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from amct_tensorflow.errors import OutputError
from amct_tensorflow.io import publishing
from amct_tensorflow.io.publishing import JOURNAL, exclusive, finish, publish

OLD = {"out/a": b"old a", "out/b": b"old b", "log/c": b"old c"}
NEW = {"out/a": b"new a", "log/c": "new c", "out/d": b"new d"}


@pytest.fixture
def files(workdir):
    for name, content in OLD.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(content)


def found():
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def publish_new():
    publish(Path("out"), {Path(name): content for name, content in NEW.items()})


EXPECTED = {"out/a": b"new a", "out/b": b"old b", "log/c": b"new c", "out/d": b"new d"}


def test_files_are_written(files):
    publish_new()
    assert found() == EXPECTED
    assert {oct(Path(name).stat().st_mode)[-3:] for name in NEW} == {"640"}


def die(step):
    """Publishes in a copy of this process, which dies at its so manyth rename; returns whether it came to that."""
    process = os.fork()
    if process == 0:
        renames = iter(range(100))
        rename = publishing.rename

        def dying(source, destination):
            if next(renames) == step:
                os._exit(9)
            rename(source, destination)

        publishing.rename = dying
        try:
            publish_new()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9


@pytest.mark.parametrize("step", range(5))
def test_a_process_that_dies_between_leaves_all_or_nothing(files, step):
    """Before the journal is in place the old files stay; from then on the next run completes the new ones."""
    died = die(step)
    assert died == (step < 4)
    if died:
        visible = {name: content for name, content in found().items() if "/." not in name}
        assert all(content in (OLD.get(name), EXPECTED.get(name)) for name, content in visible.items())
    finish(Path("out"), [Path(name) for name in NEW])
    assert found() == (OLD if step == 0 else EXPECTED)


@pytest.mark.parametrize("step", range(4))
def test_an_interruption_leaves_all_or_nothing(files, monkeypatch, step):
    renames = iter(range(100))
    rename = publishing.rename

    def interrupted(source, destination):
        if next(renames) == step:
            raise KeyboardInterrupt
        rename(source, destination)

    monkeypatch.setattr(publishing, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish_new()
    assert found() == (OLD if step == 0 else EXPECTED)


def test_what_cannot_be_written_leaves_everything_as_it_was(files):
    shutil.rmtree("log")
    Path("log").write_text("a file where the folder should be")
    before = found()
    with pytest.raises(OutputError):
        publish_new()
    assert found() == before


@pytest.mark.parametrize(
    "journal", ["", "[]", "{}", "[" * 100_000, '["/etc/passwd", "elsewhere/x", 1, ["/a"]]', "\xff"]
)
def test_a_strangers_journal_touches_nothing_else(files, journal):
    Path("elsewhere").mkdir()
    Path("elsewhere/x").write_text("x")
    Path("elsewhere/.x.new").write_text("y")
    before = found()
    Path("out", JOURNAL).write_text(journal)
    finish(Path("out"), [Path(name) for name in NEW])
    assert found() == before


def test_names_that_are_no_unicode_are_completed(files):
    path = Path("out/caf\udce9")
    Path("out/.caf\udce9.new").write_text("new")
    Path("out", JOURNAL).write_text(json.dumps([os.path.abspath(path)]))  # noqa: PTH100 - as it is written
    finish(Path("out"), [])
    assert path.read_text() == "new" and not Path("out", JOURNAL).exists()


# ------------------------------------------------------------------------------------- Runs with other file names

OTHERS = {"out/x": "new x", "log/c": "newest c", "more/z": "new z"}
BOTH = {**EXPECTED, "log/c": b"newest c", "out/x": b"new x", "more/z": b"new z"}


@pytest.mark.parametrize("step", range(1, 4))
def test_a_run_with_other_names_completes_what_it_finds(files, step):
    """Its own files are all new, and so are those of the run that died."""
    assert die(step)
    contents = {Path(name): content for name, content in OTHERS.items()}
    finish(Path("out"), contents)
    assert found() == EXPECTED
    publish(Path("out"), contents)
    assert found() == BOTH


def test_files_in_a_folder_of_another_run_have_to_wait(files):
    """The run that died had the lock on it, and so must who goes on with its work."""
    assert die(1)
    before = found()
    with exclusive([Path("log")]), pytest.raises(OutputError, match=r"Another run is writing to \S+/log"):
        finish(Path("out"), [Path("out/x")])
    assert found() == before
    finish(Path("out"), [Path("out/x")])
    assert found() == EXPECTED


def test_what_cannot_be_completed_is_named_and_kept(files):
    assert die(1)
    Path("log/c").unlink()
    Path("log/c").mkdir()
    with pytest.raises(OutputError, match="log/c cannot be written"):
        finish(Path("out"), [Path("out/x")])
    Path("log/c").rmdir()
    finish(Path("out"), [Path("out/x")])
    assert found() == EXPECTED


def test_a_journal_whose_folders_are_gone_does_no_harm(files):
    assert die(1)
    shutil.rmtree("log")
    finish(Path("out"), [Path("out/x")])
    assert found() == {name: content for name, content in EXPECTED.items() if name != "log/c"}


def plant(*listed):
    Path("out", JOURNAL).write_text(json.dumps([str(Path(name).absolute()) for name in listed]))


def test_a_journal_is_believed_only_where_files_beside_bear_it_out(files):
    """Who can plant a journal in one folder must not reach files in another."""
    Path("precious").mkdir()
    Path("precious/x").write_text("x")
    plant("precious/x", "precious/none", "out/a")
    before = {name: content for name, content in found().items() if JOURNAL not in name}
    finish(Path("out"), [Path(name) for name in NEW])
    assert found() == before


def test_a_link_beside_bears_nothing_out(files):
    Path("log/.c.new").symlink_to("../out/a")
    plant("log/c")
    finish(Path("out"), [Path("out/x")])
    assert not Path("log/c").is_symlink() and Path("log/c").read_bytes() == b"old c"


@pytest.mark.parametrize(
    "name", ["", "/", "a", "/..", "/a/../b", "/a\0b", "/" + "a" * 5000, "/\ud800", "//", "/tmp/.", "/dev/null/x"]
)
def test_names_that_are_none(files, name):
    Path("out", JOURNAL).write_text(json.dumps([name, f"{name}x", "/a"]))
    finish(Path("out"), [Path(name) for name in NEW])
    assert found() == OLD


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_a_journal_that_is_no_file_is_not_read(files, make):
    """A pipe would keep the run waiting, and a device would fill the memory."""
    make(Path("out", JOURNAL))
    finish(Path("out"), [Path(name) for name in NEW])
    assert found() == OLD


def test_links_are_not_written_through(files):
    """Neither where a file goes, nor where it is prepared."""
    Path("precious").write_text("precious")
    Path("out/.a.new").symlink_to("../precious")
    Path("out/a").unlink()
    Path("out/a").symlink_to("../precious")
    publish_new()
    assert Path("precious").read_text() == "precious"
    assert not Path("out/a").is_symlink()


# ----------------------------------------------------------------------------------------------------- Disk faults


def run_with_limit(workdir, size):
    """Publishes where no file may become larger than so many bytes, as on a disk that is full."""
    script = f"""
import resource, signal, sys
from pathlib import Path
from amct_tensorflow.errors import OutputError
from amct_tensorflow.io.publishing import publish
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
try:
    publish(Path("out"), {{Path("out/a"): b"x" * 100, Path("out/b"): b"y" * 10_000}})
except OutputError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=workdir, capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout


def test_a_full_disk_leaves_everything_as_it_was(files, workdir):
    assert "cannot be written: File too large" in run_with_limit(workdir, 5000)
    assert found() == OLD
    assert run_with_limit(workdir, 50_000) == ""
    assert len(Path("out/b").read_bytes()) == 10_000


def mount(*arguments):
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(workdir):
    """A file system of 64 KiB, where mounting one is allowed."""
    folder = workdir / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or not mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)):
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_small_file_system(small_disk):
    (small_disk / "a").write_bytes(b"old a")
    with pytest.raises(OutputError, match="No space left on device"):
        publish(small_disk, {small_disk / "a": b"new a", small_disk / "b": b"x" * 100_000})
    assert [path.name for path in small_disk.iterdir()] == ["a"]
    assert (small_disk / "a").read_bytes() == b"old a"


def test_a_read_only_file_system(small_disk):
    (small_disk / "a").write_bytes(b"old a")
    assert mount("-o", "remount,ro", str(small_disk))
    with pytest.raises(OutputError, match="Read-only file system"):
        publish(small_disk, {small_disk / "a": b"new a"})
    assert (small_disk / "a").read_bytes() == b"old a"


def test_journal_lists_absolute_paths(files, monkeypatch):
    monkeypatch.setattr(publishing, "finish", lambda *_: None)
    publish_new()
    listed = json.loads(Path("out", JOURNAL).read_text())
    assert listed == [str(Path(name).absolute()) for name in NEW]


# ----------------------------------------------------------------------------------------------------------- Locks


def test_two_runs_cannot_be_in_one_folder(workdir):
    Path("out").mkdir()
    Path("log").mkdir()
    again = exclusive([Path(f"../{workdir.name}/log")])  # the same folder by another name
    with exclusive([Path("out"), Path("out"), Path("log")]), pytest.raises(OutputError, match="Another run is writing"):
        again.__enter__()
    with exclusive([Path("log")]):
        pass
    assert list(Path("out").iterdir()) == []


def test_a_process_that_dies_leaves_no_lock(workdir):
    process = os.fork()
    if process == 0:
        with exclusive([Path()]):
            os._exit(9)
    os.waitpid(process, 0)
    with exclusive([Path()]):
        pass
