"""Bringing a float graph into the one form that fusion and quantization know, whatever wrote it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.log import log_for
from amct_tensorflow.preparation.affine_before_concat import affine_before_concat
from amct_tensorflow.preparation.bias_before_split import bias_before_split
from amct_tensorflow.preparation.cancel_reshapes import cancel_reshapes
from amct_tensorflow.preparation.decide_branches import decide_branches, decide_flags
from amct_tensorflow.preparation.drop_ordering import drop_ordering
from amct_tensorflow.preparation.einsum_to_matmul import einsum_to_matmul
from amct_tensorflow.preparation.fold_constants import fold_constants
from amct_tensorflow.preparation.grouped_conv2d import rewrite_grouped_conv2d
from amct_tensorflow.preparation.inline_functions import inline_functions
from amct_tensorflow.preparation.merge_clips import merge_clips
from amct_tensorflow.preparation.prepared import PreparedGraph
from amct_tensorflow.preparation.retired_ops import replace_retired_ops
from amct_tensorflow.preparation.skip_identities import skip_identities
from amct_tensorflow.preparation.transposed_weights import transpose_weights

# One rewrite can make room for another, so that they are repeated until nothing changes any more.
_REWRITES: tuple[Callable[[PreparedGraph], PreparedGraph], ...] = (
    drop_ordering,
    decide_flags,
    inline_functions,
    fold_constants,
    decide_branches,
    skip_identities,
    cancel_reshapes,
    affine_before_concat,
    # These ask for shapes: they stand last, when little is left to change, so that TensorFlow infers them once.
    replace_retired_ops,
    merge_clips,
    transpose_weights,
    einsum_to_matmul,
    bias_before_split,
    rewrite_grouped_conv2d,
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
