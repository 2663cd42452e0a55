"""Options of the sessions in which the engine runs graphs."""

import tensorflow as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tensorflow.python.eager import context  # there is no public way to ask what tf.config was told


def session_options(graph: tf.Graph, *, run_often: bool, in_calling_thread: bool = False) -> tf.compat.v1.ConfigProto:
    """Returns the options of a session on a graph: those that it has by default, which ``tf.config`` sets, and more.

    TensorFlow has no kernels for NCHW on a CPU; its optimizer turns such nodes into NHWC, and must be on then. Nodes
    that are bound to a device which the machine lacks run elsewhere, as whoever trains on GPUs expects.

    Args:
        graph: the graph that the session runs.
        run_often: whether it pays to optimize the graph first, which takes several times as long as running it.
        in_calling_thread: whether all ops run one after the other in the thread that calls the session.
    """
    options = tf.compat.v1.ConfigProto()
    options.CopyFrom(context.context().config)
    options.allow_soft_placement = True
    if in_calling_thread:
        options.inter_op_parallelism_threads = -1
    rewrites = options.graph_options.rewrite_options
    if any(map(_is_nchw, graph.get_operations())):
        rewrites.cpu_layout_conversion = RewriterConfig.NCHW_TO_NHWC
        rewrites.min_graph_nodes = -1  # small graphs, too
    elif not run_often:
        rewrites.disable_meta_optimizer = True
    return options


def _is_nchw(operation: tf.Operation) -> bool:
    if "data_format" not in {attribute.name for attribute in operation.op_def.attr}:
        return False
    return bool(operation.get_attr("data_format").startswith(b"NC"))
