"""What create_quant_config has prepared serves quantize_model, if it is what that would prepare itself."""

import gc
import weakref

import tensorflow as tf

from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.preparation.prepared_before import take_prepared


def live_graph() -> tf.Graph:
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 3], name="x")
        product = tf.matmul(x, tf.ones([3, 2]), name="product")
        tf.nn.relu(tf.identity(product, name="passed"), name="out")
    return graph


def prepared_before(graph: tf.Graph) -> FloatModel:
    model = FloatModel.of_graph(graph)
    model.keep_prepared()
    return model


def test_the_same_graph_is_not_prepared_again() -> None:
    graph = live_graph()
    first = prepared_before(graph)
    assert FloatModel.of_graph(graph, ["out"]).view is first.view


def test_it_is_taken_once() -> None:
    graph = live_graph()
    first = prepared_before(graph)
    assert FloatModel.of_graph(graph, ["out"]).view is first.view
    assert FloatModel.of_graph(graph, ["out"]).view is not first.view


def test_a_graph_that_was_changed_is_prepared_anew() -> None:
    graph = live_graph()
    prepared_before(graph)
    with graph.as_default():
        tf.nn.relu(graph.get_tensor_by_name("product:0"), name="other")
    assert "other" in FloatModel.of_graph(graph, ["out"]).view.nodes


def test_a_node_that_was_changed_in_place_is_seen() -> None:
    graph = live_graph()
    first = prepared_before(graph)
    graph.get_operation_by_name("out")._update_input(0, graph.get_tensor_by_name("product:0"))
    assert FloatModel.of_graph(graph, ["out"]).view is not first.view


def test_outputs_that_must_stay_are_prepared_anew() -> None:
    graph = live_graph()
    first = prepared_before(graph)
    assert "passed" not in first.view.nodes
    assert "passed" in FloatModel.of_graph(graph, ["out", "passed"]).view.nodes


def test_it_goes_with_the_graph() -> None:
    graph = live_graph()
    view = weakref.ref(prepared_before(graph).view)
    assert view() is not None
    assert take_prepared(tf.Graph(), view(), []) is None  # another graph's is left alone
    del graph
    gc.collect()
    assert view() is None
