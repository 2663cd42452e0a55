"""Exported files in which loops stand between layers, and read what stands around them."""

from pathlib import Path

import pytest
import tensorflow as tf
from graphs import build, build_v1, calibrate_and_save, normal, tf1
from test_every_format import OneBatch

from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_model import export_model
from amct_tensorflow.export.onnx.onnx_editor import OnnxEditor
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("openvino", reason="the extra openvino is not installed")

X = normal((16, 6, 4), 4)


def sequences(images):
    return tf1.placeholder(tf.float32, [images, *X.shape[1:]], name="x")


def over_steps(y, weights):
    """A recurrent cell on sequences [images, steps, channels]; the loop reads them from the graph around it."""
    steps, s = y.shape[1], tf.transpose(y, [1, 0, 2])

    def body(i, h, a):
        h = tf.tanh(s[i] + tf.matmul(h, weights))
        return i + 1, h, a.write(i, h)

    array = tf.TensorArray(tf.float32, steps, element_shape=s.shape[1:])
    state = [0, tf.zeros_like(s[0]), array]
    return tf.transpose(tf.while_loop(lambda i, *_: i < steps, body, state)[2].stack(), [1, 0, 2])


def conv1d(y, seed):
    return tf.nn.conv1d(y, normal((3, int(y.shape[2]), 4), seed, 0.5), 1, "SAME")


def behind_layers(images):
    y = conv1d(conv1d(sequences(images), 1), 2)
    tf.identity(conv1d(over_steps(y, normal((4, 4), 7)), 3), name="out")


def with_layers_beside(images):
    """What the loop reads is quantized for a layer, too, clipped and moved."""
    y = tf.nn.relu6(conv1d(sequences(images), 1))
    z = over_steps(tf.reshape(y, [images or -1, 3, 8]), normal((8, 8), 7, 0.3))
    tf.concat([conv1d(tf.reshape(z, [images or -1, 6, 4]), 2), conv1d(y, 3)], 2, name="out")


# How many layers are in int8 at least: some runtimes have no kernel of a convolution that yields float.
FORMATS = [("onnx", build_v1, None, 0), ("openvino", build_v1, None, 3), ("tflite", build, len(X), 1)]


@pytest.mark.parametrize("make", [behind_layers, with_layers_beside])
@pytest.mark.parametrize(("target", "write", "images", "in_int8"), FORMATS, ids=[name for name, *_ in FORMATS])
def test_loops_between_layers(make, target, write, images, in_int8):
    calibrate_and_save(write(lambda: make(images)), X)
    model, evaluator = Path("results/net_quantized.pb"), CheckedEvaluator(OneBatch(X))
    document = export_model(model, [], TARGETS[target], evaluator, Path("results/net"), 0.01)
    assert document["kl"] < 1e-3
    assert sum(layer["int8"] for layer in document["layers"]) >= in_int8
    assert all(layer["int8"] or layer["reason"] for layer in document["layers"])


def test_an_edit_reaches_what_reads_inside_a_loop():
    """``y`` is read by a graph in a graph, and ``own`` is another tensor there."""
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    kind = onnx.TensorProto.FLOAT
    inner = onnx.helper.make_graph([make("Add", ["y", "own"], ["sum"])], "inner", [], [info("sum", kind, None)])
    choice = make("If", ["flag"], ["own_2"], then_branch=inner, else_branch=inner)
    outer = onnx.helper.make_graph([make("Neg", ["y"], ["own"]), choice], "outer", [], [info("own_2", kind, None)])
    nodes = [
        make("Relu", ["x"], ["y"]), make("Exp", ["x"], ["own"]),
        make("If", ["flag"], ["out"], then_branch=outer, else_branch=outer),
    ]  # fmt: skip
    inputs = [info("x", kind, [2]), info("flag", onnx.TensorProto.BOOL, [])]
    graph = onnx.helper.make_graph(nodes, "graph", inputs, [info("out", kind, [2])])
    editor = OnnxEditor(onnx.helper.make_model(graph))
    assert [node.op_type for node in editor.readers("y")] == ["If"] and editor.readers("own") == []
    assert editor.reaches_inner_graph("x", ()) and not editor.reaches_inner_graph("x", ["Relu"])
    editor.add_node("Tanh", ["y"], "z")
    editor.redirect("y", "z", exempt=["z"])
    model = editor.model()
    assert [node.op_type for node in model.graph.node] == ["Relu", "Tanh", "If"]
    assert editor.readers("z") and not [node for node in editor.readers("y") if node.op_type == "If"]
