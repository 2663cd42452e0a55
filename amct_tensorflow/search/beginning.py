"""The first steps of a run: the original model is evaluated and calibrated, one after the other or beside each other.

Beside each other they go where the calibration says so. The batches are run first then, or as the evaluation comes by
them. Behind the calibration, in its thread, the first quantized model is made.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import partial

import tensorflow as tf

from amct_tensorflow.io.memory import give_memory_back
from amct_tensorflow.io.stages import counted_beside, stage
from amct_tensorflow.log import log_for
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.quantize.calibration.calibrate import Calibration, known_calibration, prepare_calibration
from amct_tensorflow.quantize.calibration.calibrator import CalibrationResult
from amct_tensorflow.quantize.config.schema import QuantConfig
from amct_tensorflow.search.checked_evaluator import Tapped, format_metric
from amct_tensorflow.search.evaluations import Evaluations, bytes_of
from amct_tensorflow.search.evaluator import Evaluation
from amct_tensorflow.search.sensitivity.measures import SensitivityBase
from amct_tensorflow.search.start import Start

_ORIGINAL = "the original model"


class Beginning:
    """Evaluates the original model, and calibrates it.

    Attributes:
        is_beside: whether the calibration is computed beside the evaluation.
    """

    is_beside = False

    def __init__(
        self,
        model: FloatModel,
        evaluations: Evaluations,
        start_after: Callable[[CalibrationResult], Start],
        beside: Executor,
        *,
        makes_ahead: bool,
    ) -> None:
        """Takes what it needs, and begins nothing yet.

        Args:
            model: the float model.
            evaluations: the evaluations of the run.
            start_after: returns what the search starts with.
            beside: the single thread for what goes on beside the evaluation.
            makes_ahead: whether the first quantized model may be made there.
        """
        self._model = model
        self._evaluations = evaluations
        self._start_after = start_after
        self._beside = beside
        self._makes_ahead = makes_ahead
        self._in_passing = False  # whether the evaluator runs the batches so, if calibration may go on beside it
        self._evaluated: list[Evaluation] = []
        self._coming: Future[Start] | None = None

    @stage("preparing the calibration")
    def prepare(self, config: QuantConfig, sensitivity: SensitivityBase, known: CalibrationResult | None) -> None:
        """Prepares the calibration, unless it is known from an earlier run.

        Nothing goes on beside evaluations that calls a sensitivity of the user's.
        """
        self._config, self._sensitivity = config, sensitivity
        if known is not None:
            self._calibration = known_calibration(known)
            return
        evaluator, comparison = self._evaluations.evaluator, sensitivity.layer_comparison()
        is_evaluated = self._evaluations.in_background or self._evaluations.knows(None)
        self._in_passing = evaluator.calibrates_in_passing and not is_evaluated
        self._calibration = prepare_calibration(
            self._model, config, evaluator.calibrate, for_search=True, comparison=comparison,
            beside=self._beside if comparison is None else None, overlaps=evaluator.calibration_may_overlap,
            inputs_do=self._in_passing,
        )  # fmt: skip
        self.is_beside = self._calibration.is_beside

    def run(self) -> Evaluation | None:
        """Runs the calibration batches, and evaluates the original model.

        Returns:
            The evaluation; None if workers have begun with it.
        """
        if self._evaluations.in_background:
            self._evaluations.begin(None, bytes_of(self._model.graph_def), _ORIGINAL)
            self._run_batches()
            return None
        if not self.is_beside:
            with self._little_held():
                original = self.evaluate()
            give_memory_back()
            self._run_batches()
            return original
        try:
            if self._in_passing:
                self._calibration.run(self._evaluate_in_passing)
            else:
                self._run_batches()
                self._go_ahead()
                self._evaluated.append(self.evaluate())
        except BaseException:
            self._stop()
            raise
        return self._evaluated[0]

    @stage("evaluating the original model")
    def evaluate(self, tapped: Tapped | None = None) -> Evaluation:
        """Evaluates the original model, and checks that the requirement suits the metric.

        Args:
            tapped: what to run the calibration batches on in passing, if the evaluator can do that.
        """
        original = self._evaluations.get(None, self._model.graph_def, _ORIGINAL, tapped=tapped)
        log_for().info("Accuracy of original model: %s", format_metric(original.metric))
        self._evaluations.evaluator.check_requirement(original.metric)
        return original

    @stage("calibrating")
    def _run_batches(self) -> None:
        self._calibration.run()

    @contextmanager
    def _little_held(self) -> Iterator[None]:
        """Frees inside the block what is prepared of a large model: it has all weights, in several forms.

        It is not freed if the batches were run to balance the model.
        """
        if self._calibration.is_small or self._evaluations.knows(None) or self._config.asks_for_balancing():
            yield
            return
        del self._calibration
        self._model.forget_graph()
        self._model.forget_fused()
        yield
        give_memory_back()
        self.prepare(self._config, self._sensitivity, None)

    def _evaluate_in_passing(self, graph: tf.Graph, _: Sequence[str]) -> None:
        self._evaluated.append(self.evaluate(Tapped(graph, self._go_ahead)))

    @stage("calibrating")
    def start(self) -> Start:
        """Waits for the calibration; returns what the search starts with."""
        self._model.forget_graph()  # the taps in it have seen what they are there for
        try:
            return self._start_after(self._calibration.result()) if self._coming is None else self._coming.result()
        except BaseException:
            self._stop()
            raise

    def _stop(self) -> None:
        """Ends soon what goes on beside the caller, whose run has failed."""
        self._calibration.stop()
        if self._coming is not None:
            self._coming.cancel()

    def _go_ahead(self) -> None:
        """Lets the first quantized model be made behind the calibration, which has all batches, and computes beside.

        Not sooner: of the last batch, what only the outputs need may arrive late.
        """
        self._calibration.check()
        if self._makes_ahead:
            make = partial(_start_ahead, self._calibration, self._start_after, self._evaluated)
            self._coming = self._beside.submit(counted_beside(make))


def _start_ahead(
    calibration: Calibration, start_after: Callable[[CalibrationResult], Start], evaluated: Sequence[Evaluation]
) -> Start:
    """Makes the first quantized model.

    If the original model has been evaluated by then, the caller knows whether integers pay, and tries them.
    """
    start = start_after(calibration.result())
    start.search.make_ahead(start.first, None if evaluated else start.execution)
    return start
