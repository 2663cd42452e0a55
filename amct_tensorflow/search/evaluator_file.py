"""Loads the evaluator from a user's file, and judges models by a target loss."""

import importlib.util
import numbers
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import tensorflow as tf

from amct_tensorflow.errors import EvaluatorError, first_line
from amct_tensorflow.graph.view import full_tensor_name
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase


def load_evaluator(path: str | Path) -> object:
    """Runs a Python file, and returns its only object with a method ``calibration``.

    The file may import modules beside it, as a script may.

    Raises:
        EvaluatorError: there is no such file, it fails, or it makes no such object, or several.
    """
    path = Path(path)
    module = _run(path)
    found = {
        id(value): name
        for name, value in vars(module).items()
        if not isinstance(value, type) and callable(getattr(value, "calibration", None))
    }
    if len(found) > 1:
        raise EvaluatorError(f"{path} makes several evaluators: {', '.join(found.values())}. Leave one.")
    if not found:
        classes = [name for name, value in vars(module).items() if _is_evaluator_class(value, module.__name__)]
        example = f"evaluator = {classes[-1]}(...)" if classes else "evaluator = MyEvaluator(...)"
        raise EvaluatorError(
            f"{path} makes no evaluator. Make one, an object with a method calibration(graph, outputs), at its top "
            f"level: {example}"
        )
    (name,) = found.values()
    return getattr(module, name)


def derived_evaluator(evaluator: object, path: str | Path) -> AutoCalibrationEvaluatorBase:
    """Returns an evaluator that can evaluate and judge models, too.

    Raises:
        EvaluatorError: its class is not derived from ours.
    """
    if not isinstance(evaluator, AutoCalibrationEvaluatorBase):
        raise EvaluatorError(
            f"{path}: derive {type(evaluator).__name__} from "
            "amct_tensorflow.common.auto_calibration.AutoCalibrationEvaluatorBase; it has to evaluate, too."
        )
    return evaluator


class CalibratingEvaluator(AutoCalibrationEvaluatorBase):
    """Calls an evaluator of any class with names of tensors, as the original's command line does.

    An evaluator derived from our base class gets names of operators instead, as from every function of the package.
    """

    def __init__(self, evaluator: object) -> None:
        self._evaluator = evaluator

    def calibration(self, graph: tf.Graph, outputs: list[str]) -> None:
        """Runs the batches."""
        given: Sequence[str] = outputs
        if not isinstance(self._evaluator, AutoCalibrationEvaluatorBase):
            given = [full_tensor_name(name) for name in outputs]
        self._evaluator.calibration(graph, given)  # type: ignore[attr-defined] # load_evaluator has looked for it


def _run(path: Path) -> ModuleType:
    if not path.is_file():
        raise EvaluatorError(f"{path} is no file. Give the Python file that makes the evaluator.")
    name = f"amct_evaluator_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise EvaluatorError(f"{path} is no Python file; its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # classes look for their module there
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise EvaluatorError(f"{path}, line {error.lineno}: {error.msg}. Correct the file.") from error
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        raise EvaluatorError(f"{where}: {type(error).__name__}: {first_line(error)}. Correct the file.") from error
    return module


def _is_evaluator_class(value: object, module: str) -> bool:
    return isinstance(value, type) and value.__module__ == module and callable(getattr(value, "calibration", None))


@dataclass(frozen=True)
class Target:
    """A target for the loss; it is called like ``metric_eval`` of an evaluator.

    Attributes:
        loss: the largest loss allowed, in units of the metric.
        lower_is_better: whether the metric is an error, which grows as a model gets worse.
    """

    loss: float
    lower_is_better: bool = False

    def __call__(self, original_metric: Any, new_metric: Any) -> tuple[bool, float]:
        """Returns whether the loss is small enough, and the loss.

        Raises:
            EvaluatorError: the metric is no number.
        """
        for metric in (original_metric, new_metric):
            if isinstance(metric, bool) or not isinstance(metric, numbers.Real):
                raise EvaluatorError(
                    f"A target needs an evaluate() that returns a number, not {type(metric).__name__}. Return one, or "
                    "write metric_eval() and leave the target out."
                )
        loss = float(original_metric) - float(new_metric)
        loss = -loss if self.lower_is_better else loss
        return loss <= self.loss, loss
