"""Balancing before calibration: quantize_preprocess, and what the steps after it make of its record."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from amct_tensorflow.common.auto_calibration import AutoCalibrationEvaluatorBase
from graphs import build, normal, run, save, signal_to_noise, small_net, tf1, unoptimized

import amct_tensorflow as amct
from amct_tensorflow.errors import CalibrationError, RecordError
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.record.record_file import is_pending, read_balance, read_record

IMAGES = normal((16, 8, 8, 3), 1)
READERS = ["expand", "last"]
LOUD = 2


def conv(x, weights, name):
    return tf.nn.bias_add(tf.nn.conv2d(x, weights, 1, "SAME", name=name), np.zeros(weights.shape[-1], np.float32))


def residual():
    """A residual path of 16 channels, of which one is 50 times as large, and its readers' weights are as small."""
    loud = np.ones(16, np.float32)
    loud[LOUD] = 50
    x = conv(tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x"), normal((3, 3, 3, 16), 2, 0.3) * loud, "stem")
    y = tf.nn.relu6(conv(x, normal((1, 1, 16, 16), 3, 0.3) / loud[:, None], "expand"))
    x = x + conv(y, normal((1, 1, 16, 16), 4, 0.3) * loud, "project")
    tf.identity(conv(x, normal((1, 1, 16, 8), 5, 0.3) / loud[:, None], "last"), name="out")


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save(build(residual), Path("float.pb"))
    amct.create_quant_config("config.json", import_graph(build(residual), path))
    configure_all(input_balancing=False)  # it would balance this model unasked
    return path


def step(function, *, images=IMAGES, outputs=("out",), make=residual):
    """Runs a step that listens on a fresh graph, with all images in one batch."""
    graph = import_graph(build(make), "test")
    function(graph, "config.json", "record.txt", list(outputs))
    with tf1.Session(graph=graph) as session:
        return session.run(f"{outputs[0]}:0", {"x:0": images})


def quantized(model, images=IMAGES):
    """Calibrates and saves; returns what the quantized model computes."""
    step(amct.quantize_model)
    amct.save_model(model, ["out"], "record.txt", "results/net")
    return outputs_of("results/net_quantized.pb", images)


def outputs_of(path, images=IMAGES):
    graph_def = tf1.GraphDef.FromString(Path(path).read_bytes())
    return run(graph_def, ["out"], {"x": images}, unoptimized())[0]


def configure_all(**keys):
    content = json.loads(Path("config.json").read_text())
    Path("config.json").write_text(json.dumps({**content, **keys}))


def configure(**layers):
    content = json.loads(Path("config.json").read_text())
    for name, strength in layers.items():
        content[name]["dmq_balancer_param"] = strength
    Path("config.json").write_text(json.dumps(content))


def test_a_large_channel_costs_nothing_when_balanced(model, messages):
    signal = outputs_of("float.pb")
    plain = quantized(model)
    written = Path("record.txt").read_text()
    step(amct.quantize_preprocess)
    assert is_pending("record.txt")
    balance = read_balance("record.txt")
    assert list(balance) == READERS and balance["expand"] == balance["last"]
    balanced = quantized(model)
    assert signal_to_noise(signal, balanced) > signal_to_noise(signal, plain) + 6
    assert read_balance("record.txt") == balance and set(read_record("record.txt")) == {
        "stem",
        "expand",
        "project",
        "last",
    }
    assert any("as quantize_preprocess left it" in text for text in messages)
    np.testing.assert_array_equal(quantized(model), plain)  # a record that is complete is emptied, as ever
    assert Path("record.txt").read_text() == written


def test_factors_by_hand(model):
    step(amct.quantized_preprocess)
    weights = {
        name: normal((1, 1, 16, count), seed, 0.3)[0, 0] for name, count, seed in [("expand", 16, 3), ("last", 8, 5)]
    }
    loud = np.where(np.arange(16) == LOUD, 50, 1)[:, None]
    largest_weight = np.max([np.abs(values / loud).max(axis=1) for values in weights.values()], axis=0)
    graph_def = build(residual)
    tensors = [node.input[0] for node in graph_def.node if node.name in READERS]
    values = run(graph_def, tensors, {"x": IMAGES})
    largest = np.max([np.abs(value).max(axis=(0, 1, 2)) for value in values], axis=0)
    np.testing.assert_allclose(read_balance("record.txt")["last"], np.sqrt(largest / largest_weight), rtol=1e-4)


def test_values_do_not_change_and_batches_are_counted(model):
    content = json.loads(Path("config.json").read_text())
    Path("config.json").write_text(json.dumps({**content, "batch_num": 2}))
    graph = import_graph(build(residual), "test")
    amct.quantize_preprocess(graph, "config.json", "record.txt")
    with tf1.Session(graph=graph) as session:
        first = session.run("out:0", {"x:0": IMAGES[:8]})
        assert not is_pending("record.txt")
        session.run("out:0", {"x:0": IMAGES[8:]})
    np.testing.assert_array_equal(first, run(build(residual), ["out"], {"x": IMAGES[:8]})[0])
    two = read_balance("record.txt")
    Path("config.json").write_text(json.dumps(content))
    step(amct.quantize_preprocess)
    assert two == read_balance("record.txt")


def test_a_layer_in_float_keeps_the_balance(model):
    """The factors stand in the record for it, too: the weights of those that yield its input were divided by them."""
    content = json.loads(Path("config.json").read_text())
    content["last"]["quant_enable"] = False
    Path("config.json").write_text(json.dumps(content))
    step(amct.quantize_preprocess)
    balanced = quantized(model)
    assert list(read_balance("record.txt")) == READERS and "last" not in read_record("record.txt")
    assert signal_to_noise(outputs_of("float.pb"), balanced) > 25


def test_layers_that_ask_in_vain_are_named(model, messages):
    configure(stem=0.5, project=0.5, last=0.8)
    step(amct.quantize_preprocess)
    warnings = [text for text in messages if "is not balanced" in text]
    assert len(warnings) == 2 and "'x' (Placeholder)" in warnings[1] and "Relu6" in warnings[0]
    assert list(read_balance("record.txt")) == READERS


def with_a_dense_layer():
    x = conv(tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x"), normal((3, 3, 3, 16), 2, 0.3), "stem")
    x = conv(tf.nn.relu6(x), normal((1, 1, 16, 16), 3, 0.3), "last")
    x = tf.matmul(tf.sigmoid(tf.reduce_mean(x, [1, 2])), normal((16, 4), 4), name="dense")
    tf.identity(x, name="out")


def test_a_dense_layer_that_asks_by_name_gets_a_product(tmp_path, monkeypatch, messages):
    """A convolution does not: balancing it is free in the original, or left out."""
    monkeypatch.chdir(tmp_path)
    net = with_a_dense_layer
    amct.create_quant_config("config.json", import_graph(build(net), "test"))
    step(amct.quantize_preprocess, make=net)
    assert not read_balance("record.txt")
    configure(last=0.5, dense=0.5)
    step(amct.quantize_preprocess, make=net)
    assert list(read_balance("record.txt")) == ["dense"]
    assert [text for text in messages if "Layer last is not balanced" in text and "Relu6" in text]
    step(amct.quantize_model, make=net)
    amct.save_model(save(build(net), Path("float.pb")), ["out"], "record.txt", "results/net")
    assert signal_to_noise(outputs_of("float.pb", IMAGES), outputs_of("results/net_quantized.pb", IMAGES)) > 25


def test_strengths_change_the_factors(model):
    step(amct.quantize_preprocess)
    default = read_balance("record.txt")
    configure(expand=0.4, last=0.6)  # 0.5 in the mean
    step(amct.quantize_preprocess)
    assert read_balance("record.txt") == default
    found = []
    for strength in (0.2, 0.8):
        configure(expand=strength, last=strength)
        step(amct.quantize_preprocess)
        found.append(np.array(read_balance("record.txt")["last"]))
    # x^0.2 / w^0.8 * x^0.8 / w^0.2 = x / w
    np.testing.assert_allclose(found[0] * found[1], np.square(default["last"]), rtol=1e-5)
    assert not np.allclose(found[0], found[1])


def test_what_a_layer_in_float_yields_is_calibrated_as_it_is_divided(model):
    scales = []
    for enabled in (True, False):
        content = json.loads(Path("config.json").read_text())
        content["stem"]["quant_enable"] = enabled
        Path("config.json").write_text(json.dumps(content))
        step(amct.quantize_preprocess)
        step(amct.quantize_model)
        scales.append(read_record("record.txt")["expand"].scale_d)
    assert scales[0] == pytest.approx(scales[1], rel=1e-3)


def test_asking_without_preprocessing_is_said(model, messages):
    configure(last=0.5)
    step(amct.quantize_model)
    assert any("dmq_balancer_param has no effect" in text for text in messages)


def test_nothing_to_balance_is_said(tmp_path, monkeypatch, messages):
    monkeypatch.chdir(tmp_path)
    graph = import_graph(build(small_net), "test")
    amct.create_quant_config("config.json", graph)
    content = json.loads(Path("config.json").read_text())
    content["logits/Conv2D"]["quant_enable"] = False  # the only one behind a layer and a pool alone
    Path("config.json").write_text(json.dumps(content))
    amct.quantize_preprocess(graph, "config.json", "record.txt", ["probabilities"])
    assert Path("record.txt").read_text() == ""
    assert any("No layer can be balanced" in text for text in messages)


def test_other_outputs_are_refused(model):
    """The values of the residual path are balanced ones; they must not be what the user gets."""
    name = next(node.input[0] for node in build(residual).node if node.name == "last")
    step(amct.quantize_preprocess)
    step(amct.quantize_model)
    with pytest.raises(RecordError, match="had other weights"):
        amct.save_model(model, ["out", name], "record.txt", "results/net")


def test_factors_that_were_edited_are_refused(model):
    step(amct.quantize_preprocess)
    step(amct.quantize_model)
    record = Path("record.txt").read_text()
    first = record.index("tensor_balance_factor: ")
    Path("record.txt").write_text(record[:first] + "tensor_balance_factor: 1.5" + record[record.index("\n", first) :])
    with pytest.raises(RecordError, match="'expand' and 'last'"):
        amct.save_model(model, ["out"], "record.txt", "results/net")


def test_data_that_is_not_finite_names_the_layer(model):
    with pytest.raises(tf.errors.OpError, match=r"layer 'expand' have invalid value inf or nan"):
        step(amct.quantize_preprocess, images=np.full_like(IMAGES, np.nan))


class Evaluator(AutoCalibrationEvaluatorBase):
    """Judges by the signal-to-noise ratio; ``calibrations`` counts."""

    def __init__(self, enough):
        self.enough = enough
        self.calibrations = 0

    def _run(self, graph, outputs):
        with tf1.Session(graph=graph) as session:
            return session.run(f"{outputs[0]}:0", {"x:0": IMAGES})

    def calibration(self, graph, outputs):
        self.calibrations += 1
        self._run(graph, outputs)

    def evaluate(self, graph, outputs):
        return float(signal_to_noise(outputs_of("float.pb"), self._run(graph, outputs) + 1e-9))

    def metric_eval(self, original_metric, new_metric):
        return new_metric > self.enough, -new_metric


def search(model, enough, **options):
    evaluator = Evaluator(enough)
    result = amct.accuracy_based_auto_calibration(
        model, ["out"], "record.txt", "config.json", "results/net", evaluator, **options
    )
    return result, evaluator.calibrations


def test_a_search_balances_if_the_configuration_asks_for_it(model, messages):
    plain, calibrations = search(model, 0)
    assert calibrations == 1 and not read_balance("record.txt")
    configure(last=0.5)
    balanced, calibrations = search(model, 0, resume=True)
    assert calibrations == 2 and list(read_balance("record.txt")) == READERS
    assert any("configuration" in text and "Starting from the beginning" in text for text in messages)
    assert balanced.saved_metric > plain.saved_metric + 6
    model_file = Path("results/net_quantized.pb").read_bytes()
    amct.save_model(model, ["out"], "record.txt", "results/again")
    assert Path("results/again_quantized.pb").read_bytes() == model_file
    again, calibrations = search(model, 0, resume=True)
    assert (calibrations, again.saved_metric) == (0, balanced.saved_metric)


def test_a_search_balances_unasked_what_gains_by_it(model, messages):
    plain, _ = search(model, 0)
    configure_all(input_balancing=True)
    balanced, calibrations = search(model, 0)
    assert calibrations == 1 and list(read_balance("record.txt")) == READERS
    assert balanced.saved_metric > plain.saved_metric + 6
    assert any("they are balanced: expand, last" in text for text in messages)
    layers = json.loads(next(Path("results").glob("*report.json")).read_text())["layers"]
    balance = {layer["name"]: layer["balance"] for layer in layers}
    assert {name for name, factors in balance.items() if factors} == set(READERS)
    np.testing.assert_allclose(balance["last"], read_balance("record.txt")["last"], rtol=1e-6)
    page = next(Path("results").glob("*report.html")).read_text()
    assert page.count("What it reads is balanced: divided per channel by") == len(READERS)
    assert page.count("by constants of the model, which costs nothing") == len(READERS)
    assert not any(layer["input_product"] for layer in layers)


def test_a_report_tells_what_a_product_costs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save(build(with_a_dense_layer), Path("float.pb"))
    amct.create_quant_config("config.json", import_graph(build(with_a_dense_layer), path))
    configure_all(input_balancing=False)
    configure(dense=0.5)
    search(path, 0)
    report = json.loads(next(Path("results").glob("*report.json")).read_text())
    products = {layer["name"]: layer["input_product"] for layer in report["layers"]}
    assert products.pop("dense") == {"values": 16, "share": 0.25, "layers": ["dense"]}  # of 16 * 4
    assert not any(products.values())
    page = next(Path("results").glob("*report.html")).read_text()
    assert "by a product in front of dense of 16 values for one image, 25 % of the multiply-accumulates there" in page
    model_file = Path("results/net_quantized.pb").read_bytes()
    amct.save_model(path, ["out"], "record.txt", "results/again")
    assert Path("results/again_quantized.pb").read_bytes() == model_file


@pytest.mark.parametrize("unasked", [False, True])
def test_a_search_rolls_balanced_layers_back(model, unasked):
    if unasked:
        configure_all(input_balancing=True)
    else:
        configure(last=0.5)
    all_quantized = search(model, 0)[0].saved_metric
    result, _ = search(model, all_quantized + 1)
    assert result.target_met and not all(result.roll_back_config.values())
    model_file = Path("results/net_quantized.pb").read_bytes()
    amct.save_model(model, ["out"], "record.txt", "results/again")
    assert Path("results/again_quantized.pb").read_bytes() == model_file


def test_a_search_without_data_is_refused(model):
    class Lazy(Evaluator):
        def calibration(self, graph, outputs):
            pass

    configure(last=0.5)
    with pytest.raises(CalibrationError, match="saw 0"):
        amct.accuracy_based_auto_calibration(model, ["out"], "record.txt", "config.json", "results/net", Lazy(0))
