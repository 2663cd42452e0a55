"""Observes tensors of the quantized model on calibration data."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from amct_tensorflow.errors import CalibrationError
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors, range_factors
from amct_tensorflow.quantize.calibration.taps import attach_tap
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator


class Range:
    """The least and the greatest value of a tensor so far."""

    def __init__(self) -> None:
        self._lowest, self._highest = math.inf, -math.inf

    def observe(self, value: np.ndarray) -> None:
        """Takes values in."""
        if value.size:  # both propagate NaN
            self._lowest = float(np.minimum(self._lowest, value.min()))
            self._highest = float(np.maximum(self._highest, value.max()))

    def grid(self, name: str) -> ActivationFactors:
        """Returns factors that cover all values.

        Raises:
            CalibrationError: there was none, or one was not finite; ``name`` says of what.
        """
        if (self._lowest, self._highest) == (math.inf, -math.inf):
            raise CalibrationError(
                f"No value of {name!r} was seen in calibration. Let calibration() of the evaluator run all outputs "
                "that it is given."
            )
        if not (math.isfinite(self._lowest) and math.isfinite(self._highest)):
            raise CalibrationError(f"{name!r} yields values that are not finite. Check the data.")
        return range_factors(self._lowest, self._highest, asymmetric=True)


@dataclass
class _FirstImages:
    """The first images fed to a placeholder."""

    values: list[np.ndarray] = field(default_factory=list)

    def observe(self, value: np.ndarray) -> None:
        if not self.values:
            self.values.append(np.array(value))


def observe(
    view: GraphView,
    outputs: Sequence[str],
    observers: Mapping[str, Callable[[np.ndarray], None]],
    evaluator: CheckedEvaluator,
) -> dict[str, np.ndarray]:
    """Runs the calibration of an evaluator on the quantized model.

    Args:
        view: the quantized model.
        outputs: its output operators.
        observers: per node with a reader, a function to call with its output 0, which it must not keep.
        evaluator: its ``calibration`` runs the batches.

    Returns:
        Per placeholder, the first images fed.

    Raises:
        CalibrationError: the evaluator ran no batch.
    """
    graph = import_graph(view.graph_def, "the quantized model")
    first = {node.name: _FirstImages() for node in view.nodes.values() if node.op == "Placeholder"}
    for name, observer in (*((name, each.observe) for name, each in first.items()), *observers.items()):
        readers = {edge.node.name for edge in view.consumers(name) if not view.is_control(edge)}
        attach_tap(graph, sorted(readers), f"{name}:0", observer)
    evaluator.calibrate(graph, outputs)
    missing = [name for name, each in first.items() if not each.values]
    if missing:
        raise CalibrationError(
            f"calibration() of {evaluator.name} ran no batch through {missing[0]!r}. Let it run the outputs "
            "that it is given."
        )
    return {name: each.values[0] for name, each in first.items()}
