"""Conv2D, grouped or not, and Conv3D: filters [*window, channels in per group, channels out].

Two restrictions of Conv3D are those of the original toolkit (spec section 10): no dilation along the depth, and no zero
point for the activations. The second is taken from its sibling for PyTorch: a zero point that the compiler does not
know of would be right in simulation, and wrong on the device. In NCDHW the channel axis of AscendDequant is not
defined.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.ops.channels import data_format
from amct_tensorflow.ops.matrix_form import MatrixForm, Sample
from amct_tensorflow.ops.quantizable import Quantizable
from amct_tensorflow.ops.sliding import from_channels_last, margins, pads, spatial, taps, to_channels_last, window_rows


def _reference(node: NodeDef, data: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Convolves with filters ``[*window, channels in, channels out]``.

    Filters with fewer channels than the data make a grouped convolution: the first filters see the first channels, and
    so on (AlexNet, Krizhevsky et al. 2012; TensorFlow has no attribute for it).
    """
    assert weights is not None
    *window, channels, filters = weights.shape
    channels_last = to_channels_last(node, data)
    groups = channels_last.shape[-1] // channels
    grouped = weights.reshape(*window, channels, groups, filters // groups)
    total = 0
    for position, seen in taps(node, channels_last, window):
        per_group = seen.reshape(*seen.shape[:-1], groups, channels)
        total = total + np.einsum("...gc,cgf->...gf", per_group, grouped[position])
    sums = np.asarray(total)
    return from_channels_last(node, sums.reshape(*sums.shape[:-2], filters))


def products_of_convolution(_node: NodeDef, weights: Sequence[int]) -> Fraction:
    """One per weight of a filter ``[*window, channels in, channels out]``."""
    return Fraction(math.prod(weights[:-1]))


def _rows(node: NodeDef, data: np.ndarray, shape: tuple[int, ...], sample: Sample) -> np.ndarray:
    """The inputs of a group: the window's places, and at each the channels of the group."""
    *window, channels, _ = shape
    seen = window_rows(node, data, window, sample)
    grouped = seen.reshape(*seen.shape[:2], -1, channels)
    return grouped.transpose(2, 1, 0, 3).reshape(-1, seen.shape[1], math.prod(shape[:-1]))


def _matrices(weights: np.ndarray, groups: int) -> np.ndarray:
    return weights.reshape(-1, groups, weights.shape[-1] // groups).transpose(1, 0, 2)


def _weights(matrices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return matrices.transpose(1, 0, 2).reshape(shape)


_FORM = MatrixForm(_rows, _matrices, _weights)


def _is_fully_connected(node: NodeDef, weights: Sequence[int], data: Sequence[int | None]) -> bool:
    """A filter that covers the feature map, nothing padded, is one, if it sees all channels: it has one position."""
    channels_last = data_format(node) == "NHWC"
    lengths, channels = (data[1:3], data[3]) if channels_last else (data[2:4], data[1])
    covers = tuple(lengths) == tuple(weights[:2]) and max(spatial(node, "dilations")) == 1
    is_padded = margins(node, data, weights) != ((0, 0), (0, 0))
    return covers and not is_padded and channels in (None, weights[2])


def _restriction_of_volumes(node: NodeDef) -> str | None:
    if spatial(node, "dilations")[0] > 1:
        return "it is dilated along its depth"
    if data_format(node) != "NHWC":
        return "its data format is NCDHW, for which AscendDequant knows no channel axis"
    return None


CONV2D = Quantizable(
    name="Conv2D",
    reference=_reference,
    weight_input=1,
    weight_rank=4,
    input_axis=2,
    channel_axes=(3,),
    pads=pads,
    products=products_of_convolution,
    is_fully_connected=_is_fully_connected,
    matrix_form=_FORM,
)

CONV3D = Quantizable(
    name="Conv3D",
    reference=_reference,
    weight_input=1,
    weight_rank=5,
    input_axis=3,
    channel_axes=(4,),
    output_rank=5,
    zero_point=False,
    restriction=_restriction_of_volumes,
    pads=pads,
    products=products_of_convolution,
    matrix_form=_FORM,
)
