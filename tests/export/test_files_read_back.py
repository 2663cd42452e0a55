"""What was put into an ONNX or OpenVINO file is found in it again, and anything else is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, tf1
from layers import LAYERS
from test_every_format import OneBatch, make_model

from amct_tensorflow.errors import ExportError
from amct_tensorflow.export.export_plan import plan_export
from amct_tensorflow.export.onnx.onnx_model import make_onnx_model
from amct_tensorflow.export.onnx.onnx_reading import read_onnx_layers
from amct_tensorflow.export.openvino.openvino_reading import read_openvino_layers
from amct_tensorflow.export.openvino.openvino_target import convert_to_openvino
from amct_tensorflow.export.written import check_written
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
openvino = pytest.importorskip("openvino", reason="the extra openvino is not installed")
pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")


def plan_of(x):
    return plan_export(Path("results/net_quantized.pb"), [], CheckedEvaluator(OneBatch(x)))


def in_openvino(model):
    files = convert_to_openvino(model.SerializeToString())
    return openvino.Core().read_model(files[".xml"], files[".bin"])


def read(plan, to, change=lambda model: None):
    """Writes a model, changes the ONNX model of it, and reads what it holds."""
    source = make_onnx_model(plan, outputs_in_int8=to == "onnx")
    change(source.model)
    layers = {name: plan.layers[name] for name in source.weights}
    if to == "onnx":
        return read_onnx_layers(source.model.SerializeToString(), layers)
    return read_openvino_layers(in_openvino(source.model), layers)


@pytest.mark.parametrize("op_type", [name for name, layer in LAYERS.items() if layer.weights is not None])
def test_every_op_type_is_found_again(op_type):
    plan = plan_of(make_model(op_type))
    for to in ("onnx", "openvino"):
        found = read(plan, to)
        assert found.keys() == plan.layers.keys()
        for name, layer in plan.layers.items():
            assert np.array_equal(found[name].weights, layer.weights)
            assert found[name].input_grid.offset == layer.input_grid.offset
            np.testing.assert_allclose(found[name].input_grid.scale, layer.input_grid.scale, rtol=1e-6)
            np.testing.assert_allclose(found[name].bias, layer.float_bias, rtol=1e-6)
        check_written(plan.layers, found, to)


def convolution():
    x = tf1.placeholder(tf.float32, [None, 6, 6, 3], name="x")
    y = tf.nn.bias_add(tf.nn.conv2d(x, normal((3, 3, 3, 4), 1), 1, "SAME", name="conv"), normal((4,), 2))
    tf.reduce_mean(tf.nn.relu(y), [1, 2], name="out")


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("convolution"))
        x = normal((4, 6, 6, 3), 3)
        calibrate_and_save(build(convolution), x)
        return replace(plan_of(x), model=Path("results/net_quantized.pb").absolute())


def changed(name, change):
    """Returns what changes an initializer of a model."""

    def apply(model):
        (value,) = [each for each in model.graph.initializer if each.name == name]
        value.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(value).copy()), name))

    return apply


def one_more(values):
    values.flat[1] += 1 if values.flat[1] < 100 else -1
    return values


def wider(values):
    return (values * 1.001).astype(values.dtype)


def add_bias_again(model):
    """As a converter would that left the Add in place and took the bias in, too."""
    (conv,) = [node for node in model.graph.node if node.op_type == "Conv"]
    inner, conv.output[0] = f"{conv.output[0]}/once", conv.output[0]
    outer = conv.output[0]
    conv.output[0] = inner
    scale, integers = (
        next(onnx.numpy_helper.to_array(each) for each in model.graph.initializer if each.name == name)
        for name in ("conv/int32_bias/scale", "conv/int32_bias")
    )
    model.graph.initializer.append(
        onnx.numpy_helper.from_array((integers * scale).reshape(1, -1, 1, 1).astype(np.float32), "again")
    )
    model.graph.node.insert(
        list(model.graph.node).index(conv) + 1, onnx.helper.make_node("Add", [inner, "again"], [outer], name="again")
    )


@pytest.mark.parametrize("to", ["onnx", "openvino"])
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (changed("conv/int8_weights", one_more), "weights"),
        (changed("conv/int8_weights/scale", wider), "scales of the weights"),
        (changed("conv/int32_bias", one_more), "biases"),
        (add_bias_again, "biases"),
    ],
)
def test_what_differs_is_named(plan, to, change, what):
    with pytest.raises(ExportError, match=rf"The {what} of layer 'conv' in the .* file are not those"):
        check_written(plan.layers, read(plan, to, change), to)


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_another_grid_of_the_input_is_named(plan, to):
    (layer,) = plan.layers.values()
    grid = replace(layer.input_grid, offset=layer.input_grid.offset + 1)
    other = replace(layer, quantizers=(replace(layer.quantizer, grid=grid),))
    with pytest.raises(ExportError, match="The factors of the input of layer 'conv'"):
        check_written({"conv": other}, read(plan, to), to)


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_weights_that_have_gone_are_named(plan, to):
    def rename(model):
        for each in (*model.graph.initializer, *model.graph.node):
            if each.name == "conv/int8_weights":
                each.name = "other"
            if hasattr(each, "input"):
                each.input[:] = ["other" if name == "conv/int8_weights" else name for name in each.input]

    with pytest.raises(ExportError, match="The weights of layer 'conv'"):
        check_written(plan.layers, read(plan, to, rename), to)


def test_layers_with_equal_biases_are_told_apart():
    def make():
        y = tf1.placeholder(tf.float32, [None, 6], name="x")
        for seed in (1, 2):
            y = tf.nn.relu(tf.nn.bias_add(tf.matmul(y, normal((6, 6), seed)), np.ones(6, np.float32)))
        tf.identity(y, name="out")

    x = normal((8, 6), 3)
    calibrate_and_save(build(make), x)
    plan = plan_of(x)
    first, second = plan.layers.values()
    bias = np.rint(first.bias * (first.deq_scale / second.deq_scale).astype(np.float64)).astype(np.int32)
    plan = replace(plan, layers={**plan.layers, second.name: replace(second, bias=bias)})
    for to in ("onnx", "openvino"):
        check_written(plan.layers, read(plan, to), to)
