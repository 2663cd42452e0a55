"""Large constants of the caller's graph are lent to it while it is calibrated."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal, tf1

from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.model_file import CALIBRATION_SCOPE, import_graph
from amct_tensorflow.quantize.calibration import lent_weights
from amct_tensorflow.quantize.calibration.lent_weights import LentWeights

X = normal((4, 80), 1)


def two_layers():
    """Returns a graph of two layers of 25 kB each, and a constant of one number."""
    x = tf1.placeholder(tf.float32, [None, 80], "x")
    hidden = tf.nn.relu(tf.matmul(x, tf.constant(normal((80, 80), 2), name="first"), name="hidden") + 1.0)
    tf.matmul(hidden, tf.identity(tf.constant(normal((80, 80), 3), name="second")), name="out")


@pytest.fixture(autouse=True)
def _lend_much(monkeypatch):
    monkeypatch.setattr(lent_weights, "_LEAST_BYTES", 1 << 14)
    monkeypatch.setattr(lent_weights, "_LEAST_BYTES_OF_ONE", 1 << 13)


def lend(graph_def, needed=None):
    graph = import_graph(graph_def, "test")
    return graph, LentWeights(graph, GraphView(graph_def), needed or {node.name for node in graph_def.node})


def run(graph, *names):
    with tf1.Session(graph=graph) as session:
        return session.run([f"{name}:0" for name in names], {"x:0": X})


def test_the_model_computes_the_same_of_lent_weights():
    graph_def = build(two_layers)
    graph, lent = lend(graph_def)
    assert graph.get_operation_by_name("hidden").inputs[1].op.type == "PyFunc"
    values = run(graph, "out", "first")
    for expected, value in zip(run(import_graph(graph_def, "test"), "out", "first"), values, strict=True):
        np.testing.assert_allclose(value, expected, 1e-5, 1e-5)
    lent.take_back()  # whoever runs the graph again gets the same
    np.testing.assert_array_equal(run(graph, "out", "first")[0], values[0])


def test_small_models_and_small_constants_are_left_alone(monkeypatch):
    graph_def = build(two_layers)
    graph, _ = lend(graph_def)
    added = [each for each in graph.get_operations() if each.name.startswith(f"{CALIBRATION_SCOPE}/")]
    assert len(added) == 1
    assert len(added[0].outputs) == 2
    monkeypatch.setattr(lent_weights, "_LEAST_BYTES", 1 << 16)
    graph, lent = lend(graph_def)
    assert graph.as_graph_def() == import_graph(graph_def, "test").as_graph_def()
    lent.take_back()


def test_a_second_calibration_lends_anew():
    graph_def = build(two_layers)
    graph, first = lend(graph_def)
    LentWeights(graph, GraphView(graph_def), {node.name for node in graph_def.node})
    first.take_back()
    first._lend = None  # nothing asks it any more
    np.testing.assert_allclose(run(graph, "out")[0], run(import_graph(graph_def, "test"), "out")[0], 1e-5, 1e-5)


def test_what_the_caller_does_not_run_keeps_its_constants():
    graph, _ = lend(build(two_layers), {"x", "first", "hidden"})
    assert graph.get_operation_by_name("hidden").inputs[1].op.type == "PyFunc"
    assert [each.type for each in graph.get_tensor_by_name("second:0").consumers()] == ["Identity"]
