"""Pooling, over windows and over whole axes.

AvgPool has no weights; its input is quantized, and its output in steps of the input's scale. As long as no window
reaches over channels, factors per channel go through means and maxima.
"""

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, attribute
from amct_tensorflow.ops.channel_factors import Layout, through
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


def _pooled(_view: GraphView, node: NodeDef, layout: Layout, _backwards: bool) -> Layout | None:
    """A window must not reach over several channels, or leave some out."""
    windows = zip(attribute(node, "ksize").list.i, attribute(node, "strides").list.i, layout.shape, strict=False)
    return layout if all(length == 1 or (size, step) == (1, 1) for size, step, length in windows) else None


def _reduced(view: GraphView, node: NodeDef, layout: Layout, backwards: bool) -> Layout | None:
    """The axes that vanish must not be those of channels."""
    axes, shape = view.constant(node.input[1]), view.shape(node.input[0])
    if axes is None or shape is None:
        return None
    gone = tuple({int(axis) % len(shape) for axis in axes.reshape(-1)})
    keeps = attribute(node, "keep_dims").b
    if backwards:
        return layout if keeps else np.expand_dims(layout, gone)
    if any(layout.shape[axis] > 1 for axis in gone):
        return None
    return layout if keeps else layout.squeeze(gone)


POOLING = through(_pooled)
REDUCTION = through(_reduced)
