"""Sessions of the engine run what the caller's session may run."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal, run, tf1
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from amct_tensorflow.graph.session_options import session_options
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
    options = session_options(import_graph(graph_def, "test"), run_often=False, in_calling_thread=True)
    np.testing.assert_allclose(run(graph_def, ["out"], {"x": x}, options), expected, rtol=1e-5)
    assert options.inter_op_parallelism_threads == -1


def test_what_the_user_told_tensorflow_holds():
    graph = import_graph(graph_of("conv", "NHWC")[0], "test")
    default = tf1.Session(graph=graph)._config
    options = session_options(graph, run_often=True)
    options.allow_soft_placement = default.allow_soft_placement
    assert options == default
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"constant_folding": False})
    try:
        rewrites = session_options(graph, run_often=True).graph_options.rewrite_options
        assert rewrites.constant_folding == RewriterConfig.OFF
    finally:
        tf.config.optimizer.set_experimental_options({"constant_folding": before.get("constant_folding", True)})
