"""Op types that multiply and accumulate, and are never quantized: why not, and how many products they sum up."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.ops.batch_matmul import products_of_matrices
from amct_tensorflow.ops.depthwise_conv2d import DEPTHWISE_CONV2D
from amct_tensorflow.ops.matmul import MATMUL
from amct_tensorflow.ops.sliding import products_of_convolution, spatial


def unknown_products(_node: NodeDef, _weights: Sequence[int]) -> None:
    """The shape of one input does not tell."""


@dataclass(frozen=True)
class UnquantizedType:
    """An op type that carries multiply-accumulates, but has no quantized form here.

    Attributes:
        name: TensorFlow's name of it.
        reason: why it has none, as the rest of a sentence about a node.
        weight_input: which input carries the weights.
        weight_rank: how many of the weights' axes, counted from the last, are theirs and not the batch's.
        products: returns how many products each value of the output sums up on average, from the lengths of these
            axes; None if they do not tell.
    """

    name: str
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


_TRANSPOSED_VOLUME = "a transposed convolution of volumes has no quantized form"
_OPTIMIZED = "it was made by TensorFlow's graph optimizer; freeze the model without optimizing it"
_RECURRENT = "it is a whole recurrent layer, whose products cannot be told apart"
_RECURRENT_TYPES = (
    "BlockLSTM", "BlockLSTMV2", "LSTMBlockCell", "GRUBlockCell", "CudnnRNN", "CudnnRNNV2", "CudnnRNNV3",
)  # fmt: skip
_XLA = "it was exported for XLA; export the model as ops of TensorFlow's own"

UNQUANTIZED: dict[str, UnquantizedType] = {
    op_type.name: op_type
    for op_type in (
        UnquantizedType("Einsum", "its equation is no product of data with one matrix of weights"),
        UnquantizedType("BatchMatMulV3", "the types of its operands may differ", products=products_of_matrices),
        UnquantizedType("Conv", "this general form of convolutions has no quantized form"),
        UnquantizedType("SparseMatMul", "a product of sparse matrices has no quantized form", products=MATMUL.products),
        UnquantizedType("SparseTensorDenseMatMul", "its data is sparse", weight_input=3),
        UnquantizedType(
            "Conv2DBackpropInputV2",
            "this newer form of a transposed convolution has no quantized form",
            weight_rank=4,
            products=_products_of_transposed,
        ),
        *(
            UnquantizedType(name, _TRANSPOSED_VOLUME, weight_rank=5, products=_products_of_transposed)
            for name in ("Conv3DBackpropInput", "Conv3DBackpropInputV2")
        ),
        UnquantizedType(
            "DepthwiseConv2dNativeBackpropInput",
            "a transposed depthwise convolution has no quantized form",
            weight_rank=4,
            products=_products_of_transposed_depthwise,
        ),
        UnquantizedType("_FusedConv2D", _OPTIMIZED, weight_rank=4, products=products_of_convolution),
        UnquantizedType("_FusedConv3D", _OPTIMIZED, weight_rank=5, products=products_of_convolution),
        UnquantizedType("_FusedDepthwiseConv2dNative", _OPTIMIZED, weight_rank=4, products=DEPTHWISE_CONV2D.products),
        UnquantizedType("FusedPadConv2D", _OPTIMIZED, 2, weight_rank=4, products=products_of_convolution),
        UnquantizedType("FusedResizeAndPadConv2D", _OPTIMIZED, 3, weight_rank=4, products=products_of_convolution),
        UnquantizedType("_FusedMatMul", _OPTIMIZED, products=MATMUL.products),
        *(UnquantizedType(name, _RECURRENT) for name in _RECURRENT_TYPES),
        *(UnquantizedType(name, _XLA) for name in ("XlaCallModule", "XlaConvV2", "XlaDotV2")),
    )
}
