"""Conv2D: filters [height, width, channels in, channels out]."""

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.op_types.op_type import OpType
from amct_tensorflow.graph.op_types.sliding import from_nhwc, pads, taps, to_nhwc


def _reference(node: NodeDef, data: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    assert weights is not None
    seen = taps(node, to_nhwc(node, data), weights.shape[:2])
    return from_nhwc(node, np.asarray(sum(values @ weights[position] for position, values in seen)))


CONV2D = OpType(
    name="Conv2D",
    reference=_reference,
    weight_input=1,
    weight_rank=4,
    input_axis=2,
    channel_axes=(3,),
    per_channel=True,
    pads=pads,
)
