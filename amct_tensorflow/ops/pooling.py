"""Pooling, over windows and over whole axes.

AvgPool has no weights; its input is quantized, and its output in steps of the input's scale. As long as none goes over
channels, factors per channel go through what takes means or maxima.
"""

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


def _behind_windows(_view: GraphView, node: NodeDef, channels: Channels) -> Channels | None:
    """The window must not reach over several channels."""
    windows = attribute(node, "ksize").list.i
    return channels if len(windows) == channels.rank and windows[channels.axis] == 1 else None


def _behind_mean(view: GraphView, node: NodeDef, channels: Channels) -> Channels | None:
    """The mean must not be one over channels."""
    axes = view.constant(node.input[1])
    if axes is None or channels.rank is None:
        return None
    gone = {int(axis) - channels.rank if axis >= 0 else int(axis) for axis in axes.reshape(-1)}
    if channels.axis in gone:
        return None
    if attribute(node, "keep_dims").b:
        return channels
    return channels._replace(
        axis=channels.axis + sum(axis > channels.axis for axis in gone), rank=channels.rank - len(gone)
    )


POOLING = Homogeneous(_behind_windows)
MEAN = Homogeneous(_behind_mean)
