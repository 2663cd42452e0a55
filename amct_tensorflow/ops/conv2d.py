"""Conv2D, grouped or not: filters [height, width, channels in per group, channels out]."""

from collections.abc import Sequence

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.ops.op_type import OpType, data_format
from amct_tensorflow.ops.sliding import CONVOLUTION_FORM, convolve, margins, pads, products_of_convolution, spatial


def _is_fully_connected(node: NodeDef, weights: Sequence[int], data: Sequence[int | None]) -> bool:
    """A filter that covers the feature map, nothing padded, is one, if it sees all channels: it has one position."""
    channels_last = data_format(node) == "NHWC"
    lengths, channels = (data[1:3], data[3]) if channels_last else (data[2:4], data[1])
    covers = tuple(lengths) == tuple(weights[:2]) and max(spatial(node, "dilations")) == 1
    is_padded = margins(node, data, weights) != ((0, 0), (0, 0))
    return covers and not is_padded and channels in (None, weights[2])


CONV2D = OpType(
    name="Conv2D",
    reference=convolve,
    weight_input=1,
    weight_rank=4,
    input_axis=2,
    channel_axes=(3,),
    pads=pads,
    products=products_of_convolution,
    is_fully_connected=_is_fully_connected,
    matrix_form=CONVOLUTION_FORM,
)
