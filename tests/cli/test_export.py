"""The command that exports a quantized model."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graphs import SMALL_NET_LAYERS, normal, quantize_small_net
from reports import make_report

from amct_tensorflow.cli import export as command
from amct_tensorflow.cli.export import find_result
from amct_tensorflow.errors import ModelNotFoundError
from amct_tensorflow.export import TARGETS, export_model
from amct_tensorflow.quantize.quantized.model_files import prefix_of
from amct_tensorflow.results.report.report_json import dump_report, read_report

EVALUATOR = """
import numpy as np
import tensorflow as tf
from amct_tensorflow.common.auto_calibration import AutoCalibrationEvaluatorBase

class Evaluator(AutoCalibrationEvaluatorBase):
    def calibration(self, graph, outputs):
        self.evaluate(graph, outputs)

    def evaluate(self, graph, outputs):
        images = np.random.default_rng(9).normal(size=(8, 12, 12, 3)).astype(np.float32)
        with tf.compat.v1.Session(graph=graph) as session:
            found = session.run(f"{outputs[0]}:0", {"input:0": images})
        self.right = 100.0 * (found.argmax(axis=1) == 1)
        return float(np.mean(self.right))

    def image_results(self):
        return self.right

evaluator = Evaluator()
"""


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        quantize_small_net()
        np.save("x.npy", normal((8, 12, 12, 3), 9))
        np.save("y.npy", np.zeros(8, np.int64))
        np.save("far.npy", np.full(8, 7))
    return folder


@pytest.fixture
def result(quantized, workdir):
    shutil.copytree(quantized, workdir, dirs_exist_ok=True)
    return "results/net"


def test_a_format_has_the_name_of_its_target():
    assert [target.name for target in TARGETS.values()] == list(TARGETS)


@pytest.mark.parametrize("given", ["results", "results/", "results/net", "results/net_quantized.pb"])
def test_a_result_is_found(result, given):
    assert find_result(given) == Path("results/net_quantized.pb")
    assert prefix_of(find_result(given)) == Path("results/net")


def test_of_several_results_one_must_be_chosen(result):
    shutil.copy("results/net_quantized.pb", "results/other_quantized.pb")
    with pytest.raises(ModelNotFoundError, match=r"several quantized models: net_quantized\.pb, other_quantized\.pb"):
        find_result("results")


def test_json(main, capsys, result):
    arguments = ["export", result, "--to", "tflite", "--data", "x.npy", "x.npy", "--labels", "labels.npy", "--json"]
    np.save("labels.npy", np.zeros(16, np.int64))
    assert main(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["format"] == "tflite" and document["file"] == "net.tflite" and document["images"] == 16
    assert [layer["name"] for layer in document["layers"]] == SMALL_NET_LAYERS
    assert document["exported"]["top1"] is not None and document["within_limit"]
    assert {path.name for path in Path("results").iterdir()} >= {"net.tflite", "net_export_tflite.json"}


def test_an_evaluator_judges_the_exported_file(main, capsys, result):
    pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
    Path("my_evaluator.py").write_text(EVALUATOR)
    arguments = ["export", result, "--to", "onnx", "--evaluator", "my_evaluator.py", "--output", "elsewhere/other"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "other.onnx: " in printed and "same class for" in printed and "top-1" in printed
    assert {path.name for path in Path("elsewhere").iterdir() if not path.name.startswith(".")} == {
        "other.onnx",
        "other_export_onnx.json",
    }


@pytest.mark.parametrize(("rounding", "limit"), [(0.5, 0.5), (0.001, 0.01), (float("inf"), 0.01), (float("nan"), 0.01)])
def test_the_default_limit_is_at_least_what_rounding_costs(main, capsys, monkeypatch, result, rounding, limit):
    check = export_model.check_export
    monkeypatch.setattr(export_model, "check_export", lambda *args: replace(check(*args), rounding=rounding))
    arguments = ["export", result, "--to", "tflite", "--data", "x.npy", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["kl_limit"] == limit
    assert main([*arguments, "--max_divergence", "0.3"]) == 0
    assert json.loads(capsys.readouterr().out)["kl_limit"] == 0.3


def test_a_file_that_diverges_is_called_so_and_tells_in_the_exit_code(main, capsys, messages, result):
    Path("results/net.tflite").write_bytes(b"earlier")
    arguments = ["export", result, "--to", "tflite", "--data", "x.npy"]
    assert main([*arguments, "--max_divergence", "0", "--json"]) == command.DIFFERS
    document = json.loads(capsys.readouterr().out)
    assert document["file"] == "net_diverges.tflite" and not document["within_limit"]
    assert json.loads(Path("results/net_diverges_export_tflite.json").read_text()) == document
    assert Path("results/net_diverges.tflite").stat().st_size == document["file_bytes"]
    assert any("does not compute what the simulation does" in message for message in messages)
    assert any("results/net.tflite is that of an earlier export; it stays as it is" in message for message in messages)
    assert Path("results/net.tflite").read_bytes() == b"earlier"
    assert not Path("results/net_export_tflite.json").exists()
    assert main(arguments) == 0
    assert not list(Path("results").glob("*diverges*"))
    assert Path("results/net.tflite").read_bytes() != b"earlier"


def test_raw_data(main, result):
    Path("bins").mkdir()
    normal((8, 12, 12, 3), 9).tofile("bins/0.bin")
    raw = ["--data_dir", "bins", "--input_shape", "input:8,12,12,3", "--data_types", "float32"]
    assert main(["export", result, "--to", "tflite", *raw]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "--data", "x.npy"], "There is neither nowhere nor nowhere_quantized.pb"),
        (["empty", "--data", "x.npy"], "empty holds no PREFIX_quantized.pb"),
        (["results", "--data", "nowhere.npy"], "nowhere.npy cannot be read"),
        (["results", "--data", "x.npy", "--outputs", "nothing"], "has no output 'nothing'"),
        (["results", "--data", "x.npy", "--labels", "x.npy"], "x.npy does not hold one whole number per image"),
        (["results", "--data", "x.npy", "x.npy", "--labels", "y.npy"], "The labels are for 8 images"),
        (["results", "--data", "x.npy", "--labels", "far.npy"], "The labels go from 7 to 7, but the model has"),
        (["net.pb", "--data", "x.npy"], "net.pb holds no quantized layer"),
    ],
)
def test_one_line_per_error(main, capsys, result, arguments, words):
    Path("empty").mkdir()
    Path("results/net.tflite").write_bytes(b"earlier")
    capsys.readouterr()
    assert main(["export", *arguments, "--to", "tflite"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if " - ERROR - " in line]
    assert words in line and "Traceback" not in line
    assert Path("results/net.tflite").read_bytes() == b"earlier"


def test_a_library_that_is_missing_is_named(main, capsys, monkeypatch, result):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert main(["export", result, "--to", "onnx", "--data", "x.npy"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if " - ERROR - " in line]
    assert 'pip install "amct-tensorflow-open[onnx]"' in line


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--to", "onnx"],
        ["--to", "caffe", "--data", "x.npy"],
        ["--to", "onnx", "--data", "x.npy", "--evaluator", "e.py"],
        ["--to", "onnx", "--evaluator", "e.py", "--labels", "y.npy"],
        ["--to", "onnx", "--evaluator", "e.py", "--batch_num", "2"],
        ["--to", "onnx", "--data", "x.npy", "--batch_num", "2"],
        ["--to", "onnx", "--data", "x.npy", "--between", "int4"],
        ["--to", "onnx", "--data_dir", "bins"],
        ["--to", "onnx", "--data", "x.npy", "--max_divergence", "-1"],
    ],
)
def test_wrong_arguments(main, options, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["export", "results", *options])
    assert exit_.value.code == 2


def test_the_report_of_the_run_shows_it(main, capsys, result):
    Path("results/report.json").write_text(dump_report(make_report()))
    assert main(["export", result, "--to", "tflite", "--data", "x.npy"]) == 0
    assert [each.format for each in read_report(Path("results/report.json")).exports] == ["tflite"]
    assert "tflite" in Path("results/report.html").read_text()


def test_the_report_of_the_run_shows_one_that_diverges(main, capsys, result):
    Path("results/report.json").write_text(dump_report(make_report()))
    assert main(["export", result, "--to", "tflite", "--data", "x.npy", "--max_divergence", "0"]) == command.DIFFERS
    assert [each.file for each in read_report(Path("results/report.json")).exports] == ["net_diverges.tflite"]
    assert "net_diverges.tflite" in Path("results/report.html").read_text()


def test_a_report_that_is_damaged_does_not_keep_it_from_being_made(main, result, messages):
    Path("results/report.json").write_text("{")
    assert main(["export", result, "--to", "tflite", "--data", "x.npy"]) == 0
    assert Path(f"{result}.tflite").exists()
    assert any("does not show the export" in line for line in messages)
