"""BatchMatMul and BatchMatMulV2: one matrix of weights [channels in, channels out] for the whole batch.

A matrix per member of the batch (constants of more axes) is refused, as it is by the original toolkit. Where both
operands are computed, as in attention, each has a scale of its own, and none a zero point (spec section 10).
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import attribute
from amct_tensorflow.ops.matrix_form import ONE_MATRIX
from amct_tensorflow.ops.quantizable import Quantizable, of_two_computed

_FLAGS = ("adj_x", "adj_y")


def _reference(_node: NodeDef, data: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    assert weights is not None
    return np.asarray(data @ weights)


def _restriction(node: NodeDef) -> str | None:
    for flag in _FLAGS:
        if attribute(node, flag).b:
            return f"it has {flag}"
    return None


def products_of_matrices(node: NodeDef, weights: Sequence[int]) -> Fraction:
    """One per row of the second matrix, or per column if it is taken transposed."""
    return Fraction(weights[-1 if attribute(node, "adj_y").b else -2])


_OF_WEIGHTS = Quantizable(
    name="BatchMatMul",
    reference=_reference,
    weight_input=1,
    weight_rank=2,
    input_axis=0,
    channel_axes=(1,),
    output_rank=None,
    transposed_by="adj_y",
    restriction=_restriction,
    products=products_of_matrices,
    matrix_form=ONE_MATRIX,
)

BATCH_MATMUL = replace(_OF_WEIGHTS, of_computed=of_two_computed(_OF_WEIGHTS, _FLAGS))

_V2_OF_WEIGHTS = replace(_OF_WEIGHTS, name="BatchMatMulV2")
BATCH_MATMUL_V2 = replace(_V2_OF_WEIGHTS, of_computed=of_two_computed(_V2_OF_WEIGHTS, _FLAGS))
