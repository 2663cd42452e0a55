"""Products of matrices: MatMul, BatchMatMul and BatchMatMulV2, with weights [channels in, channels out].

A matrix per member of the batch (constants of more axes) is refused, as it is by the original toolkit. Where both
operands are computed, as in attention, each has a scale of its own, and none a zero point (spec section 10).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import attribute
from amct_tensorflow.ops.matrix_form import ONE_MATRIX
from amct_tensorflow.ops.quantizable import Quantizable, of_two_computed

_OF_ONE = ("transpose_a", "transpose_b")
_OF_BATCH = ("adj_x", "adj_y")


def _reference(_node: NodeDef, data: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    assert weights is not None
    return np.asarray(data @ weights)


def _refuses(*flags: str) -> Callable[[NodeDef], str | None]:
    """Returns a restriction: a node that has one of the flags set is not quantized, and why."""

    def restriction(node: NodeDef) -> str | None:
        return next((f"it has {flag}" for flag in flags if attribute(node, flag).b), None)

    return restriction


def products_of_matrices(node: NodeDef, weights: Sequence[int]) -> Fraction:
    """One per row of the second matrix, or per column if it is taken transposed."""
    is_transposed = any(attribute(node, flag).b for flag in (_OF_ONE[1], _OF_BATCH[1]))
    return Fraction(weights[-1 if is_transposed else -2])


_WITH_WEIGHTS = Quantizable(
    name="MatMul",
    reference=_reference,
    weight_input=1,
    weight_rank=2,
    input_axis=0,
    channel_axes=(1,),
    output_rank=2,
    transposed_by=_OF_ONE[1],
    restriction=_refuses(*_OF_ONE, "adjoint_a", "adjoint_b"),
    products=products_of_matrices,
    matrix_form=ONE_MATRIX,
)
MATMUL = replace(_WITH_WEIGHTS, of_computed=of_two_computed(_WITH_WEIGHTS, _OF_ONE))


def _batch_matmul(name: str) -> Quantizable:
    with_weights = replace(
        _WITH_WEIGHTS, name=name, output_rank=None, transposed_by=_OF_BATCH[1], restriction=_refuses(*_OF_BATCH)
    )
    return replace(with_weights, of_computed=of_two_computed(with_weights, _OF_BATCH))


BATCH_MATMUL = _batch_matmul("BatchMatMul")
BATCH_MATMUL_V2 = _batch_matmul("BatchMatMulV2")
