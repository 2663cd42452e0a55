"""Conv2DBackpropInput, the transposed convolution: filters [height, width, channels out, channels in]."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import attribute
from amct_tensorflow.ops.channels import data_format
from amct_tensorflow.ops.matrix_form import MatrixForm, Sample, spread
from amct_tensorflow.ops.quantizable import Quantizable, always_pads
from amct_tensorflow.ops.sliding import from_channels_last, spatial, to_channels_last


def _reference(node: NodeDef, data: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Adds up a window of the output per position of the input, then cuts off what SAME padding leaves out.

    The output is taken to be as large as the strides make it: ``stride * length`` with SAME padding.
    """
    assert weights is not None
    nhwc = to_channels_last(node, data)
    strides = spatial(node, "strides")
    lengths = [(nhwc.shape[axis + 1] - 1) * strides[axis] + weights.shape[axis] for axis in (0, 1)]
    output = np.zeros((len(nhwc), *lengths, weights.shape[2]), np.int64)
    for row in range(weights.shape[0]):
        for column in range(weights.shape[1]):
            ends = (
                row + (nhwc.shape[1] - 1) * strides[0] + 1,
                column + (nhwc.shape[2] - 1) * strides[1] + 1,
            )
            output[:, row : ends[0] : strides[0], column : ends[1] : strides[1]] += nhwc @ weights[row, column].T
    if attribute(node, "padding").s == b"SAME":
        wanted = [nhwc.shape[axis + 1] * strides[axis] for axis in (0, 1)]
        output = np.pad(output, [(0, 0), *((0, max(0, w - n)) for w, n in zip(wanted, lengths, strict=True)), (0, 0)])
        starts = [max(weights.shape[axis] - strides[axis], 0) // 2 for axis in (0, 1)]
        output = output[:, starts[0] : starts[0] + wanted[0], starts[1] : starts[1] + wanted[1]]
    return from_channels_last(node, output)


def _restriction(node: NodeDef) -> str | None:
    return "it is dilated" if max(spatial(node, "dilations")) > 1 else None


def _products(node: NodeDef, weights: Sequence[int]) -> Fraction:
    """Every position of the *input* takes each weight once, and makes so many positions of the output."""
    return Fraction(weights[0] * weights[1] * weights[3], math.prod(spatial(node, "strides")))


def _rows(node: NodeDef, data: np.ndarray, _shape: tuple[int, ...], sample: Sample) -> np.ndarray:
    """Every position of the input is a row, and each weight of its channel an output of its own.

    Where windows overlap, an output adds up several of these products; that is left out of account.
    """
    nhwc = to_channels_last(node, data)
    return np.asarray(nhwc[spread(nhwc.shape[:3], sample)][np.newaxis])


def _matrices(weights: np.ndarray, _groups: int) -> np.ndarray:
    return weights.reshape(-1, weights.shape[3]).T[np.newaxis]


def _weights(matrices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(matrices[0].T.reshape(shape))


def _per_channel(node: NodeDef, products: np.ndarray, shape: tuple[int, ...], data: tuple[int, ...]) -> np.ndarray:
    """Every place of the window adds a product to some of the positions of the output, fewer at its margins."""
    rows, columns = (
        _shares(node, axis, length, shape[axis]) for axis, length in enumerate(_height_and_width(node, data))
    )
    return np.asarray(np.einsum("hwc,h,w->c", products.reshape(shape[:3]), rows, columns))


def _height_and_width(node: NodeDef, data: tuple[int, ...]) -> tuple[int, ...]:
    return data[1:3] if data_format(node) == "NHWC" else data[2:4]


def _shares(node: NodeDef, axis: int, length: int, reach: int) -> np.ndarray:
    """Returns to which share of an output's positions along an axis each place of the window adds something, [reach].

    The output is taken to be as large as for ``_reference``.
    """
    stride, is_same = spatial(node, "strides")[axis], attribute(node, "padding").s == b"SAME"
    first = max(reach - stride, 0) // 2 if is_same else 0
    wanted = stride * length if is_same else (length - 1) * stride + reach
    positions = stride * np.arange(length)[:, np.newaxis] + np.arange(reach) - first
    return np.asarray(np.count_nonzero((positions >= 0) & (positions < wanted), axis=0) / wanted)


CONV2D_TRANSPOSE = Quantizable(
    name="Conv2DBackpropInput",
    reference=_reference,
    data_input=2,
    weight_input=1,
    weight_rank=4,
    input_axis=3,
    channel_axes=(2,),
    is_told_its_output_shape=True,
    restriction=_restriction,
    pads=always_pads,
    products=_products,
    matrix_form=MatrixForm(_rows, _matrices, _weights, _per_channel),
)
