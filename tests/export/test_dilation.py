"""Dilated convolutions, however TensorFlow writes them, are dilated convolutions in every format."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import batch_norm, build, calibrate_and_save, normal, run, tf1
from grids import grid
from test_every_format import OneBatch

from amct_tensorflow.devices.graph_check import check_graph
from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.dilation import find_dilations, write_dilations
from amct_tensorflow.export.export_plan import plan_export
from amct_tensorflow.export.tflite.tflite_editor import TfliteEditor
from amct_tensorflow.export.verification import check_export
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
pytest.importorskip("openvino", reason="the extra openvino is not installed")

IMAGES = (None, 12, 9, 3)


def phases(x, block, pads, crops, between):
    return tf.batch_to_space(between(tf.space_to_batch(x, block, pads)), block, crops)


def conv(x, window=(3, 3), channels=6, number=1):
    return tf.nn.conv2d(x, normal((*window, int(x.shape[-1]), channels), number, 0.3), 1, "VALID")


def depthwise(x):
    return tf.nn.depthwise_conv2d(x, normal((3, 3, int(x.shape[-1]), 2), 2, 0.3), [1] * 4, "VALID")


def biased(y):
    return tf.nn.bias_add(y, normal((int(y.shape[-1]),), 3))


def line(x):
    """A convolution of one axis, as tf.nn.conv1d writes it."""
    return tf.squeeze(conv(tf.expand_dims(x, -3), (1, 3)), [-3])


def volume(x):
    return tf.nn.conv3d(x, normal((2, 2, 2, 3, 4), 4, 0.3), [1] * 5, "VALID")


FORMS = {
    "as large as before": (IMAGES, lambda x: phases(x, [2, 2], [[2, 2], [2, 3]], [[0, 0], [0, 1]], conv)),
    "smaller than before": (IMAGES, lambda x: phases(x, [2, 3], [[0, 0], [0, 0]], [[0, 0], [0, 0]], conv)),
    "padded otherwise": (IMAGES, lambda x: phases(x, [3, 2], [[1, 2], [4, 1]], [[1, 0], [0, 1]], conv)),
    "a bias": (IMAGES, lambda x: phases(x, [2, 2], [[2, 2], [2, 3]], [[0, 0], [0, 1]], lambda y: biased(conv(y)))),
    "depthwise": (
        IMAGES,
        lambda x: phases(x, [2, 3], [[2, 2], [3, 3]], [[0, 0], [0, 0]], lambda y: biased(depthwise(y))),
    ),
    "an activation": (
        IMAGES,
        lambda x: phases(x, [2, 2], [[2, 2], [2, 3]], [[0, 0], [0, 1]], lambda y: tf.nn.relu6(biased(conv(y)))),
    ),
    "a window of one row": (
        IMAGES,
        lambda x: phases(x, [1, 3], [[0, 0], [3, 3]], [[0, 0], [0, 0]], lambda y: conv(y, (1, 3))),
    ),
    "two layers": (
        IMAGES,
        lambda x: phases(
            x, [2, 2], [[4, 4], [4, 5]], [[0, 0], [0, 1]], lambda y: biased(conv(tf.nn.relu(biased(conv(y))), number=5))
        ),
    ),
    "a layer behind an activation": (
        IMAGES,
        lambda x: phases(x, [2, 2], [[2, 2], [2, 3]], [[0, 0], [0, 1]], lambda y: conv(tf.sigmoid(y))),
    ),
    "one axis": ((None, 12, 3), lambda x: phases(x, [4], [[4, 4]], [[0, 0]], lambda y: biased(line(y)))),
    "three axes": ((None, 4, 6, 4, 3), lambda x: phases(x, [2] * 3, [[0, 0]] * 3, [[0, 0]] * 3, volume)),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_values_are_the_same(form):
    shape, layer = FORMS[form]
    graph_def = build(lambda: tf.identity(layer(tf1.placeholder(tf.float32, shape, name="x")), name="out"))
    view = GraphView(graph_def)
    (found,) = find_dilations(view, ["out"])
    editor = GraphEditor(view)
    write_dilations(editor, [found])
    written = editor.graph_def_for(["out"])
    assert not {"SpaceToBatchND", "BatchToSpaceND"} & {node.op for node in written.node}
    if form in ("depthwise", "three axes"):  # TensorFlow itself has no such kernels on a CPU
        return
    x = normal([2 if length is None else length for length in shape], 9)
    (expected,), (actual,) = run(graph_def, ["out"], {"x": x}), run(written, ["out"], {"x": x})
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def make_model(form):
    shape, layer = FORMS[form]

    def make():
        y = layer(tf1.placeholder(tf.float32, shape, name="x"))
        y = batch_norm(y, int(y.shape[-1]), "norm") if len(shape) == 4 else biased(y)
        y = tf.reduce_mean(tf.nn.relu(y), list(range(1, len(shape) - 1)))
        tf.nn.softmax(tf.matmul(y, normal((y.shape[-1], 4), 6)), name="out")

    return make


@grid(1, form=FORMS, name=TARGETS)
def test_every_format_computes_what_the_simulation_does(form, name):
    shape, _ = FORMS[form]
    x = normal([2 if length is None else length for length in shape], 9)
    calibrate_and_save(build(make_model(form)), x)
    checked = CheckedEvaluator(OneBatch(x))
    plan = plan_export(Path("results/net_quantized.pb"), [], checked)
    assert plan.dilations
    exported = TARGETS[name].export(plan, checked)
    check = check_export(plan, exported, checked)
    assert check.exported.divergence < 5e-4, check
    assert all(error.sqnr > 25 for error in check.layers.values()), check.layers
    if name == "tflite" and form != "three axes":
        editor = TfliteEditor(exported.files[".tflite"])
        ops = {editor.op_type(operator) for operator in editor.operators}
        assert ops & {"CONV_2D", "DEPTHWISE_CONV_2D"} and not ops & {"SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"}


@pytest.mark.parametrize("form", FORMS)
def test_the_chain_of_a_quantized_layer_is_whole(form):
    """BiasAdd and AscendDequant stand before BatchToSpaceND, so that GE recognizes the chain."""
    shape, _ = FORMS[form]
    quantized = calibrate_and_save(build(make_model(form)), normal([2 if each is None else each for each in shape], 9))
    told = check_graph(quantized, ["out"])
    assert told.chains == told.matched > 1 and told.errors == ()


# Phases that no dilation can be written for: cropped more than they were padded, or strided.
NO_DILATIONS = {
    "cropped": lambda x, between: phases(x, [2, 2], [[0, 0], [0, 1]], [[1, 1], [1, 1]], lambda y: between(conv(y))),
    "strided": lambda x, between: phases(
        x, [2, 2], [[2, 2], [2, 3]], [[0, 0], [0, 0]],
        lambda y: between(tf.nn.conv2d(y, normal((3, 3, 3, 6), 1, 0.3), 2, "VALID")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("between", [biased, tf.identity], ids=["a bias", "none"])
@pytest.mark.parametrize("form", NO_DILATIONS)
def test_a_float_layer_in_phases_is_converted(form, between):
    """TensorFlow Lite's converter would take it for a dilated convolution, which it is not, and fail."""

    def make():
        x = tf1.placeholder(tf.float32, IMAGES, name="x")
        y = tf.nn.relu(NO_DILATIONS[form](x, between))
        tf.nn.softmax(tf.matmul(tf.reduce_mean(y, [1, 2]), normal((6, 4), 6), name="last"), name="out")

    x = normal((2, *IMAGES[1:]), 9)
    calibrate_and_save(build(make), x, simplified='skip_layer_types: "Conv2D"')
    checked = CheckedEvaluator(OneBatch(x))
    plan = plan_export(Path("results/net_quantized.pb"), [], checked)
    assert not plan.dilations and list(plan.layers) == ["last"]
    check = check_export(plan, TARGETS["tflite"].export(plan, checked), checked)
    assert check.exported.divergence < 1e-4


def test_what_does_not_treat_all_positions_alike_stays_as_it_is():
    def make():
        x = tf1.placeholder(tf.float32, [None, 12, 12, 3], name="x")
        pads, none = [[2, 2], [2, 2]], [[0, 0], [0, 0]]
        y = phases(x, [2, 2], pads, none, lambda y: biased(conv(y)) + normal((6, 6, 6), 7))
        y = phases(y, [2, 2], pads, none, lambda y: tf.nn.max_pool2d(y, 3, 1, "VALID") + biased(conv(y)))
        y = tf.reduce_mean(tf.nn.relu(conv(y)), [1, 2])
        tf.nn.softmax(tf.matmul(y, normal((6, 4), 6)), name="out")

    x = normal((4, 12, 12, 3), 9)
    calibrate_and_save(build(make), x)
    checked = CheckedEvaluator(OneBatch(x))
    plan = plan_export(Path("results/net_quantized.pb"), [], checked)
    assert not plan.dilations
    for target in TARGETS.values():
        assert check_export(plan, target.export(plan, checked), checked).exported.divergence < 1e-3, target.name


def test_an_activation_behind_another_shape_belongs_to_its_layer():
    def make():
        y = tf1.placeholder(tf.float32, [None, 12, 3], name="x")
        for number in (1, 2):
            y = tf.nn.conv1d(y, normal((3, int(y.shape[-1]), 6), number, 0.3), 1, "SAME", name=f"conv{number}")
            y = tf.nn.relu(biased(y), name=f"relu{number}")
        tf.nn.softmax(tf.matmul(tf.reduce_mean(y, 1), normal((6, 4), 6)), name="out")

    x = normal((4, 12, 3), 9)
    calibrate_and_save(build(make), x)
    checked = CheckedEvaluator(OneBatch(x))
    plan = plan_export(Path("results/net_quantized.pb"), [], checked)
    first, second = plan.layer_outputs["conv1"], plan.layer_outputs["conv2"]
    assert (first.end, second.end) == ("relu1", "relu2")
    assert first.grid == plan.layers["conv2"].input_grid
    for target in TARGETS.values():
        check = check_export(plan, target.export(plan, checked), checked)
        assert check.exported.divergence < 1e-4
        assert all(error.sqnr > 35 for error in check.layers.values()), (target.name, check.layers)
