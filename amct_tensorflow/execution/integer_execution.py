"""Execution graphs for the candidates of a search; the simulation stays the truth.

Which layers run in integers is found out once, with all layers quantized: those that the kernels can compute, and whose
results agree with the simulation on a calibration batch.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import tensorflow as tf

from amct_tensorflow.calibration.batch_cutter import IMAGES_AT_A_TIME
from amct_tensorflow.calibration.replay import Batch
from amct_tensorflow.execution.check import LayerCheck, check_layers
from amct_tensorflow.execution.execution_graph import execution_graph
from amct_tensorflow.execution.integer_layer import IntegerLayer, find_integer_layers
from amct_tensorflow.execution.obstacle import obstacle_to_integers
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.log import log_for
from amct_tensorflow.quantized.builder import QuantizedGraph, quantize_graph
from amct_tensorflow.quantized.plan import QuantizationPlan


class IntegerExecution:
    """Makes execution graphs of the quantized models of one plan."""

    def __init__(self, plan: QuantizationPlan, batches: Sequence[Batch]) -> None:
        """Takes how all layers are quantized, and the calibration batches; nothing is checked yet."""
        self._plan = plan
        self._batches = batches

    def model_of(self, quantized: QuantizedGraph) -> bytes | None:
        """Returns the execution graph of a quantized model as bytes; None if nothing of it runs in integers."""
        if not self._trusted:
            return None
        view = GraphView(quantized.graph_def, quantized.shapes)
        found, _ = find_integer_layers(view)
        layers = {name: layer for name, layer in found.items() if name in self._trusted}
        if not layers:
            return None
        graph_def = execution_graph(view, layers, self._plan.outputs)
        return bytes(graph_def.SerializeToString(deterministic=True))

    @cached_property
    def _trusted(self) -> frozenset[str]:
        """The layers that run in integers."""
        obstacle = obstacle_to_integers()
        if obstacle is None and not self._batches:
            obstacle = "no calibration batch was kept, with which they could be checked"
        if obstacle is not None:
            log_for("search").info("Candidates are simulated: %s.", obstacle)
            return frozenset()
        quantized = quantize_graph(self._plan)
        view = GraphView(quantized.graph_def, quantized.shapes)
        layers, simulated = find_integer_layers(view)
        try:
            checks = self._check(view, layers) if layers else {}
        except (tf.errors.OpError, ValueError, KeyError) as error:
            log_for("search").info("Candidates are simulated: %s", " ".join(str(error).split())[:300])
            return frozenset()
        faults = {name: check.fault for name, check in checks.items()}
        simulated |= {name: f"integers and simulation differ: {fault}" for name, fault in faults.items() if fault}
        _log(checks, simulated)
        return frozenset(layers.keys() - simulated.keys())

    def _check(self, view: GraphView, layers: Mapping[str, IntegerLayer]) -> dict[str, LayerCheck]:
        """Checks layers on a few images, or on a batch as it is where it holds steps that belong together."""
        batch = self._batches[0]
        try:
            return check_layers(view, layers, self._plan.outputs, _some_images(batch))
        except tf.errors.OpError:
            return check_layers(view, layers, self._plan.outputs, batch)


def _some_images(batch: Batch) -> dict[str, np.ndarray]:
    """Returns the first images of a batch, if all of its tensors have as many."""
    lengths = {len(values) if values.ndim else 0 for values in batch.values()}
    few = slice(IMAGES_AT_A_TIME) if len(lengths) == 1 else slice(None)
    return {name: values[few] if values.ndim else values for name, values in batch.items()}


def _log(checks: Mapping[str, LayerCheck], simulated: Mapping[str, str]) -> None:
    """Says how many layers run in integers, and why the others do not."""
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
