"""Products of two computed operands, as attention has them, through the public steps."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, build_v1, calibrate_and_save, node_of, normal, run, save, signal_to_noise, tf1
from layers import PRODUCTS_TOO

import amct_tensorflow as amct
from amct_tensorflow.errors import ConfigValueError, RecordError
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.layers import why_not_quantizable
from amct_tensorflow.quantize.quantized.quantized_layer import read_layers
from amct_tensorflow.quantize.record.record_file import read_record


def two(make, shapes=((None, 3, 4), (None, 4, 5))):
    """A graph ``out`` of two placeholders; what is calibrated by ``x`` alone reads both from slices of it."""

    def graph():
        a, b = (tf1.placeholder(tf.float32, shape, name=name) for name, shape in zip("ab", shapes, strict=True))
        tf.identity(make(a, b), name="out")

    return build(graph)


def of_one(make, shape, **slices):
    """A graph of a placeholder ``x``, from slices of which ``make`` computes ``out``."""

    def graph():
        x = tf1.placeholder(tf.float32, shape, name="x")
        tf.identity(make(*(x[each] for each in slices.values()) if slices else (x,)), name="out")

    return build(graph)


def convert(graph_def, record):
    """Quantizes a model by the text of a record."""
    Path("record.txt").write_text(record)
    amct.convert_model(save(graph_def, Path("float.pb")), ["out"], "record.txt", "results/net")
    return tf1.GraphDef.FromString(Path("results/net_quantized.pb").read_bytes())


def record_of(name, scale_d, *scale_w, offset_d=0):
    second = "".join(f" scale_w: {each}" for each in scale_w) + " offset_w: 0" * len(scale_w)
    return f'record {{ key: "{name}" value {{ scale_d: {scale_d} offset_d: {offset_d}{second} }} }}'


def integers(values, scale):
    return np.clip(np.rint(values / np.float64(scale)), -128, 127)


def test_both_operands_are_rounded_and_the_sums_are_scaled_once():
    """By hand: [1, -0.5] in steps of 0.25 is [4, -2], [0.3, 0.1] in steps of 0.125 is [2, 1]; 6 * 0.03125 = 0.1875."""
    graph_def = two(lambda a, b: tf.matmul(a, b, name="product"), ((None, 1, 2), (None, 2, 1)))
    quantized = convert(graph_def, record_of("product", 0.25, 0.125))
    a, b = np.array([[[1, -0.5]]], np.float32), np.array([[[0.3], [0.1]]], np.float32)
    (value,) = run(quantized, ["out"], {"a": a, "b": b})
    assert value.tolist() == [[[0.1875]]]
    (layer,) = read_layers(GraphView(quantized))
    assert layer.weights is None and layer.bias is None and layer.deq_scale.tolist() == [0.03125]
    assert [(each.data, each.grid.scale, each.grid.offset) for each in layer.quantizers] == [
        ("a", 0.25, 0),
        ("b", 0.125, 0),
    ]
    ops = {node.name: node.op for node in quantized.node}
    assert [ops[text] for text in node_of(quantized, "product").input] == ["AscendQuant", "AscendQuant"]


PRODUCTS = {
    "BatchMatMulV2": (lambda a, b: tf.matmul(a, b, name="product"), (2, 3, 4), (2, 4, 5)),
    "BatchMatMul": (lambda a, b: tf.raw_ops.BatchMatMul(x=a, y=b, name="product"), (2, 3, 4), (2, 4, 5)),
    "second transposed": (lambda a, b: tf.matmul(a, b, transpose_b=True, name="product"), (2, 6, 3, 4), (2, 6, 5, 4)),
    "first transposed": (lambda a, b: tf.matmul(a, b, transpose_a=True, name="product"), (2, 4, 3), (2, 4, 5)),
    "both": (lambda a, b: tf.matmul(a, b, transpose_a=True, transpose_b=True, name="product"), (2, 4, 3), (2, 5, 4)),
    "MatMul": (lambda a, b: tf.matmul(a, b, name="product"), (3, 4), (4, 5)),
    "MatMul transposed": (lambda a, b: tf.matmul(a, b, transpose_b=True, name="product"), (3, 4), (5, 4)),
    "one matrix for all": (lambda a, b: tf.matmul(a, b, name="product"), (2, 3, 4), (4, 5)),
    "a batch of one": (lambda a, b: tf.matmul(a, b, name="product"), (2, 6, 3, 4), (2, 1, 4, 5)),
    "batches of one": (lambda a, b: tf.matmul(a, b, name="product"), (2, 1, 3, 4), (1, 1, 4, 5)),
    "queries and keys": (lambda a, b: tf.einsum("abcd,aecd->acbe", a, b, name="product"), (2, 3, 6, 4), (2, 5, 6, 4)),
    "keys first": (lambda a, b: tf.einsum("aecd,abcd->acbe", a, b, name="product"), (2, 5, 6, 4), (2, 3, 6, 4)),
    "scores and values": (lambda a, b: tf.einsum("acbe,aecd->abcd", a, b, name="product"), (2, 6, 3, 4), (2, 4, 6, 5)),
    "flat": (lambda a, b: tf.einsum("ab,bc->ca", a, b, name="product"), (3, 4), (4, 5)),
}


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("name", PRODUCTS)
def test_every_form_of_a_product(name, batch):
    make, *shapes = PRODUCTS[name]
    unknown = [(None, *shape[1:]) if batch else shape for shape in shapes]
    graph_def = two(make, unknown)
    a, b = normal(shapes[0], 1), normal(shapes[1], 2)
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    (spec,) = FloatModel.of_graph(graph, ["out"]).layers
    assert spec.is_product and not spec.channel_wise
    scales = [float(np.float32(np.abs(each).max() / 127)) for each in (a, b)]
    order = slice(None, None, -1 if name in ("keys first", "flat") else 1)  # which operand the output has last
    quantized = convert(graph_def, record_of(spec.name, *scales[order]))
    rounded = [np.float32(integers(each, np.abs(each).max() / 127) * (np.abs(each).max() / 127)) for each in (a, b)]
    (expected,) = run(graph_def, ["out"], dict(zip("ab", rounded, strict=True)))
    (actual,) = run(quantized, ["out"], {"a": a, "b": b})
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def attention(x, heads=2, width=4):
    """Self-attention of [batch, length, heads * width], with an output projection."""
    channels, length = heads * width, int(x.shape[1])

    def dense(values, seed, name):
        return tf.matmul(values, tf.constant(normal((channels, channels), seed, 0.5)), name=name)

    def split(values):
        return tf.transpose(tf.reshape(values, [-1, length, heads, width]), [0, 2, 1, 3])

    q, k, v = (split(dense(x, seed, name)) for seed, name in enumerate(("q", "k", "v"), 1))
    scores = tf.nn.softmax(tf.matmul(q, k, transpose_b=True, name="qk") / 2.0)
    mixed = tf.reshape(tf.transpose(tf.matmul(scores, v, name="av"), [0, 2, 1, 3]), [-1, length, channels])
    return dense(mixed, 4, "o")


ATTENTION = of_one(attention, (None, 5, 8))


def test_calibration_gives_each_operand_a_scale_of_its_own():
    x = normal((16, 5, 8), 9)
    # Balancing would divide the values, for the layer behind; their scale is compared with what the float model yields.
    quantized = calibrate_and_save(ATTENTION, x, simplified=f"{PRODUCTS_TOO} input_balancing: false")
    factors = read_record("record.txt")
    assert factors.keys() == {"q", "k", "v", "o", "qk", "av"}
    q, k, scores, v = run(ATTENTION, ["transpose", "transpose_1", "Softmax", "transpose_2"], {"x": x})
    for name, first, second in (("qk", q, k), ("av", scores, v)):
        one = factors[name]
        assert one.offset_d == 0 and len(one.scale_w) == 1
        for scale, values in ((one.scale_d, first), (one.scale_w[0], second)):
            assert 0.5 < scale * 127 / np.abs(values).max() < 1.3
    assert {layer.key for layer in read_layers(GraphView(quantized))} == factors.keys()
    (expected,), (actual,) = (run(each, ["out"], {"x": x}) for each in (ATTENTION, quantized))
    assert signal_to_noise(expected, actual) > 30


def test_a_product_of_a_tensor_with_itself_has_one_quantizer():
    x = normal((6, 4, 4), 3)
    quantized = calibrate_and_save(
        of_one(lambda x: tf.matmul(x, x, name="product"), (None, 4, 4)), x, simplified=PRODUCTS_TOO
    )
    first, second = node_of(quantized, "product").input
    assert first == second
    factors = read_record("record.txt")["product"]
    assert factors.scale_d == factors.scale_w[0]


def test_an_output_keeps_its_name():
    def make():
        x = tf1.placeholder(tf.float32, [None, 2, 3, 3], name="x")
        tf.matmul(x[:, 0], x[:, 1], name="out")

    graph_def, x = build(make), normal((8, 2, 3, 3), 5)
    quantized = calibrate_and_save(graph_def, x, simplified=PRODUCTS_TOO)
    (expected,), (actual,) = (run(each, ["out"], {"x": x}) for each in (graph_def, quantized))
    assert signal_to_noise(expected, actual) > 30
    (layer,) = read_layers(GraphView(quantized))
    assert layer.key == "out" and layer.name == "out/quantized"


def test_the_configuration_of_a_product():
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(ATTENTION, name="")
    amct.create_quant_config("config.json", graph)
    config = json.loads(Path("config.json").read_text())
    assert [name for name in ("q", "k", "v", "o", "qk", "av") if not config[name]["quant_enable"]] == ["qk", "av"]
    assert config["qk"]["weight_quant_params"]["channel_wise"] is False
    assert config["qk"]["activation_quant_params"]["asymmetric"] is False
    for section, key in (("activation_quant_params", "asymmetric"), ("weight_quant_params", "channel_wise")):
        changed = json.loads(json.dumps(config))
        changed["qk"][section][key] = True
        Path("changed.json").write_text(json.dumps(changed))
        with pytest.raises(ConfigValueError, match=f"{key} must be false for BatchMatMulV2"):
            amct.quantize_model(graph, "changed.json", "record.txt", ["out"])


def configured(text):
    """Returns the configuration that a simplified one stands for."""
    Path("simple.cfg").write_text(text)
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(ATTENTION, name="")
    amct.create_quant_config("config.json", graph, config_defination="simple.cfg")
    return json.loads(Path("config.json").read_text())


ALGORITHM = "calibration_config {{ {} {{ asymmetric: {} }} {} }}"


def test_a_simplified_configuration():
    """What is said of a type is said of its layers with weights, too; a product takes of it what it can."""
    enabled = {name for name in ("q", "qk", "av") if configured(PRODUCTS_TOO)[name]["quant_enable"]}
    assert enabled == {"q", "qk", "av"}
    calibration = ALGORITHM.format("ifmr_quantize", "true", "arq_quantize { channel_wise: true }")
    config = configured(f'override_layer_types {{ layer_type: "BatchMatMulV2" {calibration} }}')
    for name, is_product in (("q", False), ("qk", True)):
        assert config[name]["activation_quant_params"]["asymmetric"] is not is_product
        assert config[name]["weight_quant_params"]["channel_wise"] is not is_product
    calibration = ALGORITHM.format("hfmg_quantize", "false", "")
    config = configured(f'override_layer_configs {{ layer_name: "av" {calibration} }}')
    assert config["av"]["activation_quant_params"]["act_algo"] == "hfmg"
    assert [name for name in ("q", "qk", "av") if config[name]["quant_enable"]] == ["q", "av"]  # one that is asked for
    config = configured(f'{PRODUCTS_TOO} skip_layers: "qk"')
    assert [name for name in ("q", "qk", "av") if config[name]["quant_enable"]] == ["q", "av"]
    with pytest.raises(ConfigValueError, match="Every quantizable layer is skipped"):
        configured(f'{PRODUCTS_TOO} skip_layer_types: "BatchMatMulV2"')


def test_a_product_that_cannot_have_what_its_layer_is_told():
    calibration = ALGORITHM.format("ifmr_quantize", "true", "")
    with pytest.raises(ConfigValueError, match="asymmetric must be false for BatchMatMulV2"):
        configured(f'override_layer_configs {{ layer_name: "qk" {calibration} }}')


def test_a_product_has_no_form_in_16_bits():
    wide = "ifmr_quantize { dst_type: INT16 }"
    config = configured(f"{PRODUCTS_TOO} common_config {{ {wide} }}")
    bits = {name: config[name]["activation_quant_params"]["num_bits"] for name in ("q", "qk", "av")}
    assert bits == {"q": 16, "qk": 8, "av": 8}
    with pytest.raises(ConfigValueError, match="has 8 bits, not 16"):
        configured(f'override_layer_configs {{ layer_name: "qk" calibration_config {{ {wide} }} }}')
    config["qk"]["activation_quant_params"]["num_bits"] = 16
    Path("changed.json").write_text(json.dumps(config))
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(ATTENTION, name="")
    with pytest.raises(ConfigValueError, match="has 8 bits, not 16"):
        amct.quantize_model(graph, "changed.json", "record.txt", ["out"])


def reason(graph_def, name="product"):
    view = GraphView(graph_def)
    return why_not_quantizable(view, view.nodes[name])


def test_what_is_no_product_of_two_computed_operands():
    first = of_one(lambda x: tf.matmul(tf.constant(normal((2, 3))), x, name="product"), (3, 4))
    assert reason(first).startswith("its first operand is a constant, and only its second one")
    half = of_one(lambda x: tf.matmul(tf.cast(x, tf.float16), tf.cast(x, tf.float16), name="product"), (3, 3))
    assert reason(half).startswith("it computes float16")

    def in_a_loop():
        x = tf1.placeholder(tf.float32, [3, 3], name="x")
        body = lambda i, y: (i + 1, tf.matmul(y, y, name="product"))  # noqa: E731
        tf.identity(tf.while_loop(lambda i, _: i < 3, body, [0, x])[1], name="out")

    assert reason(build_v1(in_a_loop), "while/product") == "it runs inside a loop, any number of times per batch"


def test_weights_that_are_a_variable_are_no_second_operand():
    def make():
        x = tf1.placeholder(tf.float32, [None, 4], name="x")
        tf.matmul(x, tf1.get_variable("w", [4, 5]), name="product")

    assert reason(build(make)).startswith("its weights are the variable 'w'")


LONG = 70_000


def test_sums_that_do_not_fit_stay_in_float():
    """255 * 128 * 70,000 is more than 2**31."""
    slices = {"a": np.s_[:, :2], "b": np.s_[:, 2:]}
    long = of_one(lambda a, b: tf.matmul(a, b, transpose_b=True, name="long"), (None, 4, LONG), **slices)
    x = normal((1, 4, LONG), 1)
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(long, name="")
    Path("definition.cfg").write_text(PRODUCTS_TOO)
    amct.create_quant_config("config.json", graph, config_defination="definition.cfg")
    amct.quantize_model(graph, "config.json", "record.txt", ["out"])
    with tf1.Session(graph=graph) as session, pytest.raises(Exception, match="its sums of 70000 products may exceed"):
        session.run("out:0", {"x:0": x})
    with pytest.raises(RecordError, match="its sums of 70000 products may exceed 32 bits"):
        convert(long, record_of("long", 0.1, 0.1))
