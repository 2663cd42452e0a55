"""What the tool makes of a model, against counts by hand."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from graphs import SMALL_NET_LAYERS, batch_norm, build, node_of, normal, save, small_net, tf1

from amct_tensorflow.errors import ArgumentValueError, ModelError
from amct_tensorflow.model.endpoints import Endpoint
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.input_shapes import with_input_shapes
from amct_tensorflow.model.inspection import Share, inspect_model
from amct_tensorflow.model.inspection_output import dump_inspection, format_inspection, notes
from amct_tensorflow.model.layers import IN_BRANCH, IN_LOOP
from amct_tensorflow.model.model_file import import_graph


def load(make, outputs=()):
    return FloatModel.load(save(build(make), Path("model.pb")), outputs)


def inspect(make, outputs=(), unfused=()):
    return inspect_model(load(make, outputs), unfused)


def placeholder(*shape, name="x"):
    return tf1.placeholder(tf.float32, shape, name=name)


def conv(x, out, name, size=3, padding="SAME"):
    return tf.nn.conv2d(x, normal((size, size, x.shape[-1], out), 1, 0.3), 1, padding, name=name)


@pytest.fixture
def functions():
    """Loops and branches become functions, as TensorFlow 2 writes them."""
    before = tf1.control_flow_v2_enabled()
    tf1.enable_control_flow_v2()
    yield
    if not before:
        tf1.disable_control_flow_v2()


# ------------------------------------------------------------------------------------------------------------- Layers


def test_layers_of_a_small_net():
    found = inspect(small_net)
    rows = [(layer.name, layer.output_shape, layer.parameters, layer.multiply_accumulates) for layer in found.layers]
    assert rows == [
        ("conv/Conv2D", (1, 6, 6, 8), 27 * 8 + 8, 6 * 6 * 8 * 27),
        ("dw/depthwise", (1, 6, 6, 8), 9 * 8 + 8, 6 * 6 * 8 * 9),
        ("project/Conv2D", (1, 6, 6, 16), 8 * 16 + 16, 6 * 6 * 16 * 8),
        ("pool/AvgPool", (1, 1, 1, 16), 0, 0),
        ("logits/Conv2D", (1, 1, 1, 5), 16 * 5 + 5, 16 * 5),
    ]
    assert found.quantizable == SMALL_NET_LAYERS
    assert (found.parameters, found.multiply_accumulates) == (533, 15056)
    assert found.layers[1].absorbed == ("dw/BatchNorm",) and found.layers[1].absorbed_types == ("FusedBatchNormV3",)
    assert found.layers[0].input_shape == (1, 12, 12, 3) and found.layers[0].weights_shape == (3, 3, 3, 8)
    assert found.float_scalings == () and found.unused == () and notes(found) == []


def test_inputs_and_outputs_are_those_that_a_user_has_to_name():
    def make():
        x = placeholder(None, 4, name="images")
        gain = tf1.placeholder_with_default(np.float32(2), [], name="gain")
        placeholder(3, name="of_no_use")
        y = tf.matmul(x, normal((4, 3)), name="dense")
        tf.argmax(y * gain, axis=1, name="label")
        tf.nn.softmax(y, name="scores")
        tf.debugging.assert_positive(y)
        tf.constant(1.0, name="constant")

    found = inspect(make)
    assert found.inputs == (Endpoint("images", "float32", (None, 4)), Endpoint("gain", "float32", (), True))
    assert found.outputs == (Endpoint("label", "int64", (None,)), Endpoint("scores", "float32", (None, 3)))
    one = inspect(make, ["scores"])
    assert [each.name for each in (*one.inputs, *one.outputs)] == ["images", "scores"]


def test_a_list_of_tensors_is_no_output():
    """A loop hands on the list that it has filled, also where nothing reads it; no session fetches it."""

    def make():
        steps = tf.matmul(placeholder(None, 8), normal((8, 4), 1), name="steps")
        rows = tf.raw_ops.TensorListFromTensor(tensor=steps, element_shape=np.array([4], np.int32), name="rows")
        tf.identity(rows, name="filled")
        tf.nn.relu(steps, name="scores")

    found = inspect(make)
    assert [each.name for each in found.outputs] == ["scores"]


def test_an_output_that_yields_nothing():
    def make():
        with tf.control_dependencies([tf.matmul(placeholder(1, 4), normal((4, 3)))]):
            tf.no_op(name="nothing")

    with pytest.raises(ModelError, match="'nothing' yields nothing"):
        inspect(make, ["nothing"])


def test_layers_that_no_output_needs_are_left_out():
    def make():
        x = placeholder(None, 4)
        tf.matmul(x, normal((4, 3)), name="main")
        tf.matmul(x, normal((4, 2)), name="auxiliary")

    found = inspect(make, ["main"])
    assert found.quantizable == ["main"] and found.multiply_accumulates == 12 and found.unused == ("auxiliary",)
    assert notes(found) == ["No output depends on 1 layer, not counted here: auxiliary."]


def test_what_cannot_be_quantized_tells_why():
    def make():
        x = placeholder(None, 6, 8)
        scores = tf.matmul(x, x, transpose_b=True, name="scores")
        mixed = tf.matmul(scores, tf.matmul(x, normal((8, 4)), name="values"), name="mixed")
        tf.matmul(tf.constant(normal((5, 6))), mixed, name="queries")
        tf.einsum("abc,abc->ab", x, x, name="norms")

    found = inspect(make)
    assert {layer.name: layer.reason for layer in found.layers} == {
        "scores": None,
        "values": None,
        "mixed": None,
        "queries": "its first operand is a constant, and only its second one can be weights",
        "norms/Einsum": "its equation is no product of matrices that can be quantized",
    }
    assert [layer.weights_shape for layer in found.layers] == [None, (8, 4), None, (5, 6), None]
    counts = {"scores": 288, "values": 192, "mixed": 144, "queries": 120, "norms/Einsum": 48}
    assert {layer.name: layer.multiply_accumulates for layer in found.layers} == counts
    assert found.quantized_by_default == ["values"]
    assert "off [1]" in format_inspection(found)
    assert found.share(found.quantizable) == Share(
        (288 + 192 + 144) / sum(counts.values()), "multiply-accumulates", False
    )


@pytest.mark.parametrize("use_resource", [True, False])
def test_a_graph_that_is_not_frozen(use_resource):
    def make():
        weights = tf1.get_variable("weights", [8, 4], use_resource=use_resource)
        tf.matmul(placeholder(None, 8), weights, name="scores")

    (layer,) = inspect(make).layers
    assert layer.reason == "its weights are the variable 'weights', as the model is not frozen"


def test_an_op_that_tensorflow_does_not_know():
    graph_def = build(lambda: tf.nn.relu(placeholder(None, 8), name="scores"))
    node_of(graph_def, "scores").op = "NobodyKnowsIt"
    with pytest.raises(ModelError, match=r"needs the op NobodyKnowsIt, at node 'scores', .* tf\.load_op_library"):
        import_graph(graph_def, "net.pb")


# ------------------------------------------------------------------------------------------------------------- Shapes


def test_rows_that_images_become_are_counted():
    """As a dense layer on the tokens of each text is written."""

    def make():
        x = placeholder(None, 10, 16)
        tf.matmul(tf.reshape(x, [-1, 16]), normal((16, 4)), name="dense")

    (layer,) = inspect(make).layers
    assert layer.output_shape == (10, 4) and layer.multiply_accumulates == 10 * 16 * 4


def fully_convolutional():
    y = conv(placeholder(None, None, None, 3), 8, "conv")
    tf.matmul(tf.reduce_mean(y, [1, 2]), normal((8, 2)), name="dense")


def test_an_unknown_size_leaves_the_parameters_to_tell():
    found = inspect(fully_convolutional)
    assert [layer.multiply_accumulates for layer in found.layers] == [None, 16]
    assert found.layers[0].output_shape == (1, None, None, 8) and found.multiply_accumulates is None
    assert found.share(["dense"]) == Share(16 / 232, "parameters", False)
    (note,) = notes(found)
    assert "of 1 layer are not known" in note and "--input_shape" in note


def test_shapes_that_the_user_gives():
    found = inspect_model(with_input_shapes(load(fully_convolutional), {"x": (None, 5, 5, 3)}))
    assert found.layers[0].multiply_accumulates == 5 * 5 * 8 * 27 and notes(found) == []
    two = inspect_model(with_input_shapes(load(fully_convolutional), {"x": (2, 5, 5, 3)}))
    assert two.layers[0].multiply_accumulates == 2 * 5 * 5 * 8 * 27
    assert two.images == 2 and "2 images" in notes(two)[0]


@pytest.mark.parametrize(
    ("shapes", "words"),
    [({"y": (1,)}, "'y', which is no input of model.pb. Its inputs are 'x'"), ({"x": (1, 5, 5, 4)}, "does not fit")],
)
def test_shapes_that_do_not_fit(shapes, words):
    with pytest.raises(ArgumentValueError, match=words):
        with_input_shapes(load(fully_convolutional), shapes)


def test_a_graph_for_two_images_only():
    def make():
        x = tf.reshape(placeholder(None, 4), [2, 4])
        tf.matmul(x, normal((4, 3)), name="dense")

    (layer,) = inspect(make).layers
    assert layer.output_shape == (2, 3) and layer.multiply_accumulates == 24


def test_as_many_rows_as_the_data_say():
    def make():
        x = placeholder(None, 4)
        tf.matmul(tf.boolean_mask(x, x[:, 0] > 0), normal((4, 3)), name="dense")

    found = inspect(make)
    assert found.layers[0].multiply_accumulates == 12
    assert notes(found) == ["The first axis of the output of 1 layer is not known even for one image; it counts as 1."]


# ------------------------------------------------------------------------------------------------ Loops and functions


def recurrent():
    x = placeholder(None, 4)
    state, weights = tf.zeros_like(x), tf.constant(normal((4, 4)))
    _, state = tf.while_loop(lambda i, _: i < 9, lambda i, s: (i + 1, tf.matmul(s + x, weights)), [0, state])
    tf.matmul(state, normal((4, 2)), name="dense")


def check_recurrent(found):
    inside, dense = sorted(found.layers, key=lambda layer: not layer.in_loop)
    assert inside.in_loop and inside.reason == IN_LOOP
    assert (inside.parameters, inside.multiply_accumulates, inside.weights_shape) == (16, 16, (4, 4))
    assert dense.reason is None and dense.multiply_accumulates == 8
    assert found.share(["dense"]) == Share(1 / 3, "multiply-accumulates", True)
    assert str(found.share(["dense"])) == "at most 33.3 % of the multiply-accumulates"
    assert any("one round is counted" in note for note in notes(found))


def test_loops_of_old_form():
    tf1.disable_control_flow_v2()
    check_recurrent(inspect(recurrent))


@pytest.mark.usefixtures("functions")
def test_functions_of_loops_are_looked_into():
    assert any(node.op in ("While", "StatelessWhile") for node in build(recurrent).node)
    check_recurrent(inspect(recurrent))


@pytest.mark.usefixtures("functions")
def test_functions_of_branches_are_looked_into():
    @tf.function
    def twice(y):
        return conv(conv(y, 3, "inner"), 3, "inner_too")

    def make():
        x = placeholder(None, 5, 5, 3)
        y = tf.cond(x[0, 0, 0, 0] > 0, lambda: twice(x), lambda: batch_norm(x, 3, "bn"))
        conv(y, 2, "conv")

    found = inspect(make)
    inside = [layer for layer in found.layers if layer.reason is not None]
    assert [layer.reason for layer in inside] == [IN_BRANCH] * 2
    assert [layer.multiply_accumulates for layer in found.layers if layer not in inside] == [25 * 2 * 27]
    assert [layer.multiply_accumulates for layer in inside] == [25 * 3 * 27] * 2 and not inside[0].in_loop
    (scaling,) = found.float_scalings
    assert scaling.op_types == ("FusedBatchNormV3",) and scaling.reason == IN_BRANCH


def test_functions_that_something_else_calls():
    @tf.function
    def inner(row):
        return tf.linalg.matvec(tf.constant(normal((4, 4))), row)

    def make():
        x = placeholder(6, 4)
        function = inner.get_concrete_function(tf.TensorSpec([4]))
        function.add_to_graph()
        tf.raw_ops.MapDefun(
            arguments=[x], captured_inputs=[], output_types=[tf.float32], output_shapes=[[4]], f=function
        )  # fmt: skip

    (layer,) = inspect(make).layers
    assert "in a function, which is called in a way" in layer.reason and layer.parameters == 16


# --------------------------------------------------------------------------------------------- Scalings that are left


TRAINING = "it takes mean and variance from the batch (training mode); freeze the model for inference"


def training(x, name="bn"):
    return tf.raw_ops.FusedBatchNormV3(
        x=x, scale=np.ones(8, np.float32), offset=np.zeros(8, np.float32), mean=np.zeros(0, np.float32),
        variance=np.zeros(0, np.float32), is_training=True, name=name,
    )[0]  # fmt: skip


def training_in_small_ops(x):
    mean, variance = tf.nn.moments(x, [0, 1, 2])
    return (x - mean) * (tf.math.rsqrt(variance + 1e-3) * normal((8,)))


def image():
    return placeholder(None, 6, 6, 8)


def read_twice():
    y = conv(image(), 8, "conv")
    return batch_norm(y, 8, "bn") + y


def behind_attention():
    x = image()
    return batch_norm(tf.nn.conv2d(x, tf1.placeholder(tf.float32, [1, 1, 8, 8], name="w"), 1, "SAME"), 8, "bn")


def fed_gamma():
    gamma = tf1.placeholder(tf.float32, [8], name="gamma")
    zeros, ones = np.zeros(8, np.float32), np.ones(8, np.float32)
    return tf.raw_ops.FusedBatchNormV3(
        x=conv(image(), 8, "conv"), scale=gamma, offset=zeros, mean=zeros, variance=ones, is_training=False, name="bn"
    )[0]


def before_two():
    y = batch_norm(tf.nn.relu(image()), 8, "bn")
    return conv(y, 4, "conv", 1) + tf.reduce_sum(y, axis=-1, keepdims=True)


@pytest.mark.parametrize(
    ("make", "op_types", "reason"),
    [
        (lambda: training(conv(image(), 8, "conv")), ["FusedBatchNormV3"], TRAINING),
        (lambda: training_in_small_ops(conv(image(), 8, "conv")), ["Rsqrt"], TRAINING),
        (read_twice, ["FusedBatchNormV3"], "what the layer before it yields is read by others, too"),
        (behind_attention, ["FusedBatchNormV3"], "the layer before it is not quantized"),
        (fed_gamma, ["FusedBatchNormV3"], "its parameters are no constants, but computed"),
        (before_two, ["FusedBatchNormV3"], "not all of what reads it are layers"),
        (lambda: conv(batch_norm(tf.nn.relu(image()), 8, "bn"), 4, "conv"), ["FusedBatchNormV3"],
         "the layer behind it pads with zeros, which do not go through it"),
        (lambda: tf.nn.relu(batch_norm(tf.nn.max_pool2d(image(), 2, 2, "SAME"), 8, "bn")), ["FusedBatchNormV3"],
         "no layer stands next to it, but MaxPool before it and Relu behind it"),
        (lambda: conv(image() / np.arange(1, 9, dtype=np.float32) - normal((8,)), 4, "conv"), ["RealDiv", "Sub"],
         "the layer behind it pads with zeros, which do not go through it"),
    ],
)  # fmt: skip
def test_why_a_batch_norm_stays(make, op_types, reason):
    (scaling,) = inspect(lambda: tf.identity(make(), name="out"), ["out"]).float_scalings
    assert list(scaling.op_types) == op_types and scaling.reason.startswith(reason)


def test_a_batch_norm_that_is_asked_for():
    def make():
        tf.nn.relu(batch_norm(conv(image(), 8, "conv"), 8, "bn"), name="out")

    (scaling,) = inspect(make, unfused=["conv"]).float_scalings
    assert (scaling.name, scaling.reason) == ("bn", "the configuration asks to keep it")
    assert inspect(make).float_scalings == ()


def test_an_output_before_a_batch_norm():
    def make():
        tf.nn.relu(batch_norm(conv(image(), 8, "conv"), 8, "bn"), name="out")

    (scaling,) = inspect(make, ["out", "conv"]).float_scalings
    assert scaling.reason == "its value, or that of the layer before it, is an output"


def test_what_is_no_scaling_of_channels():
    def make():
        y = conv(image(), 8, "conv") * 0.5 + normal((8,))  # folded
        mean = tf.reduce_mean(y, axis=-1, keepdims=True)
        y = (y - mean) * (tf.math.rsqrt(tf.reduce_mean(y * y, axis=-1, keepdims=True) + 1e-3) * normal((8,)))
        y = tf.nn.relu6(y + 3.0) * (1 / 6) * normal((6, 6, 8))  # a layer norm, a hard swish, a factor per position
        tf.identity(tf.nn.relu(y), name="out")

    assert inspect(make).float_scalings == ()


# ---------------------------------------------------------------------------------------------------- Table and JSON


def test_the_table():
    assert (
        format_inspection(inspect(small_net))
        == """\
model    model.pb
input    input: float32 ?x12x12x3
output   probabilities: float32 ?x5

type                   output    params   MACs  share  int8  folded     name
Conv2D                 1x6x6x8      224  7.78k  51.6%  yes   BatchNorm  conv/Conv2D
DepthwiseConv2dNative  1x6x6x8       80  2.59k  17.2%  yes   BatchNorm  dw/depthwise
Conv2D                 1x6x6x16     144  4.61k  30.6%  yes   BatchNorm  project/Conv2D
AvgPool                1x1x1x16       0      0   0.0%  yes   -          pool/AvgPool
Conv2D                 1x1x1x5       85     80   0.5%  yes   bias       logits/Conv2D

5 layers, 5 quantizable; 533 parameters, 15.1k multiply-accumulates (MACs) per image
in int8: 100.0 % of the multiply-accumulates"""
    )


def test_the_table_of_what_stays_in_float():
    def make():
        y = batch_norm(tf.nn.relu(image()), 8, "bn")
        mixed = tf.reshape(conv(y, 4, "conv"), [-1, 36, 4]) + tf.reshape(y, [-1, 36, 8])[..., :4]
        tf.matmul(tf.constant(normal((8, 36))), mixed, name="MatMul")

    text = format_inspection(inspect(make), width=60)
    assert "no [1]  -       MatMul" in text
    assert "[1] 1 layer, 10.0 %: its first operand is a constant, and" in text
    assert "stay in float:\n  1: not all of what reads it are layers\n     bn\n" in text
    assert text.endswith("in int8: 90.0 % of the multiply-accumulates")


def test_a_model_without_layers():
    found = inspect(lambda: tf.nn.relu(placeholder(None, 4)))
    assert format_inspection(found).splitlines()[-1].startswith("No layer: nothing in the model multiplies")
    summary = json.loads(dump_inspection(found))["summary"]
    assert summary["layers"] == 0 and summary["int8_share"] is None


def test_a_table_is_printable():
    model = FloatModel.load(save(build(small_net), Path("mod\nel\x1b[31m.pb")), [])
    assert format_inspection(inspect_model(model)).startswith("model    mod\\x0ael\\x1b[31m.pb\n")


def keys(value):
    """Returns the keys of JSON, those inside others too."""
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


def test_json_is_as_the_page_says():
    def make():
        small_net()
        tf.nn.relu(batch_norm(tf.nn.relu(placeholder(None, 5, 5, 2, name="other")), 2, "bn"), name="out")
        tf.gather(normal((500, 16)), tf1.placeholder(tf.int32, [None], name="ids"), name="words")

    document = json.loads(dump_inspection(inspect(make)))
    page = (ROOT / "docs" / "file_formats.md").read_text().split("## inspect --json\n")[1].split("\n## ")[0]
    assert keys(document) == set(re.findall(r"(?m)^\| `(\w+)` \|", page))
    assert document["version"] == 1 and f"`version` | {document['version']}" in page
    assert document["inputs"][0] == {
        "name": "input",
        "dtype": "float32",
        "shape": [None, 12, 12, 3],
        "has_default": False,
    }
    assert document["layers"][1] == {
        "name": "dw/depthwise",
        "type": "DepthwiseConv2dNative",
        "input_shape": [1, 6, 6, 8],
        "weights_shape": [3, 3, 8, 1],
        "output_shape": [1, 6, 6, 8],
        "parameters": 80,
        "multiply_accumulates": 2592,
        "in_loop": False,
        "folded": ["dw/BatchNorm"],
        "folded_types": ["FusedBatchNormV3"],
        "quantizable": True,
        "quantized_by_default": True,
        "reason": None,
    }
    assert document["float_scalings"][0]["name"] == "bn" and document["tables"][0]["name"] == "words"
    assert document["summary"]["int8_share"] == 1 and document["summary"]["quantizable"] == 5
