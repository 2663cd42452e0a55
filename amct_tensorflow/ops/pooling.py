"""Pooling. AvgPool has no weights; its input is quantized, and its output in steps of the input's scale."""

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, attribute
from amct_tensorflow.ops.channels import Channels, Homogeneous
from amct_tensorflow.ops.quantizable import Quantizable
from amct_tensorflow.ops.sliding import from_channels_last, spatial, taps, to_channels_last


def _reference(node: NodeDef, data: np.ndarray, _weights: np.ndarray | None) -> np.ndarray:
    """Means over what lies inside the image, float64: they are no integers any more."""
    window = spatial(node, "ksize")
    nhwc = to_channels_last(node, data)
    total = np.asarray(sum(values for _, values in taps(node, nhwc, window)))
    inside = np.asarray(sum(values for _, values in taps(node, np.ones_like(nhwc), window)))
    return from_channels_last(node, total / inside)


AVG_POOL = Quantizable(name="AvgPool", reference=_reference, window=lambda node: list(spatial(node, "ksize")))


def _behind(_view: GraphView, node: NodeDef, channels: Channels) -> Channels | None:
    """The window must not reach over several channels."""
    windows = attribute(node, "ksize").list.i
    return channels if len(windows) == channels.rank and windows[channels.axis] == 1 else None


POOLING = Homogeneous(_behind)
