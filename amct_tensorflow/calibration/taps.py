"""What calibration inserts into the caller's live graph.

Every quantized layer gets a tap on its input, run by a control edge to the layer whenever the layer runs; so the
tensors that the caller fetched before, and the order in which it runs them, need not change. A tap reduces the
activations inside TensorFlow to minimum, maximum and a histogram; the activations of a large layer never reach Python.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import tensorflow as tf

from amct_tensorflow.calibration.observation import BINS, EXACT_LIMIT

SCOPE = "amct_calibration"


class TapListener(Protocol):
    """Receives what a tap saw; called from inside the caller's session."""

    def check(self, layer: str, lowest: float, highest: float, total: float) -> np.ndarray:
        """Checks that a batch is finite; returns the histogram's range, float32 [2]."""

    def observe(self, layer: str, lowest: float, highest: float, counts: np.ndarray, values: np.ndarray) -> None:
        """Takes the reduced batch."""


def attach_tap(graph: tf.Graph, layer: str, tensor: str, listener: TapListener) -> None:
    """Taps the input of a layer.

    Args:
        graph: the caller's graph; it is changed.
        layer: name of the layer's node.
        tensor: full name of the tensor that it reads.
        listener: receives the statistics of every batch.
    """
    operation = graph.get_operation_by_name(layer)
    values = graph.get_tensor_by_name(tensor)

    def check(lowest: np.ndarray, highest: np.ndarray, total: np.ndarray) -> np.ndarray:
        return listener.check(layer, float(lowest), float(highest), float(total))

    def observe(lowest: np.ndarray, highest: np.ndarray, counts: np.ndarray, few: np.ndarray) -> np.int32:
        listener.observe(layer, float(lowest), float(highest), counts, few)
        return np.int32(0)

    with graph.as_default(), tf.name_scope(f"{SCOPE}/"), tf.device("/CPU:0"), graph.control_dependencies(None):
        flat = tf.reshape(values, [-1])
        lowest, highest = tf.reduce_min(flat), tf.reduce_max(flat)
        # NaN and Inf survive a sum, whereas minimum and maximum may skip NaN; one pass finds either.
        total = tf.reduce_sum(flat)
        bounds = tf.numpy_function(check, [lowest, highest, total], tf.float32)
        counts = tf.histogram_fixed_width(flat, tf.ensure_shape(bounds, [2]), nbins=BINS)
        few = flat[: tf.where(tf.size(flat) <= EXACT_LIMIT, tf.size(flat), 0)]
        seen = tf.numpy_function(observe, [lowest, highest, counts, few], tf.int32)
    operation._add_control_input(seen.op)  # noqa: SLF001 - TensorFlow has no public way to edit a live graph


def attach_capture(graph: tf.Graph, reader: str, tensor: str, keep: Callable[[str, np.ndarray], None]) -> None:
    """Hands every value of a tensor to ``keep``, whenever the node ``reader`` runs."""

    def capture(value: np.ndarray) -> np.int32:
        keep(tensor, value)
        return np.int32(0)

    with graph.as_default(), tf.name_scope(f"{SCOPE}/"), tf.device("/CPU:0"), graph.control_dependencies(None):
        kept = tf.numpy_function(capture, [graph.get_tensor_by_name(tensor)], tf.int32)
    graph.get_operation_by_name(reader)._add_control_input(kept.op)  # noqa: SLF001
