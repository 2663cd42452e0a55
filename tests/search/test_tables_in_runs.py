"""Runs with a table in int8: every candidate has it, the record, the report and the state of the run know it."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, node_of, normal, save, tf1

import amct_tensorflow as amct
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.quantization import make_quant_config
from amct_tensorflow.quantize.record.record_file import read_record, read_tables
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase

IDS = np.random.default_rng(0).integers(0, 1000, (16, 4)).astype(np.int32)


def network():
    x = tf1.placeholder(tf.int32, [None, 4], name="x")
    rows = tf.reshape(tf.gather(normal((1000, 16), 1), x, name="words"), [-1, 64])
    y = tf.nn.relu(tf.matmul(rows, normal((64, 8), 3), name="dense"))
    tf.nn.softmax(tf.matmul(y, normal((8, 3), 4), name="last"), name="out")


class Evaluator(AutoCalibrationEvaluatorBase):
    """Counts the layers in int8, and whether the table is; both cost something."""

    def __init__(self, allowed):
        self.allowed = allowed
        self.evaluated = []

    def calibration(self, graph, outputs):
        with tf1.Session(graph=graph) as session:
            session.run(f"{outputs[0]}:0", {"x:0": IDS})

    def evaluate(self, graph, outputs):
        self.calibration(graph, outputs)
        names = [operation.type for operation in graph.get_operations()]
        layers = sum("AscendWeightQuant" in name for name in names)
        table = graph.get_operation_by_name("words").type == "Mul"
        self.evaluated.append((layers, table))
        return 10.0 * table + layers

    def metric_eval(self, original_metric, new_metric):
        loss = new_metric - original_metric
        return loss <= self.allowed, loss


def calibrate(allowed, *, compress=True, **options):
    """Runs the whole; returns the result and what was evaluated."""
    model = FloatModel.load(save(build(network), Path("float.pb")), ["out"])
    evaluator = Evaluator(allowed)
    result = amct.accuracy_based_auto_calibration(
        model, ["out"], "out/record.txt", "out/config.json", "out/net", evaluator, exact=True,
        config=make_quant_config(model, weight_compress_only=compress), **options,
    )  # fmt: skip
    return result, evaluator.evaluated


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def quantized():
    return tf1.GraphDef.FromString(Path("out/net_quantized.pb").read_bytes())


def test_every_candidate_has_the_table_in_int8():
    result, evaluated = calibrate(11)
    assert evaluated == [(0, False), (2, True), (1, True)] and result.target_met
    assert node_of(quantized(), "words").op == "Mul"
    assert read_tables("out/record.txt") == ["words"] and len(read_record("out/record.txt")) == 1
    amct.save_model("float.pb", ["out"], "out/record.txt", "again")
    assert Path("again_quantized.pb").read_bytes() == Path("out/net_quantized.pb").read_bytes()
    (table,) = json.loads(Path("out/report.json").read_text())["tables"]
    assert table == {"name": "words", "shape": [1000, 16], "float_bytes": 64000, "int8_bytes": 20000, "int8": True,
                     "reason": None}  # fmt: skip
    page = Path("out/report.html").read_text()
    assert "Tables, constants whose rows are looked up" in page and "in int8 with a scale per row" in page


def test_a_model_with_the_table_alone_in_int8_is_no_float_model():
    result, evaluated = calibrate(9)
    assert evaluated[-1] == (0, True) and not result.target_met and result.loss == 11
    result, evaluated = calibrate(10)
    assert evaluated[-1] == (0, True) and not result.target_met and read_tables("out/record.txt") == ["words"]


def test_a_run_goes_on_only_with_the_same_tables(messages):
    calibrate(11)
    expected = {path: path.read_bytes() for path in Path("out").iterdir() if path.stem != "report"}
    _, evaluated = calibrate(11, resume=True)
    assert evaluated == []
    assert {path: path.read_bytes() for path in expected} == expected
    messages.clear()
    _, evaluated = calibrate(11, resume=True, compress=False)
    assert evaluated == [(0, False), (2, False)]
    assert any("The configuration has changed since the run" in line for line in messages)
    assert read_tables("out/record.txt") == []
    (table,) = json.loads(Path("out/report.json").read_text())["tables"]
    assert not table["int8"] and "with weight_compress_only it takes" in Path("out/report.html").read_text()


EVALUATOR = """
import numpy as np
import tensorflow as tf
from amct_tensorflow.common.auto_calibration import AutoCalibrationEvaluatorBase

class Evaluator(AutoCalibrationEvaluatorBase):
    def calibration(self, graph, outputs):
        self.evaluate(graph, outputs)

    def evaluate(self, graph, outputs):
        ids = np.random.default_rng(0).integers(0, 1000, (16, 4)).astype(np.int32)
        with tf.compat.v1.Session(graph=graph) as session:
            return float(session.run(outputs[0].removesuffix(":0") + ":0", {"x:0": ids}).max())

evaluator = Evaluator()
"""


@pytest.mark.parametrize("command", ["auto-calibrate", "calibration"])
def test_the_command_line_has_the_option(main, command, capsys):
    save(build(network), Path("float.pb"))
    Path("e.py").write_text(EVALUATOR)
    Path("net.cfg").write_text("common_config { weight_compress_only: true }")
    common = ["--evaluator", "e.py", "--outputs", "out"]
    if command == "auto-calibrate":
        arguments = [command, "float.pb", *common, "--target", "9", "--save_dir", "out/net"]
    else:
        arguments = [command, "--model", "float.pb", *common, "--save_path", "out/net"]
    assert main([*arguments, "--weight_compress_only"]) == 0
    found = Path("out/net_quantized.pb").read_bytes()
    assert node_of(quantized(), "words").op == "Mul"
    assert main([*arguments, "--calibration_config", "net.cfg"]) == 0
    assert Path("out/net_quantized.pb").read_bytes() == found
    assert main(arguments) == 0
    assert node_of(quantized(), "words").op == "GatherV2"
    with pytest.raises(SystemExit):
        main([*arguments, "--weight_compress_only", "--calibration_config", "net.cfg"])
    assert "set it in common_config of net.cfg" in capsys.readouterr().err
