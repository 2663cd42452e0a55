"""Runs for a device: what they refuse, what they leave in float, and what they say in the end."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from amct_tensorflow.common.auto_calibration import AutoCalibrationEvaluatorBase
from conftest import ROOT
from graphs import build, normal, save, small_net, tf1

import amct_tensorflow as amct
from amct_tensorflow.devices.device_run import prepare_for_device
from amct_tensorflow.devices.device_table import ASCEND, GENERIC
from amct_tensorflow.errors import ArgumentTypeError, ArgumentValueError, ModelError
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.results.report.report_json import read_report

FEW, MANY, HEAD = "few/Conv2D", "many/Conv2D", "head/MatMul"


def net():
    """A convolution of 3 channels, which GE undoes, one of 32, and a product of matrices."""
    x = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
    y = tf.nn.relu(tf.nn.conv2d(x, normal((3, 3, 3, 32), 1, 0.3), 1, "SAME", name=FEW))
    y = tf.nn.relu(tf.nn.conv2d(y, normal((3, 3, 32, 8), 2, 0.1), 2, "SAME", name=MANY))
    y = tf.matmul(tf.reduce_mean(y, [1, 2]), normal((8, 5), 3, 0.4), name=HEAD)
    tf.nn.softmax(y, name="out")


class Evaluator(AutoCalibrationEvaluatorBase):
    """Loses nothing, unless more than ``most`` layers are quantized."""

    # One channel reaches 8 times as far as others, so that rounding them together costs FEW more than the rest.
    images = normal((32, 8, 8, 3), 9) * np.array([1, 1, 8], np.float32)

    def __init__(self, most=99):
        super().__init__()
        self.most, self.quantized = most, []

    def calibration(self, graph, outputs):
        with tf1.Session(graph=graph) as session:
            session.run(f"{outputs[0]}:0", {"x:0": self.images})

    def evaluate(self, graph, outputs):
        layers = sum(operation.type == "AscendDequant" for operation in graph.get_operations())
        self.quantized.append(layers)
        return 100.0 - (layers > self.most)

    def metric_eval(self, original, new):
        return original - new < 0.5, original - new


def calibrated(make=net, evaluator=None, **options):
    model = FloatModel.load(save(build(make), Path("net.pb")), ["out"])
    evaluator = evaluator or Evaluator()
    config = amct.make_quant_config(model)
    result = amct.accuracy_based_auto_calibration(
        model, ["out"], "run/record.txt", "run/config.json", "run/net", evaluator, "PredictiveSearch",
        "OutputDivergence", config=config, **options,
    )  # fmt: skip
    return result, evaluator


def test_layers_that_the_device_undoes_start_in_float(messages):
    result, evaluator = calibrated(device="ascend")
    assert result.roll_back_config == {FEW: False, MANY: True, HEAD: True}
    assert evaluator.quantized == [0, 2]
    check = result.device_check
    assert (check.errors, check.findings, check.matched, check.in_fp16) == ((), (), 2, (FEW,))
    few, many, head = 64 * 9 * 3 * 32, 16 * 9 * 32 * 8, 8 * 5
    assert check.int8_share == pytest.approx((many + head) / (few + many + head))
    assert result.float_mac_share == pytest.approx(few / (few + many + head))
    text = "\n".join(messages)
    assert (
        f"1 layer starts in float, as GE is expected to compute such in fp16 anyway (by rules of 2022): {FEW}" in text
    )
    less, more = map(
        float, re.search(r"diverge by (\S+) on the calibration data; in int8, by (\S+)\.\n", text).groups()
    )
    assert 0 < less < more
    assert re.search(
        r"2 of 2 chains matched; in int8 on the NPU: 40.0 % of the multiply-accumulates; 1 layer runs", text
    )


def test_the_report_tells_the_verdict():
    result, _ = calibrated(device="ascend")
    report = read_report(Path("run"))
    told = report.device
    assert told.verdict in Path("run/report.html").read_text()
    assert (told.device, told.matched, told.chains, told.in_fp16) == ("ascend", 2, 2, (FEW,))
    assert told.int8_share == pytest.approx(result.device_check.int8_share)
    rows = {layer.name: layer for layer in report.layers}
    assert rows[FEW].why == "device" and rows[FEW].reason == "GE computes it in fp16 anyway: it reads 3 channels"
    assert report.reproduction.settings["device"] == "ascend (int8 1, fp16 2)"


def test_free_roll_back_can_be_switched_off(messages):
    result, _ = calibrated(device="ascend", free_roll_back=False)
    assert all(result.roll_back_config.values())
    assert [(each.rule, each.node) for each in result.device_check.findings] == [("few-channels", FEW)]
    assert result.device_check.in_fp16 == (FEW,)
    assert read_report(Path("run")).device.findings[0].certainty.endswith("2022")
    assert not any("starts in float" in line for line in messages)


def test_without_a_device_nothing_changes():
    plain, _ = calibrated()
    first = Path("run/net_quantized.pb").read_bytes()
    same, _ = calibrated(device="generic")
    assert Path("run/net_quantized.pb").read_bytes() == first
    assert plain.device_check is None and same.device_check is None
    assert read_report(Path("run")).device is None


def test_the_search_never_asks_for_a_layer_of_the_device():
    result, evaluator = calibrated(evaluator=Evaluator(most=1), device="ascend")
    assert result.target_met and not result.roll_back_config[FEW]
    assert sum(result.roll_back_config.values()) == 1 and max(evaluator.quantized) == 2


def test_another_strategy_keeps_them_in_float():
    model = FloatModel.load(save(build(net), Path("net.pb")), ["out"])
    result = amct.accuracy_based_auto_calibration(
        model, ["out"], "run/record.txt", "run/config.json", "run/net", Evaluator(most=1),
        config=amct.make_quant_config(model), device="ascend",
    )  # fmt: skip
    assert result.target_met and not result.roll_back_config[FEW]


def test_a_model_of_which_the_device_undoes_everything(messages):
    result, _ = calibrated(lambda: _renamed(small_net), _small_evaluator(), device="ascend", raise_costless=False)
    assert all(result.roll_back_config.values()) and result.device_check.int8_share == 0.0
    assert any("GE is expected to compute every layer of net.pb in fp16" in line for line in messages)


def _renamed(make):
    make()
    tf.identity(tf1.get_default_graph().get_tensor_by_name("probabilities:0"), name="out")


def _small_evaluator():
    class Small(Evaluator):
        def calibration(self, graph, outputs):
            with tf1.Session(graph=graph) as session:
                session.run(f"{outputs[0]}:0", {"input:0": normal((4, 12, 12, 3), 9)})

    return Small()


def padded():
    """A depthwise convolution with EXPLICIT padding, which ATC refuses."""
    x = tf1.placeholder(tf.float32, [None, 8, 8, 32], name="x")
    y = tf.raw_ops.DepthwiseConv2dNative(
        input=x, filter=normal((3, 3, 32, 1)), strides=[1, 1, 1, 1], padding="EXPLICIT",
        explicit_paddings=[0, 0, 1, 1, 1, 1, 0, 0], name="depthwise",
    )  # fmt: skip
    tf.nn.relu(y, name="out")


def test_a_depthwise_convolution_pads_as_the_device_wants(workdir):
    model = FloatModel.load(save(build(padded), Path("net.pb")), ["out"])
    assert prepare_for_device(model, amct.make_quant_config(model), ASCEND, free_roll_back=True).in_float == {}


def doubles():
    x = tf.cast(tf1.placeholder(tf.float64, [None, 8, 8, 32], name="x"), tf.float32)
    tf.nn.relu(tf.nn.conv2d(x, normal((1, 1, 32, 8), 2), 1, "SAME", name="conv"), name="out")


def test_errors_of_the_float_graph_come_before_any_evaluation(workdir):
    evaluator = Evaluator()
    with pytest.raises(ModelError, match=r"net.pb is not expected to compile for ascend: x: "):
        calibrated(doubles, evaluator, device="ascend")
    assert evaluator.quantized == [] and not Path("run").exists()


def upsampled(computed):
    """A transposed convolution that is told the size of its output by a constant, or computes it."""
    x = tf1.placeholder(tf.float32, [2 if not computed else None, 4, 4, 32], name="x")
    size = [tf.shape(x)[0], 8, 8, 4] if computed else [2, 8, 8, 4]
    y = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=size,
        filter=normal((2, 2, 4, 32), 1),
        out_backprop=x,
        strides=[1, 2, 2, 1],
        padding="VALID",
        name="up",
    )
    tf.nn.relu(tf.nn.conv2d(tf.concat([y] * 8, 3), normal((1, 1, 32, 8), 2), 1, "SAME", name="conv"), name="out")


@pytest.mark.parametrize("computed", [True, False])
def test_a_transposed_convolution_without_an_int8_kernel_stays_in_float(messages, computed):
    model = FloatModel.load(save(build(lambda: upsampled(computed)), Path("net.pb")), ["out"])
    for free in (True, False):
        demands = prepare_for_device(model, amct.make_quant_config(model), ASCEND, free_roll_back=free)
        assert list(demands.in_float) == (["up"] if computed else [])
    assert any("for which the device has no int8 kernel" in line for line in messages) == computed


def reshaped():
    """A product of matrices whose channels only a run tells, behind a Relu."""
    x = tf1.placeholder(tf.float32, [None, 8], name="x")
    shape = tf1.placeholder_with_default(np.array([-1, 8], np.int32), [2], name="shape")
    y = tf.nn.relu(tf.matmul(x, normal((8, 8), 1), name="first"))
    tf.nn.relu(tf.matmul(tf.reshape(y, shape), normal((8, 3), 2), name="second"), name="out")


def test_no_zero_point_where_the_device_would_not_correct_it(messages):
    model = FloatModel.load(save(build(reshaped), Path("net.pb")), ["out"])
    config = amct.make_quant_config(model)
    demands = prepare_for_device(model, config, ASCEND)
    asymmetric = {name: layer.activation.asymmetric for name, layer in demands.config.layers.items()}
    assert asymmetric == {"first": True, "second": False}
    assert any("1 layer is calibrated without a zero point" in line and "second" in line for line in messages)
    assert prepare_for_device(model, config, GENERIC).config is config


def test_the_command_line(main, capsys, workdir):
    save(build(net), Path("net.pb"))
    source = Path(__file__).read_text()
    body = source[source.index("class Evaluator") : source.index("def calibrated")]
    head = (
        "import numpy as np\nimport tensorflow as tf\nfrom amct_tensorflow.common.auto_calibration import "
        "AutoCalibrationEvaluatorBase\ntf1 = tf.compat.v1\n"
        "def normal(shape, seed): return np.random.default_rng(seed).normal(size=shape).astype('float32')\n"
    )
    Path("evaluator.py").write_text(f"{head}{body}\nevaluator = Evaluator()\n")
    command = ["auto-calibrate", "net.pb", "--evaluator", "evaluator.py", "--save_dir", "run/net", "--json"]
    assert main([*command, "--device", "ascend"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["layers_in_float"] == [FEW] and document["device_check"]["summary"]["in_fp16"] == [FEW]
    assert main([*command, "--device", "ascend", "--no_free_roll_back"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["layers_in_float"] == [] and document["device_check"]["summary"]["notes"] == 1


def test_calibration_without_a_search(main, messages):
    save(build(net), Path("net.pb"))
    Path("bins").mkdir()
    normal((4, 8, 8, 3), 9).tofile("bins/0.bin")
    command = ["calibration", "--model", "net.pb", "--outputs", "out:0", "--save_path", "run/net", "--data_dir", "bins",
               "--input_shape", "x:4,8,8,3", "--data_types", "float32"]  # fmt: skip
    assert main([*command, "--device", "ascend"]) == 0
    told = amct.check("run/net_quantized.pb", ["out"])
    assert told.findings == () and told.in_fp16 == (FEW,)
    assert any("2 of 2 chains matched" in line for line in messages)
    assert main(command) == 0
    assert [each.node for each in amct.check("run/net_quantized.pb", ["out"]).findings] == [FEW]


@pytest.mark.parametrize(
    ("options", "error"),
    [({"device": "npu"}, ArgumentValueError), ({"device": 1}, ArgumentValueError),
     ({"free_roll_back": 1}, ArgumentTypeError)],
)  # fmt: skip
def test_wrong_arguments(options, error):
    with pytest.raises(error):
        calibrated(**options)


def test_the_page_names_the_options():
    page = (ROOT / "docs" / "ascend.md").read_text()
    assert "--device ascend" in page and "--no_free_roll_back" in page
