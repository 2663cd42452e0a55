"""What the engine runs graphs with runs what the caller's session may run."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal, run, tf1
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from amct_tensorflow.errors import CalibrationError, DatasetError
from amct_tensorflow.graph.graph_runner import GraphRunner, session_options
from amct_tensorflow.model.model_file import import_graph


def graph_of(op, data_format):
    shape = [2, 3, 6, 6] if data_format == "NCHW" else [2, 6, 6, 3]

    def make():
        x = tf1.placeholder(tf.float32, shape, name="x")
        if op == "conv":
            x = tf.nn.conv2d(x, normal((3, 3, 3, 4), 1), 1, "SAME", data_format)
        elif op == "pool":
            x = tf.nn.avg_pool2d(x, 2, 2, "SAME", data_format)
        tf.nn.relu(x, name="out")

    return build(make), normal(shape, 2)


@pytest.mark.parametrize("run_often", [True, False])
@pytest.mark.parametrize("op", ["conv", "pool"])
def test_channels_first_on_a_cpu(op, run_often):
    graph_def, x = graph_of(op, "NCHW")
    other, _ = graph_of(op, "NHWC")
    options = session_options(import_graph(graph_def, "test"), run_often=run_often)
    rewrites = options.graph_options.rewrite_options
    assert rewrites.cpu_layout_conversion == RewriterConfig.NCHW_TO_NHWC and not rewrites.disable_meta_optimizer
    (expected,) = run(other, ["out"], {"x": x.transpose(0, 2, 3, 1)})
    (actual,) = run(graph_def, ["out"], {"x": x}, options)
    np.testing.assert_allclose(actual, expected.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("run_often", [True, False])
@pytest.mark.parametrize("op", ["conv", "pool", "none"])
def test_other_graphs_are_run_as_ever(op, run_often):
    graph_def, _ = graph_of(op, "NHWC")
    rewrites = session_options(import_graph(graph_def, "test"), run_often=run_often).graph_options.rewrite_options
    assert rewrites.cpu_layout_conversion == RewriterConfig.NO_CONVERSION_ON_CPU
    assert rewrites.disable_meta_optimizer is not run_often


def test_nodes_on_a_device_that_the_machine_lacks():
    graph_def, x = graph_of("conv", "NHWC")
    expected = run(graph_def, ["out"], {"x": x})
    for node in graph_def.node:
        node.device = "/device:GPU:7"
    options = session_options(import_graph(graph_def, "test"), run_often=False, own_threads=2)
    np.testing.assert_allclose(run(graph_def, ["out"], {"x": x}, options), expected, rtol=1e-5)
    assert options.inter_op_parallelism_threads == 2 and options.use_per_session_threads


def test_what_the_user_told_tensorflow_holds():
    graph = import_graph(graph_of("conv", "NHWC")[0], "test")
    default = tf1.Session(graph=graph)._config
    options = session_options(graph, run_often=True)
    options.allow_soft_placement = default.allow_soft_placement
    options.experimental.disable_output_partition_graphs = default.experimental.disable_output_partition_graphs
    default.graph_options.rewrite_options.disable_tfg_optimizer = True
    assert options == default
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"constant_folding": False})
    try:
        rewrites = session_options(graph, run_often=True).graph_options.rewrite_options
        assert rewrites.constant_folding == RewriterConfig.OFF
    finally:
        tf.config.optimizer.set_experimental_options({"constant_folding": before.get("constant_folding", True)})


def squares():
    with tf.Graph().as_default() as graph:
        tf.square(tf1.placeholder(tf.float32, [None, 2], name="x"), name="y")
    return graph


def test_values_of_any_tensor_with_any_given():
    with GraphRunner(squares()) as runner:
        found = runner.values(["x:0", "y:0"], {"x:0": [[1, 2]]})
        np.testing.assert_array_equal(found["x:0"], [[1, 2]])
        np.testing.assert_array_equal(found["y:0"], [[1, 4]])
        np.testing.assert_array_equal(runner.values(["y:0"], {"y:0": [[5, 6]]})["y:0"], [[5, 6]])
        with pytest.raises(DatasetError, match="cannot be run on this data"):
            runner.values(["y:0"], {"x:0": np.zeros((1, 3))})


def test_what_was_added_after_a_run_is_run():
    seen = []
    with GraphRunner(squares()) as runner:
        x, y = (runner.graph.get_tensor_by_name(f"{name}:0") for name in "xy")
        assert runner.run(y, {x: [[3, 4]]}).tolist() == [[9, 16]]
        first = runner.observe([x], lambda value: seen.append(value.sum()))
        second = runner.observe([y], lambda value: seen.append(value.sum()), after=[first])
        assert runner.run([second], {"x:0": [[3, 4]]}) == [None]
        runner.close()
        assert runner.run(y, {x: [[1, 1]]}).tolist() == [[1, 1]]
    assert seen == [7, 25]


def test_an_error_of_a_look_comes_out_as_it_is():
    def refuse(value):
        if value.sum() < 0:
            raise CalibrationError("no such value")

    with GraphRunner(squares()) as runner:
        observer = runner.observe([runner.graph.get_tensor_by_name("x:0")], refuse)
        with pytest.raises(CalibrationError, match=r"^no such value$"):
            runner.run(observer, {"x:0": [[-1, 0]]})
        runner.run(observer, {"x:0": [[1, 0]]})
        with pytest.raises(tf.errors.OpError):  # of which no observer is the cause
            runner.run(observer)


def test_a_graph_behind_tensors_that_were_kept():
    """What reads them reads placeholders, of any number of images; what waits for them waits for those."""
    with tf.Graph().as_default() as graph:
        x = tf1.placeholder(tf.float32, [None, 2], name="x")
        kept = tf.exp(x, name="kept")
        unread = tf.exp(x, name="unread")
        with tf.control_dependencies([unread]):
            tf.add(kept, 1.0, name="out")
    with GraphRunner(tf.Graph(), {"kept:0": kept, "unread:0": unread}) as runner:
        runner.import_behind(graph.as_graph_def(), "model")
        out = runner.graph.get_tensor_by_name("model/out:0")
        assert runner.run(out, {"kept:0": [[1, 2]], "unread:0": [[0, 0]]}).tolist() == [[2, 3]]
        assert runner.takes_any_number([out]) and not runner.takes_any_number([tf.zeros([3, 2])])
    with GraphRunner(tf.Graph(), {"x:0": tf.zeros([3, 2])}) as runner:
        assert not runner.takes_any_number([]) and runner.sources["x:0"].shape.as_list() == [None, 2]


def test_a_session_that_was_left_open_is_taken_by_the_next_runner():
    graph = squares()
    with GraphRunner(graph, run_often=True) as runner:
        assert runner.run("y:0", {"x:0": [[1, 2]]}).tolist() == [[1, 4]]
        session = runner._session
        runner.leave_open()
    with GraphRunner(graph, run_often=True) as following:
        assert following.run("y:0", {"x:0": [[3, 0]]}).tolist() == [[9, 0]]
        assert following._session is session
    with GraphRunner(graph, run_often=True) as last:  # which finds none, as it was closed
        assert last.run("y:0", {"x:0": [[2, 1]]}).tolist() == [[4, 1]]
        assert last._session is not session


def test_a_session_with_other_options_is_not_taken():
    graph = squares()
    with GraphRunner(graph) as runner:
        runner.run("y:0", {"x:0": [[1, 2]]})
        session = runner._session
        runner.leave_open()
    with GraphRunner(graph, run_often=True) as following:
        following.run("y:0", {"x:0": [[3, 0]]})
        assert following._session is not session
    with pytest.raises(RuntimeError, match="closed"):
        session.run("y:0", {"x:0": [[1, 2]]})


def test_a_session_that_nobody_takes_is_freed_with_its_graph():
    graph = squares()
    with GraphRunner(graph) as runner:
        runner.run("y:0", {"x:0": [[1, 2]]})
        left = weakref.ref(runner._session)
        runner.leave_open()
    del graph, runner
    gc.collect()
    assert left() is None
