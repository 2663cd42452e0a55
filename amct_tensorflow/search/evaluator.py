"""The base class of evaluators, and the results of evaluating and judging a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from amct_tensorflow.search.workers.shares import WHOLE, Share


class AutoCalibrationEvaluatorBase:
    """Base class of evaluators, which run and judge the user's model."""

    _image_results: np.ndarray | None = None

    @property
    def calibration_may_overlap(self) -> bool:
        """Whether a small model may be calibrated while ``evaluate`` runs on it, which takes less time; by default not.

        ``calibration`` is called before the first ``evaluate`` then, and NumPy's BLAS has one thread meanwhile.
        """
        return False

    def calibration(self, graph: tf.Graph, outputs: list[str]) -> None:
        """Runs at least ``batch_num`` batches.

        Args:
            graph: fresh graph prepared for calibration; nodes may be added.
            outputs: names of the output operators, without ``:0``.
        """
        raise NotImplementedError

    def evaluate(self, graph: tf.Graph, outputs: list[str]) -> Any:
        """Evaluates a float or quantized model.

        Args:
            graph: fresh graph without variables; nodes may be added.
            outputs: names of the output operators, without ``:0``.

        Returns:
            Any metric object. An evaluator with ``evaluate_share`` need not override this: the whole data is a share,
            too.
        """
        return self.join_shares([self.evaluate_share(graph, outputs, WHOLE)])

    def evaluate_share(self, graph: tf.Graph, outputs: list[str], share: Share) -> Any:
        """Evaluates a model on a share of the data; optional, but needed to evaluate in several processes.

        It may run in another process, on a copy of the evaluator from before the first evaluation, and for the shares
        of a model in any order. Paths of data must mean the same in every process.

        Args:
            graph: as for ``evaluate``.
            outputs: as for ``evaluate``.
            share: the share; ``share.of(images, batch_size)`` are the indices of its images.

        Returns:
            One number per image of the share, [images], in their order. Or anything that can be pickled, if
            ``join_shares`` is overridden, too.
        """
        raise NotImplementedError

    def join_shares(self, results: Sequence[Any]) -> Any:
        """Joins the results of all shares to one metric, which must not depend on the number of shares.

        Args:
            results: what ``evaluate_share`` returned, in the order of the shares.

        Returns:
            The mean of the numbers of all images; ``image_results`` returns these numbers afterwards.
        """
        self._image_results = np.concatenate([np.asarray(result, np.float64) for result in results])
        return float(np.mean(self._image_results))

    def metric_eval(self, original_metric: Any, new_metric: Any) -> tuple[bool, float]:
        """Judges a model.

        Args:
            original_metric: what ``evaluate`` returned for the original model.
            new_metric: what it returned for another model.

        Returns:
            Whether the new model satisfies the requirement, and its loss.
        """
        raise NotImplementedError

    def image_results(self) -> Sequence[float] | None:
        """Returns the result of each image in the last ``evaluate``; optional.

        Returns:
            One number per image, always in the same order. The loss of ``metric_eval`` must be the mean change of these
            numbers from the original model to another. For a loss in percentage points of top-1 accuracy, that is 100
            for each image classified correctly, and 0 for the others. By default, the results of ``evaluate_share``.
        """
        return None if self._image_results is None else self._image_results.tolist()

    def image_predictions(self) -> Sequence[int] | Sequence[str] | None:
        """Returns the prediction for each image in the last ``evaluate``, for the report; optional.

        Returns:
            Per image, in the order of ``image_results``, the predicted class: a number or a name.
        """
        return None

    def pictures(self, images: Sequence[int]) -> "Sequence[Picture] | None":
        """Returns pictures of images; optional. The report shows a few whose prediction has changed.

        Args:
            images: their numbers, ascending; 0 is the first of ``image_predictions``.

        Returns:
            A picture of each, in the same order.
        """
        return None

    def identity(self) -> Mapping[str, Any] | None:
        """Returns what results depend on beside model, configuration and code, such as the data; optional.

        A resumed run uses earlier results only if this is the same, and the files of the evaluator's class and its
        bases are the same. Attributes of the evaluator, and code in other files, belong here; without this method, the
        user has to take care of them.

        Returns:
            Per name that a message can use ("dataset"), any JSON value.
        """
        return None


class Picture(NamedTuple):
    """An image for the report: a JPEG or PNG of at most 32 kB, and what it shows according to its label."""

    data: bytes
    label: str


class MetricEval(NamedTuple):
    """A judged model: whether it satisfies the requirement, and its loss."""

    satisfied: bool
    loss: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The result of an evaluation of a model.

    Attributes:
        metric: what ``evaluate`` returned.
        seconds: how long it took; None if that was in an earlier run.
        image_results: what ``image_results`` returned, float64 [images]; None if it offers nothing.
        model: digest of the bytes of the evaluated model; empty until the engine sets it.
        image_predictions: what ``image_predictions`` returned, int64 or text [images]; None if it offers nothing.
    """

    metric: Any
    seconds: float | None
    image_results: np.ndarray | None
    model: str = ""
    image_predictions: np.ndarray | None = None


def is_list_of_predictions(values: np.ndarray) -> bool:
    """Tells whether an array holds an integer or a text per image."""
    return values.ndim == 1 and values.dtype.kind in "iuU"
