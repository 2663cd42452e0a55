"""Comparing what the integer kernels compute with the simulation, layer by layer, before they are trusted.

Every layer is given the bytes that it reads in the simulation, so that what one does wrong does not look like a fault
of the next. Its sums must be the very same integers, its values the same but for the rounding of floats, and the bytes
that it makes of them the same but for values that lie between two of them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from amct_tensorflow.calibration.replay import Batch
from amct_tensorflow.execution import integer_nodes
from amct_tensorflow.execution.integer_layer import IntegerLayer
from amct_tensorflow.execution.reading import Reading, find_reading
from amct_tensorflow.execution.scope import Scope
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.session_options import session_options
from amct_tensorflow.graph.view import GraphView

# Values may differ by so much of the greatest one: some roundings of a float32.
_ROUNDING = 2.0**-20
# So many of the bytes may differ, by one: those whose values lie so close to the middle that rounding decides.
_SHARE_OF_BYTES = 1e-3


@dataclass(frozen=True)
class LayerCheck:
    """How the integer kernels and the simulation differ in a layer.

    Attributes:
        wrong_sums: number of sums that differ.
        value_error: the greatest difference of its values, as a share of the greatest value.
        changed_bytes: the share of bytes that differ, when its values are quantized to eight bits.
        byte_error: how far they differ at most.
    """

    wrong_sums: int
    value_error: float
    changed_bytes: float
    byte_error: int

    @property
    def fault(self) -> str | None:
        """What is too much, None if nothing is."""
        if self.wrong_sums:
            return f"{self.wrong_sums} of its sums differ"
        if not self.value_error <= _ROUNDING:
            return f"its values differ by {self.value_error:.2g} of the greatest"
        if self.byte_error > 1 or self.changed_bytes > _SHARE_OF_BYTES:
            return f"{self.changed_bytes:.2g} of its bytes differ, by up to {self.byte_error}"
        return None


def check_layers(
    view: GraphView, layers: Mapping[str, IntegerLayer], outputs: Collection[str], batch: Batch
) -> dict[str, LayerCheck]:
    """Runs simulation and integer kernels side by side, in one pass.

    Args:
        view: the quantized model.
        layers: the layers that are to run in integers, by name.
        outputs: nodes whose own value is requested.
        batch: the tensors from which the model follows, by full name, with their values.

    Returns:
        Per layer, what was found.

    Raises:
        OpError, ValueError, KeyError: TensorFlow does not run one of these kernels, or the model from these tensors.
    """
    editor = GraphEditor(view)
    sides = {
        name: _add(editor, layer, find_reading(view, layer.dequantizer, outputs)) for name, layer in layers.items()
    }
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(editor.graph_def(), name="")
        differences = {name: _differences(graph, pairs) for name, pairs in sides.items()}
        feed = {graph.get_tensor_by_name(name): values for name, values in batch.items()}
        options = session_options(graph, run_often=False)
        with tf.compat.v1.Session(graph=graph, config=options) as session:
            found = session.run(differences, feed)
    return {name: _judged(*each) for name, each in found.items()}


class _Sides(NamedTuple):
    """Names of nodes that should yield the same: integer kernels and simulation, for sums, values and bytes."""

    sums: tuple[str, str]
    values: tuple[str, str]
    bytes: tuple[str, str] | None


def _add(editor: GraphEditor, layer: IntegerLayer, reading: Reading | None) -> _Sides:
    """Adds what computes a layer in integers from what its quantizer yields in the simulation."""
    scope = Scope(editor, layer.name)
    data = integer_nodes.bytes_of(Scope(editor, layer.quantizer), layer.quantizer, layer)
    made = None
    if reading is not None:
        result = integer_nodes.requantized(scope, layer, data, reading.scale, reading.highest)
        made = integer_nodes.integers_of(scope, result), reading.quantizers[0]
    sums = integer_nodes.plain_sums(scope, integer_nodes.sums(scope, layer, data))
    return _Sides((sums, layer.sums), (integer_nodes.values(scope, layer, data), layer.dequantizer), made)


def _differences(graph: tf.Graph, sides: _Sides) -> tuple[tf.Tensor, ...]:
    """Returns per pair the number of elements, that of different ones, the greatest difference and greatest value."""
    found = []
    for ours, theirs in (pair for pair in sides if pair is not None):
        one, other = (tf.cast(graph.get_tensor_by_name(f"{name}:0"), tf.float64) for name in (ours, theirs))
        distance = tf.abs(one - tf.reshape(other, tf.shape(one)))
        found.append(
            (tf.size(one), tf.math.count_nonzero(distance), tf.reduce_max(distance), tf.reduce_max(tf.abs(other)))
        )
    return tuple(tf.stack([tf.cast(number, tf.float64) for number in numbers]) for numbers in found)


def _judged(sums: np.ndarray, values: np.ndarray, made: np.ndarray | None = None) -> LayerCheck:
    size, changed, farthest = (1.0, 0.0, 0.0) if made is None else made[:3]
    return LayerCheck(
        wrong_sums=int(sums[1]),
        value_error=float(values[2] / values[3]) if values[3] else float(values[2]),
        changed_bytes=float(changed / size),
        byte_error=int(farthest),
    )
