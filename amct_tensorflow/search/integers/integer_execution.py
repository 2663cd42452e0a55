"""Makes execution graphs for candidates, with integer kernels for the layers in which they match the simulation.

In the check, every layer reads the bytes of the simulation, so that its errors do not show in the next layer. Its sums
must be the same integers, its values equal up to the rounding of floats, and its bytes equal but for values in the
middle between two of them.

The check is made once, with all layers quantized, on a calibration batch. The layers that the kernels can compute, and
that pass, run in integers.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from amct_tensorflow.graph.batch_splitter import IMAGES_AT_A_TIME, images_of, parts_of
from amct_tensorflow.graph.graph_runner import Batch, GraphRunner
from amct_tensorflow.graph.names import QuantizedName
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.io.stages import stage
from amct_tensorflow.log import log_for
from amct_tensorflow.quantize.quantized.builder import QuantizedGraph, quantize_graph
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.search.integers import integer_nodes
from amct_tensorflow.search.integers.availability import why_no_integer_kernels
from amct_tensorflow.search.integers.execution_graph import execution_graph
from amct_tensorflow.search.integers.integer_nodes import Scope
from amct_tensorflow.search.integers.kernel_layer import KernelLayer, Requantization, find_kernel_layers, requantization

# Values may differ by so much of the greatest one: some roundings of a float32.
_ROUNDING = 2.0**-20
# So many of the bytes may differ, by one: those whose values lie so close to the middle that rounding decides.
_SHARE_OF_BYTES = 1e-3
# So many images run at a time: both sides of all layers are in memory at once, which TensorFlow does not give back.
_IMAGES_PER_RUN = 4


@dataclass(frozen=True)
class LayerCheck:
    """The differences between integer kernels and simulation in a layer.

    Attributes:
        wrong_sums: number of sums that differ.
        value_error: the greatest difference of its values, as a share of the greatest value.
        changed_bytes: the share of bytes that differ, when its values are quantized to eight bits.
        byte_error: their greatest difference.
    """

    wrong_sums: int
    value_error: float
    changed_bytes: float
    byte_error: int

    @property
    def fault(self) -> str | None:
        """The difference that is too large, in words; None if none is."""
        if self.wrong_sums:
            return f"{self.wrong_sums} of its sums differ"
        if not self.value_error <= _ROUNDING:
            return f"its values differ by {self.value_error:.2g} of the greatest"
        if self.byte_error > 1 or self.changed_bytes > _SHARE_OF_BYTES:
            return f"{self.changed_bytes:.2g} of its bytes differ, by up to {self.byte_error}"
        return None


def check_layers(
    view: GraphView, layers: Mapping[QuantizedName, KernelLayer], outputs: Collection[str], parts: Sequence[Batch]
) -> dict[QuantizedName, LayerCheck]:
    """Runs simulation and integer kernels side by side, in one pass over the parts of a batch.

    Args:
        view: the quantized model.
        layers: the layers that are to run in integers, by name.
        outputs: nodes whose own value is requested.
        parts: the tensors from which the model follows, by full name, with their values.

    Returns:
        Per layer, what was found.

    Raises:
        OpError, ValueError, KeyError: TensorFlow does not run one of these kernels, or the model from these tensors.
    """
    editor = GraphEditor(view)
    sides = {
        name: _add(editor, layer, requantization(view, layer.quantized, outputs)) for name, layer in layers.items()
    }
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(editor.graph_def(), name="")
        differences = {name: _differences(graph, pairs) for name, pairs in sides.items()}
        feeds = [{graph.get_tensor_by_name(name): values for name, values in part.items()} for part in parts]
        with GraphRunner(graph, in_calling_thread=True) as runner:  # one layer after the other takes less memory
            found = [runner.run(differences, feed) for feed in feeds]
    return {name: _judged(*map(_together, zip(*(each[name] for each in found), strict=True))) for name in layers}


class _Sides(NamedTuple):
    """Names of nodes that should yield the same: integer kernels and simulation, for sums, values and bytes."""

    sums: tuple[str, str]
    values: tuple[str, str]
    bytes: tuple[str, str] | None


def _add(editor: GraphEditor, layer: KernelLayer, to: Requantization | None) -> _Sides:
    """Adds nodes that compute a layer in integers from its quantizer's output in the simulation."""
    scope = Scope(editor, layer.name)
    quantized = layer.quantized
    data = integer_nodes.bytes_of(Scope(editor, quantized.quantizer.name), quantized.quantizer.name, layer)
    made = None
    if to is not None:
        result = integer_nodes.requantized(scope, layer, data, to)
        made = integer_nodes.integers_of(scope, result), to.quantizers[0]
    sums = integer_nodes.plain_sums(scope, integer_nodes.sums(scope, layer, data))
    return _Sides((sums, quantized.sums), (integer_nodes.values(scope, layer, data), quantized.dequantizer), made)


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


def _together(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Returns what ``_differences`` has for all parts, from what it has for each."""
    each = np.stack(parts)
    return np.concatenate([each[:, :2].sum(axis=0), each[:, 2:].max(axis=0)])


def _judged(sums: np.ndarray, values: np.ndarray, made: np.ndarray | None = None) -> LayerCheck:
    size, changed, farthest = (1.0, 0.0, 0.0) if made is None else made[:3]
    return LayerCheck(
        wrong_sums=int(sums[1]),
        value_error=float(values[2] / values[3]) if values[3] else float(values[2]),
        changed_bytes=float(changed / size),
        byte_error=int(farthest),
    )


class IntegerExecution:
    """Makes execution graphs of the quantized models of one plan."""

    def __init__(self, plan: QuantizationPlan, batches: Sequence[Batch]) -> None:
        """Takes the plan of all layers, and the calibration batches; checks nothing yet."""
        self._plan = plan
        self._batches = batches

    def model_of(self, quantized: QuantizedGraph) -> bytes | None:
        """Returns the execution graph of a quantized model as bytes; None if none of its layers runs in integers."""
        if not self._trusted:
            return None
        view = GraphView(quantized.graph_def, quantized.shapes)
        found, _ = find_kernel_layers(view)
        layers = {name: layer for name, layer in found.items() if name in self._trusted}
        if not layers:
            return None
        graph_def = execution_graph(view, layers, self._plan.outputs)
        return bytes(graph_def.SerializeToString(deterministic=True))

    @cached_property
    @stage("checking the integer kernels")
    def _trusted(self) -> frozenset[QuantizedName]:
        """The layers that run in integers."""
        reason = why_no_integer_kernels()
        if reason is None and not self._batches:
            reason = "no calibration batch was kept, with which they could be checked"
        if reason is not None:
            log_for("search").info("Candidates are simulated: %s.", reason)
            return frozenset()
        quantized = quantize_graph(self._plan)
        view = GraphView(quantized.graph_def, quantized.shapes)
        layers, simulated = find_kernel_layers(view)
        try:
            checks = self._check(view, layers) if layers else {}
        except (tf.errors.OpError, ValueError, KeyError) as error:
            log_for("search").info("Candidates are simulated: %s", " ".join(str(error).split())[:300])
            return frozenset()
        faults = {name: check.fault for name, check in checks.items()}
        simulated |= {name: f"integers and simulation differ: {fault}" for name, fault in faults.items() if fault}
        _log(checks, simulated)
        return frozenset(layers.keys() - simulated.keys())

    def _check(self, view: GraphView, layers: Mapping[QuantizedName, KernelLayer]) -> dict[QuantizedName, LayerCheck]:
        """Checks layers on a few images, or on a whole batch if its entries belong together."""
        batch = self._batches[0]
        try:
            return check_layers(view, layers, self._plan.outputs, _parts(batch))
        except (tf.errors.OpError, ValueError):  # the graph, or the shape of what is fed, is of so many images
            return check_layers(view, layers, self._plan.outputs, [batch])


def _parts(batch: Batch) -> list[Batch]:
    """Returns the first images of a batch in parts, or the whole batch if its entries belong together."""
    images = images_of(batch)
    if images is None:
        return [batch]
    return parts_of(batch, min(images, IMAGES_AT_A_TIME), _IMAGES_PER_RUN)


def _log(checks: Mapping[QuantizedName, LayerCheck], simulated: Mapping[QuantizedName, str]) -> None:
    """Logs how many layers run in integers, and why the others do not."""
    trusted = [check for name, check in checks.items() if name not in simulated]
    changed = max((check.changed_bytes for check in trusted), default=0.0)
    log_for("search").info(
        "Candidates run in integers, but for %d of %d layers. Beside the simulation, no sum differs, and at most %.2g "
        "%% of the bytes of a layer, by 1.",
        len(simulated), len(trusted) + len(simulated), 100 * changed,
    )  # fmt: skip
    causes = Counter(reason.partition(": ")[0] for reason in simulated.values())
    for cause, count in causes.most_common():
        log_for("search").info("Simulated all the same: %d, as %s.", count, cause)
    for name, reason in simulated.items():
        log_for("search").debug("Layer %s is simulated: %s.", name, reason)
