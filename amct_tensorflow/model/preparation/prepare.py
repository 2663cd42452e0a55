"""Prepares a graph: all rewrites in their order, repeated until nothing changes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.nodes import make_const
from amct_tensorflow.graph.view import GraphView, attribute
from amct_tensorflow.log import log_for
from amct_tensorflow.model.layers import layer_weights
from amct_tensorflow.model.preparation.affine_before_concat import affine_before_concat
from amct_tensorflow.model.preparation.bias_before_split import bias_before_split
from amct_tensorflow.model.preparation.cancel_reshapes import cancel_reshapes
from amct_tensorflow.model.preparation.decide_branches import decide_branches, decide_flags
from amct_tensorflow.model.preparation.drop_ordering import drop_ordering
from amct_tensorflow.model.preparation.einsum_to_batch_matmul import einsum_to_batch_matmul
from amct_tensorflow.model.preparation.einsum_to_matmul import einsum_to_matmul
from amct_tensorflow.model.preparation.fold_constants import fold_constants
from amct_tensorflow.model.preparation.grouped_conv2d import rewrite_grouped_conv2d
from amct_tensorflow.model.preparation.inline_functions import inline_functions
from amct_tensorflow.model.preparation.merge_clips import merge_clips
from amct_tensorflow.model.preparation.pad_before_depthwise import pad_before_depthwise
from amct_tensorflow.model.preparation.prepared import Origins, PreparedGraph
from amct_tensorflow.model.preparation.retired_ops import replace_retired_ops
from amct_tensorflow.model.preparation.skip_identities import skip_identities
from amct_tensorflow.model.preparation.transpose_operands import transpose_operands
from amct_tensorflow.model.preparation.unfuse import unfuse
from amct_tensorflow.ops import OP_TYPES


def transpose_weights(graph: PreparedGraph) -> PreparedGraph:
    """Transposes constant weights, so that no op has to.

        MatMul(x, w, transpose_b)      becomes      MatMul(x, transposed w)

    Likewise a BatchMatMul with ``adj_y``: only weights [channels in, channels out] can be quantized (spec section 10).
    """
    editor = graph.editor()
    origins: Origins = {}
    for node in graph.view.graph_def.node:
        flag = OP_TYPES[node.op].transposed_by if node.op in OP_TYPES else None
        if flag is None or not attribute(node, flag).b or node.name in graph.view.loop_nodes:
            continue
        weights = layer_weights(graph.shaped, node)  # TensorFlow has seen that the node has its inputs
        if weights is None or np.iscomplexobj(weights):  # which adj_y would conjugate, too
            continue
        const = make_const(editor.unique_name(f"{node.name}/transposed_weights"), np.ascontiguousarray(weights.T))
        straight = NodeDef()
        straight.CopyFrom(node)
        straight.attr[flag].b = False
        straight.input[1] = editor.add(const, like=node.name)
        editor.replace_node(straight)
        origins[const.name] = graph.original_names(node.name)
    return graph.edited(editor, origins) if origins else graph


# One rewrite can make room for another, so that they are repeated until nothing changes any more.
_REWRITES: tuple[Callable[[PreparedGraph], PreparedGraph], ...] = (
    drop_ordering,
    decide_flags,
    inline_functions,
    unfuse,
    fold_constants,
    decide_branches,
    skip_identities,
    cancel_reshapes,
    affine_before_concat,
    # These ask for shapes: they stand last, when little is left to change, so that TensorFlow infers them once.
    replace_retired_ops,
    merge_clips,
    transpose_weights,
    transpose_operands,
    einsum_to_matmul,
    einsum_to_batch_matmul,
    bias_before_split,
    rewrite_grouped_conv2d,
    pad_before_depthwise,
)


def prepare(view: GraphView, outputs: Sequence[str], source: str | Path) -> PreparedGraph:
    """Prepares a graph.

    Args:
        view: a float graph in inference form; it is not changed.
        outputs: nodes that are asked for, and keep their names; so do all that nothing reads.
        source: what messages call the model.

    Raises:
        ModelError: functions call each other without end, an output is in a branch that is never taken, or TensorFlow
            refuses the graph.
    """
    graph = PreparedGraph.of(view, outputs, source)
    before = None
    while before is not graph:
        before = graph
        for rewrite in _REWRITES:
            graph = rewrite(graph)
    for output in outputs:
        if output not in graph.view.nodes:
            raise ModelError(
                f"Output {output!r} belongs to a branch of {source} that is never taken. Name another one."
            )
    log_for("preparation").debug("The graph has %d nodes, prepared %d.", len(view.nodes), len(graph.view.nodes))
    return graph
