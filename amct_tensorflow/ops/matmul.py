"""MatMul: weights [channels in, channels out], or a second operand that is computed."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import attribute
from amct_tensorflow.ops.matrix_form import ONE_MATRIX
from amct_tensorflow.ops.quantizable import Quantizable, of_two_computed

_FLAGS = ("transpose_a", "transpose_b", "adjoint_a", "adjoint_b")


def _reference(_node: NodeDef, data: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    assert weights is not None
    return np.asarray(data @ weights)


def _restriction(node: NodeDef) -> str | None:
    for flag in _FLAGS:
        if attribute(node, flag).b:
            return f"it has {flag}"
    return None


def _products(node: NodeDef, weights: Sequence[int]) -> Fraction:
    return Fraction(weights[1 if attribute(node, "transpose_b").b else 0])


_OF_WEIGHTS = Quantizable(
    name="MatMul",
    reference=_reference,
    weight_input=1,
    weight_rank=2,
    input_axis=0,
    channel_axes=(1,),
    output_rank=2,
    transposed_by="transpose_b",
    restriction=_restriction,
    products=_products,
    matrix_form=ONE_MATRIX,
)

MATMUL = replace(_OF_WEIGHTS, of_computed=of_two_computed(_OF_WEIGHTS, ("transpose_a", "transpose_b")))
