"""Op types that multiply and accumulate, but are never quantized, with the reason and the count of products."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.ops.convolution import products_of_convolution
from amct_tensorflow.ops.depthwise_conv2d import DEPTHWISE_CONV2D
from amct_tensorflow.ops.matrix_product import MATMUL, products_of_matrices
from amct_tensorflow.ops.sliding import spatial


def unknown_products(_node: NodeDef, _weights: Sequence[int]) -> None:
    """The shape of one input does not tell."""


@dataclass(frozen=True)
class Unquantized:
    """An op type that carries multiply-accumulates, but has no quantized form here.

    Attributes:
        reason: why it has none, as the rest of a sentence about a node.
        weight_input: which input carries the weights.
        weight_rank: how many of the weights' axes, counted from the last, are theirs and not the batch's.
        products: returns how many products each value of the output sums up on average, from the lengths of these
            axes; None if they do not tell.
    """

    reason: str
    weight_input: int = 1
    weight_rank: int = 2
    products: Callable[[NodeDef, Sequence[int]], Fraction | None] = unknown_products


def _products_of_transposed(node: NodeDef, weights: Sequence[int]) -> Fraction:
    """Filters are [*window, channels out, channels in]."""
    return Fraction(math.prod(weights[:-2]) * weights[-1], math.prod(spatial(node, "strides")))


def _products_of_transposed_depthwise(node: NodeDef, weights: Sequence[int]) -> Fraction:
    """Filters are [height, width, channels out, multiplier]."""
    return Fraction(math.prod(weights) // weights[2], math.prod(spatial(node, "strides")))


_TRANSPOSED_VOLUME = Unquantized(
    "a transposed convolution of volumes has no quantized form", weight_rank=5, products=_products_of_transposed
)
_OPTIMIZED = (
    "it fuses a layer with what its fused_ops do not tell, or in a layout that no layer alone has; freeze the model "
    "without optimizing it"
)
_RESIZED = "it resizes and convolves in one; freeze the model without optimizing it"
_RECURRENT = Unquantized("it is a whole recurrent layer, whose products cannot be told apart")
_XLA = Unquantized("it was exported for XLA; export the model as ops of TensorFlow's own")

UNQUANTIZED: dict[str, Unquantized] = {
    "Einsum": Unquantized("its equation is no product of matrices that can be quantized"),
    "BatchMatMulV3": Unquantized("the types of its operands may differ", products=products_of_matrices),
    "Conv": Unquantized("this general form of convolutions has no quantized form"),
    "SparseMatMul": Unquantized("a product of sparse matrices has no quantized form", products=MATMUL.products),
    "SparseTensorDenseMatMul": Unquantized("its data is sparse", weight_input=3),
    "Conv2DBackpropInputV2": Unquantized(
        "this newer form of a transposed convolution has no quantized form",
        weight_rank=4,
        products=_products_of_transposed,
    ),
    "DepthwiseConv2dNativeBackpropInput": Unquantized(
        "a transposed depthwise convolution has no quantized form",
        weight_rank=4,
        products=_products_of_transposed_depthwise,
    ),
    "Conv3DBackpropInput": _TRANSPOSED_VOLUME,
    "Conv3DBackpropInputV2": _TRANSPOSED_VOLUME,
    "_FusedConv2D": Unquantized(_OPTIMIZED, weight_rank=4, products=products_of_convolution),
    "_FusedConv3D": Unquantized(_OPTIMIZED, weight_rank=5, products=products_of_convolution),
    **{
        name: Unquantized(_OPTIMIZED, weight_rank=4, products=DEPTHWISE_CONV2D.products)
        for name in ("_FusedDepthwiseConv2dNative", "FusedDepthwiseConv2dNative")
    },
    "FusedPadConv2D": Unquantized(_OPTIMIZED, 2, weight_rank=4, products=products_of_convolution),
    "FusedResizeAndPadConv2D": Unquantized(_RESIZED, 3, weight_rank=4, products=products_of_convolution),
    "_FusedMatMul": Unquantized(_OPTIMIZED, products=MATMUL.products),
    "BlockLSTM": _RECURRENT,
    "BlockLSTMV2": _RECURRENT,
    "LSTMBlockCell": _RECURRENT,
    "GRUBlockCell": _RECURRENT,
    "CudnnRNN": _RECURRENT,
    "CudnnRNNV2": _RECURRENT,
    "CudnnRNNV3": _RECURRENT,
    "XlaCallModule": _XLA,
    "XlaConvV2": _XLA,
    "XlaDotV2": _XLA,
}
