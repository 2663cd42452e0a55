"""Keeps what a live graph was prepared to, for the next who prepares the same graph.

``create_quant_config`` and ``quantize_model`` both need the caller's graph prepared, one soon after the other, and of a
transformer that takes as long as two runs of a batch. It is kept as long as the graph lives, and taken once.
"""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.preparation.prepared import PreparedGraph

_KEPT: WeakKeyDictionary[tf.Graph, tuple[GraphDef, PreparedGraph]] = WeakKeyDictionary()


def keep_prepared(graph: tf.Graph, graph_def: GraphDef, prepared: PreparedGraph) -> None:
    """Keeps what a graph was prepared to.

    Args:
        graph: the live graph.
        graph_def: its nodes as they were prepared.
        prepared: the result.
    """
    _KEPT[graph] = graph_def, prepared


def take_prepared(graph: tf.Graph, view: GraphView, outputs: Sequence[str]) -> PreparedGraph | None:
    """Returns what was kept of a graph, which is forgotten; None if that is not what preparing it would yield.

    Args:
        graph: the live graph.
        view: its nodes as they are.
        outputs: nodes that are asked for.
    """
    graph_def, prepared = _KEPT.pop(graph, (None, None))
    if prepared is None or not prepared.view.nodes.keys() >= set(outputs):
        return None
    kept = PreparedGraph.of(view, outputs, prepared.source).kept
    return prepared if prepared.kept == kept and graph_def == view.graph_def else None
