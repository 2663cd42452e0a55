"""What users derive their evaluators from, and what evaluating and judging a model gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from amct_tensorflow.search.workers.shares import WHOLE, Share


class AutoCalibrationEvaluatorBase:
    """Base class of evaluators: how to run, and how to judge, the user's model."""

    _image_results: np.ndarray | None = None

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
            Any metric object. An evaluator with ``evaluate_share`` may leave this out: the whole is a share, too.
        """
        return self.join_shares([self.evaluate_share(graph, outputs, WHOLE)])

    def evaluate_share(self, graph: tf.Graph, outputs: list[str], share: Share) -> Any:
        """Evaluates a model on a share of the data; an evaluator may do without, and runs in one process then.

        It may be called in another process, on a copy of the evaluator that was made before the first evaluation, and
        for the shares of a model in any order. The data is read where it lies: a path must mean the same everywhere.

        Args:
            graph: as for ``evaluate``.
            outputs: as for ``evaluate``.
            share: which part; ``share.of(images, batch_size)`` are the indices of its images.

        Returns:
            One number per image of the share, [images], in their order. Or anything that can be pickled, if
            ``join_shares`` is overridden, too.
        """
        raise NotImplementedError

    def join_shares(self, results: Sequence[Any]) -> Any:
        """Makes one metric of the results of all shares; it must be the same however many there are.

        Args:
            results: what ``evaluate_share`` returned, in the order of the shares.

        Returns:
            The mean of the numbers of all images, which ``image_results`` offers after that.
        """
        self._image_results = np.concatenate([np.asarray(result, np.float64) for result in results])
        return float(np.mean(self._image_results))

    def metric_eval(self, original_metric: Any, new_metric: Any) -> tuple[bool, float]:
        """Judges a model.

        Args:
            original_metric: what ``evaluate`` returned for the original model.
            new_metric: what it returned for another.

        Returns:
            Whether the new model satisfies the requirement, and its loss.
        """
        raise NotImplementedError

    def image_results(self) -> Sequence[float] | None:
        """Tells the result of each image in the last ``evaluate``; an evaluator may do without.

        Returns:
            One number per image, always in the same order. The mean over the images of how much they change from the
            original model to another must be the loss that ``metric_eval`` computes; with a loss in percentage points
            of top-1 accuracy, that is 100 for each image classified correctly, and 0 for every other. Of an evaluator
            with ``evaluate_share`` they are what that returned.
        """
        return None if self._image_results is None else self._image_results.tolist()

    def image_predictions(self) -> Sequence[int] | Sequence[str] | None:
        """Tells what the last ``evaluate`` said of each image, for the report; an evaluator may do without.

        Returns:
            Per image, in the order of ``image_results``, what the model takes it for: a number or a name.
        """
        return None

    def pictures(self, images: Sequence[int]) -> "Sequence[Picture] | None":
        """Shows images, for the report, which asks for a few whose prediction has changed; likewise.

        Args:
            images: their numbers, ascending; 0 is the first of ``image_predictions``.

        Returns:
            A picture of each, in the same order.
        """
        return None

    def identity(self) -> Mapping[str, Any] | None:
        """Tells what the results depend on beside the model, its configuration and the code, such as the data.

        A run that is resumed uses earlier results only if this is what it was then, and if the files are the same in
        which the class of the evaluator and its bases are written. Attributes of the evaluator, and code in other
        files, are told here; an evaluator may do without, if whoever resumes takes care of that.

        Returns:
            Per thing that people know by name ("dataset"), anything that JSON can hold.
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
    """What an evaluation of a model gave.

    Attributes:
        metric: what ``evaluate`` returned.
        seconds: how long it took; None if that was in an earlier run.
        image_results: what ``image_results`` returned, float64 [images]; None if it offers nothing.
        model: digest of the model that was evaluated, as it stands in its file; empty until the engine tells.
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
