"""Small float graphs that tests quantize, and ways to run a GraphDef."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

import amct_tensorflow as amct
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.preparation.prepared import PreparedGraph

tf1 = tf.compat.v1

# Settings of config.json that leave out what the original toolkit does not do.
PLAIN = {"bias_correction": False, "weight_rounding": "nearest", "range_refinement": False, "input_balancing": False}


def build(make):
    """Returns the GraphDef of what ``make()`` adds to an empty graph."""
    with tf.Graph().as_default() as graph:
        make()
    return graph.as_graph_def()


@contextmanager
def control_flow_v1():
    """Writes ``tf.cond`` as Switch and Merge, and loops as Enter, NextIteration and Exit."""
    tf1.disable_control_flow_v2()
    try:
        yield
    finally:
        tf1.enable_control_flow_v2()


def build_v1(make):
    """Like ``build``, with control flow of version 1."""
    with control_flow_v1():
        return build(make)


def node_of(graph_def, name):
    """Returns the node of a name."""
    (node,) = (node for node in graph_def.node if node.name == name)
    return node


def ops_of(graph_def, *left_out):
    """Returns the op types of a graph, sorted, without constants and placeholders."""
    return sorted(node.op for node in graph_def.node if node.op not in ("Const", "Placeholder", *left_out))


def run(graph_def, fetches, feeds, options=None):
    """Imports and runs a GraphDef; names without ``:0`` are completed."""
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
        # TensorFlow leaves a node that is fetched as it is, even if it has no kernel for its data format.
        fetched = [tf.identity(graph.get_tensor_by_name(f"{name}:0")) for name in fetches]
    with tf1.Session(graph=graph, config=options) as session:
        return session.run(fetched, {f"{name}:0": value for name, value in feeds.items()})


def prepared(graph_def, rewrite, keep=("out",)):
    """Returns a graph as one rewrite prepares it, and per new node the original nodes it stands for."""
    graph = rewrite(PreparedGraph.of(GraphView(graph_def), keep, "test"))
    return graph.view.graph_def, graph.origins


_WITHOUT_A_VALUE = {"NoOp", "Assert", "TensorListFromTensor", "TensorListReserve", "TensorArrayV3", "VarHandleOp"}


def check_same_values(before, after, feeds, but=(), options=None):
    """Checks that every node which both graphs have has the same value in both.

    Nodes in loops and branches, which cannot be fetched, are left out, and so are those in ``but``.
    """
    views = GraphView(before), GraphView(after)
    inside = {name for view in views for name in view.loop_nodes | view.branch_nodes}
    common = [
        name
        for name in views[0].nodes.keys() & views[1].nodes.keys() - inside - set(but)
        if views[1].nodes[name].op not in _WITHOUT_A_VALUE
    ]
    assert common
    values = [run(graph_def, common, feeds, options or unoptimized()) for graph_def in (before, after)]
    for name, expected, actual in zip(common, *values, strict=True):
        assert expected.dtype == actual.dtype and expected.shape == actual.shape, name
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(actual, expected, err_msg=name)


def unoptimized():
    """Options of a session that runs a graph node by node, as it is."""
    options = tf1.ConfigProto()
    options.graph_options.rewrite_options.disable_meta_optimizer = True
    return options


def nchw_on_cpu():
    """Options of a session that turns NCHW into NHWC, for which alone TensorFlow has kernels on a CPU."""
    options = tf1.ConfigProto()
    options.graph_options.rewrite_options.cpu_layout_conversion = RewriterConfig.NCHW_TO_NHWC
    return options


def calibrate_and_save(graph_def, x, output="out", simplified="", **options):
    """Takes a graph whose placeholder is ``x`` through the public steps; returns the quantized graph.

    ``simplified`` is the text of a simplified configuration; ``options`` are others of ``create_quant_config``.
    """
    model = save(graph_def, Path("float.pb"))
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    Path("simplified.cfg").write_text(simplified)
    defined = "simplified.cfg" if simplified else None
    amct.create_quant_config("config.json", graph, config_defination=defined, **options)
    amct.quantize_model(graph, "config.json", "record.txt", [output])
    with tf1.Session(graph=graph) as session:
        session.run(f"{output}:0", {"x:0": x})
    amct.save_model(model, [output], "record.txt", "results/net")
    return tf1.GraphDef.FromString(Path("results/net_quantized.pb").read_bytes())


def signal_to_noise(signal, noisy):
    """Returns the ratio in decibels."""
    return 10 * np.log10(np.sum(np.square(signal)) / np.sum(np.square(noisy - signal)))


def rng(seed=0):
    return np.random.default_rng(seed)


def normal(shape, seed=0, scale=1.0):
    return (rng(seed).normal(size=shape) * scale).astype(np.float32)


def batch_norm(x, channels, name, seed=0, op="FusedBatchNormV3", epsilon=0.001, data_format="NHWC"):
    generator = rng(seed)
    gamma, variance = generator.uniform(0.5, 2.0, (2, channels)).astype(np.float32)
    beta, mean = generator.normal(size=(2, channels)).astype(np.float32)
    raw = getattr(tf.raw_ops, op)
    return raw(
        x=x, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=epsilon, is_training=False,
        data_format=data_format, name=name,
    )[0]  # fmt: skip


def small_net():
    """conv + BN + relu6, depthwise + BN + relu6, 1x1 conv + BN, average pool, 1x1 logits + bias, softmax."""
    x = tf1.placeholder(tf.float32, [None, 12, 12, 3], name="input")
    weights = tf.identity(tf.constant(normal((3, 3, 3, 8), 1, 0.4), name="conv/weights"), name="conv/weights/read")
    y = tf.nn.conv2d(x, weights, 2, "SAME", name="conv/Conv2D")
    y = tf.nn.relu6(batch_norm(y, 8, "conv/BatchNorm/FusedBatchNorm", 2, "FusedBatchNorm"), name="conv/Relu6")
    y = tf.nn.depthwise_conv2d(y, normal((3, 3, 8, 1), 3, 0.4), [1, 1, 1, 1], "SAME", name="dw/depthwise")
    y = tf.nn.relu6(batch_norm(y, 8, "dw/BatchNorm", 4), name="dw/Relu6")
    y = tf.nn.conv2d(y, normal((1, 1, 8, 16), 5, 0.4), 1, "SAME", name="project/Conv2D")
    y = batch_norm(y, 16, "project/BatchNorm", 6)
    y = tf.nn.avg_pool2d(y, 6, 1, "VALID", name="pool/AvgPool")
    y = tf.nn.conv2d(y, normal((1, 1, 16, 5), 7, 0.5), 1, "SAME", name="logits/Conv2D")
    y = tf.nn.bias_add(y, normal((5,), 8), name="logits/BiasAdd")
    tf.nn.softmax(tf.reshape(y, [-1, 5]), name="probabilities")


SMALL_NET_LAYERS = ["conv/Conv2D", "dw/depthwise", "project/Conv2D", "pool/AvgPool", "logits/Conv2D"]


def save(graph_def, path):
    path.write_bytes(graph_def.SerializeToString())
    return str(path)


def quantize_small_net(skip_layers=None):
    """Takes ``small_net`` through the public steps; returns the paths of the float and of the quantized model."""
    model = save(build(small_net), Path("net.pb"))
    graph = build_graph(small_net)
    amct.create_quant_config("config.json", graph, skip_layers)
    amct.quantize_model(graph, "config.json", "record.txt", ["probabilities"])
    with tf1.Session(graph=graph) as session:
        session.run("probabilities:0", {"input:0": normal((8, 12, 12, 3), 9)})
    amct.save_model(model, ["probabilities"], "record.txt", "results/net")
    return model, "results/net_quantized.pb"


def build_graph(make):
    """Returns a graph that holds what ``make()`` adds to it."""
    with tf.Graph().as_default() as graph:
        make()
    return graph
