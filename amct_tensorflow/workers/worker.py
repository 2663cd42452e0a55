"""What happens in a worker, whatever started it."""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from amct_tensorflow.console.progress_bar import redirected_progress
from amct_tensorflow.errors import AmctError, EvaluatorError, WorkerError, essence, first_line
from amct_tensorflow.log import redirect_log
from amct_tensorflow.workers.candidate import MODELS_KEPT, Candidate, Task
from amct_tensorflow.workers.events import Event, Failed, Finished, Logged, Progressed, Ready
from amct_tensorflow.workers.greeting import greeting_of
from amct_tensorflow.workers.parcel import unpack

# Each report wakes the other side; a person does not look more often.
_SECONDS_BETWEEN_REPORTS = 0.5


class Worker:
    """Evaluates shares with an evaluator that was sent."""

    def __init__(self, number: int, report: Callable[[Event], None]) -> None:
        """``report`` sends news while a share is evaluated; what is logged goes there, too."""
        self._number = number
        self._report = report
        self._evaluator: Any = None
        self._candidates: OrderedDict[str, Candidate] = OrderedDict()
        redirect_log(lambda level, module, text, console: report(Logged(number, level, module, text, console)))

    def greet(self, evaluator: bytes) -> Event:
        """Takes the evaluator; tells what this process has, or why it is of no use."""
        try:
            self._evaluator = unpack(evaluator)
            return Ready(self._number, greeting_of(self._evaluator))
        except AmctError as error:
            return Failed(self._number, error)
        except Exception as error:
            return Failed(
                self._number,
                WorkerError(
                    f"The evaluator does not arrive in a worker: {type(error).__name__}: {first_line(error)}. Whatever "
                    "its file imports must be installed there."
                ),
            )

    def work(self, task: Task, candidate: Candidate | None) -> Event:
        """Does a task.

        Args:
            task: what to do.
            candidate: its model; None if this worker was given it before.
        """
        if candidate is not None:
            self._candidates[task.candidate] = candidate
            while len(self._candidates) > MODELS_KEPT:
                self._candidates.popitem(last=False)
        model = self._candidates[task.candidate]
        try:
            with redirected_progress(self._show, _SECONDS_BETWEEN_REPORTS):
                return Finished(self._number, pickle.dumps(self._evaluate(task, model)))
        except AmctError as error:
            return Failed(self._number, error)
        except Exception as error:
            return Failed(self._number, _failure(self._evaluator, task, model, error))

    def _evaluate(self, task: Task, model: Candidate) -> Any:
        # A worker greets first, and TensorFlow reads when it is imported how many threads it may have.
        import tensorflow as tf  # noqa: PLC0415

        from amct_tensorflow.graph.model_file import import_graph  # noqa: PLC0415

        graph = import_graph(tf.compat.v1.GraphDef.FromString(model.model), model.title)
        return self._evaluator.evaluate_share(graph, list(model.outputs), task.share)

    def _show(self, title: str, unit: str, done: float, total: float | None) -> None:
        self._report(Progressed(self._number, title, unit, done, total))


def _failure(evaluator: object, task: Task, model: Candidate, error: Exception) -> EvaluatorError:
    return EvaluatorError(
        f"{type(evaluator).__name__}.evaluate_share failed on {task.share} for {model.title}: {type(error).__name__}: "
        f"{essence(error)}"
    )
