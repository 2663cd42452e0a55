"""The base class of evaluators of image classifiers.

Your class says what a record holds for the model::

    class MyEvaluator(ClassifierEvaluator):
        def load(self, features, height, width):
            return preprocess(features["image/encoded"], height, width), features["image/class/label"]
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from amct_tensorflow.data import DatasetError, ScannedRecords, parse_records
from amct_tensorflow.errors import EvaluatorError, ModelError
from amct_tensorflow.graph.graph_runner import GraphRunner
from amct_tensorflow.io.progress import ProgressBar
from amct_tensorflow.io.stages import counted_beside
from amct_tensorflow.quantize.calibration.taps import fetches_to_calibrate, taps_on_inputs
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase, Picture
from amct_tensorflow.search.workers.shares import Share

_PICTURE_SIZE = 96
# Looks at the images of a batch.
_Look: TypeAlias = Callable[[np.ndarray], None]


class Classified(NamedTuple):
    """Classified images: per image the label with the highest score, and the true label, int64 [images]."""

    predictions: np.ndarray
    labels: np.ndarray


@dataclass
class ClassifierEvaluator(AutoCalibrationEvaluatorBase):
    """Top-1 accuracy in percent on a dataset; a quantized model must lose less than ``expected_acc_loss`` points.

    The next batches are prepared while the model runs on one, and progress is shown.

    Attributes:
        label_key: the feature that holds the label.
        image_key: the feature that holds the encoded image, for pictures in the report.
        first_label: the label of the model's first class.
        image_size: height and width where the model leaves them open.
        dataset: the records to evaluate with.
        batch_size: images per batch.
        calibration_batches: number of batches to calibrate with.
        expected_acc_loss: the loss must stay below this, in percentage points.
    """

    label_key: ClassVar[str] = "image/class/label"
    image_key: ClassVar[str] = "image/encoded"
    first_label: ClassVar[int] = 0
    image_size: ClassVar[int] = 224

    dataset: ScannedRecords
    batch_size: int = 32
    calibration_batches: int = 1
    expected_acc_loss: float = 0.5

    def __post_init__(self) -> None:
        self._predictions: np.ndarray | None = None

    @property
    def calibration_may_overlap(self) -> bool:
        """Yes, unless a class derived from this one calibrates or evaluates in a way of its own."""
        return self.calibrates_in_passing

    @property
    def calibrates_in_passing(self) -> bool:
        """Whether ``evaluate_and_calibrate`` does what the methods do that it stands for."""
        methods = ("calibration", "evaluate", "evaluate_share", "join_shares")
        is_own = [getattr(type(self), method) is getattr(ClassifierEvaluator, method) for method in methods]
        return all(is_own) and not vars(self).keys() & set(methods)

    def load(self, features: dict[str, tf.Tensor], height: int, width: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the preprocessed image of a record, float32 [height, width, 3], and its label; to be overridden.

        Args:
            features: the features of the record, by key.
            height: height of the model's input.
            width: width of the model's input.
        """
        raise NotImplementedError

    def batches(self, height: int, width: int, images: range | None = None) -> tf.data.Dataset:
        """Yields (images, labels); the last batch holds what is left.

        Args:
            height: height of the model's input.
            width: width of the model's input.
            images: the indices of the images, a block of them; all, unless it is given.
        """

        def load(features: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            return self.load(features, height, width)

        if images is None:
            return self.dataset.batches(load, self.batch_size)
        return self.dataset.batches(load, self.batch_size, images)

    def calibration(self, graph: tf.Graph, outputs: list[str]) -> None:
        """Runs the first batches of the data; the scores are not computed where calibration takes only inputs."""
        images = range(min(self.calibration_batches * self.batch_size, self.dataset.num_records))
        scores = self._scores(graph, outputs)
        for _ in self._runs(graph, fetches_to_calibrate(graph, [scores.name]), "calibration", images):
            pass

    def evaluate_and_calibrate(
        self, graph: tf.Graph, outputs: list[str], tapped: tf.Graph, calibrated: Callable[[], None]
    ) -> Any:
        """Evaluates a model, and runs the first batches on it as prepared for calibration, too.

        Args:
            graph: as for ``evaluate``.
            outputs: as for ``evaluate``.
            tapped: as for ``calibration``, or its inputs alone.
            calibrated: called behind the last of these batches.
        """
        fetches = taps_on_inputs(tapped) or [self._scores(tapped, outputs)]
        model_input, _, _ = find_input(tapped, self.image_size)
        left = min(self.calibration_batches * self.batch_size, self.dataset.num_records)
        running: Future[None] | None = None

        def run(images: np.ndarray, is_last: bool) -> None:
            runner.run(fetches, {model_input: images})
            if is_last:
                runner.close()
                calibrated()

        def calibrate(images: np.ndarray) -> None:
            nonlocal left, running
            if running is not None:
                running.result()
                running = None
            if left > 0:
                left -= len(images)
                running = beside.submit(counted_beside(run), images, left <= 0)

        # TensorFlow optimizes both graphs at their first batch, each in one thread.
        with GraphRunner(tapped, run_often=True) as runner, ThreadPoolExecutor(1) as beside:
            whole = range(self.dataset.num_records)
            classified = self._classify(graph, outputs, "original model", whole, calibrate)
            if running is not None:
                running.result()
        return self.join_shares([classified])

    def evaluate_share(self, graph: tf.Graph, outputs: list[str], share: Share) -> Any:
        """Classifies the images of a share."""
        quantized = any(op.type.startswith("Ascend") for op in graph.get_operations())
        title = "quantized model" if quantized else "original model"
        images = share.of(self.dataset.num_records, self.batch_size)
        return self._classify(graph, outputs, title, images)

    def join_shares(self, results: Sequence[Any]) -> float:
        """Returns the top-1 accuracy in percent; also of numbers per image, if ``evaluate_share`` is overridden."""
        if not all(isinstance(result, Classified) for result in results):
            self._predictions = None
            return float(super().join_shares(results))
        self._predictions = np.concatenate([result.predictions for result in results])
        return float(super().join_shares([100.0 * (result.predictions == result.labels) for result in results]))

    def identity(self) -> dict[str, Any]:
        """Returns what results depend on beside the code; only a run with the same is resumed."""
        return {
            "dataset": [
                [Path(file).name, Path(file).stat().st_size, count] for file, count in self.dataset.counts.items()
            ],
            "batch size": self.batch_size,
        }

    def image_predictions(self) -> Sequence[int] | None:
        """Returns for each image of the last evaluation the label of the class with the highest score."""
        return None if self._predictions is None else list(map(int, self._predictions))

    def pictures(self, images: Sequence[int]) -> Sequence[Picture] | None:
        """Returns small pictures of images; None if the records do not hold them under ``image_key``."""
        if self.image_key not in {feature.key for feature in self.dataset.features}:
            return None
        found: list[Picture] = []
        for number in images:
            features = parse_records(tf.constant(self.dataset.positions.record(number)), self.dataset.features)
            label = int(features[self.label_key]) if self.label_key in features else ""
            found.append(Picture(_small(features[self.image_key]), str(label)))
        return found

    def metric_eval(self, original_metric: float, new_metric: float) -> tuple[bool, float]:
        """Returns whether the loss is small enough, and the loss in percentage points."""
        loss = original_metric - new_metric
        # Without the second condition a target of 0 would refuse even the original model itself.
        return loss < self.expected_acc_loss or loss <= 0, loss

    def _classify(
        self, graph: tf.Graph, outputs: list[str], title: str, indices: range, first: _Look | None = None
    ) -> Classified:
        """Runs the model on some of the images; what looks at batches ``first`` gets each before the model."""
        found, expected = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for predictions, labels in self._runs(graph, self._scores(graph, outputs), title, indices, first):
            self._check_scores(tf.TensorShape(predictions.shape))
            found.append(np.argmax(predictions, axis=1) + self.first_label)
            expected.append(labels)
        return Classified(np.concatenate(found), np.concatenate(expected))

    def _scores(self, graph: tf.Graph, outputs: list[str]) -> tf.Tensor:
        scores = graph.get_tensor_by_name(f"{outputs[0]}:0")
        self._check_scores(scores.shape)
        return scores

    def _runs(
        self, graph: tf.Graph, fetches: Any, title: str, indices: range, first: _Look | None = None
    ) -> Iterator[tuple[Any, np.ndarray]]:
        """Yields per batch of some of the images what is fetched, and the labels; see ``_classify``."""
        if not indices:
            return
        model_input, height, width = find_input(graph, self.image_size)
        with graph.as_default():
            # The first batches are those of the whole, as everybody who overrides batches() gives them.
            batches = self.batches(height, width, indices) if indices.start else self.batches(height, width)
            next_batch = tf.compat.v1.data.make_one_shot_iterator(batches).get_next()
            initialize = tf.compat.v1.global_variables_initializer()
        with (
            GraphRunner(graph, run_often=True) as runner,
            ProgressBar(title, len(indices)) as progress,
            _batches_fit(self.batch_size),
        ):
            runner.run(initialize)
            while progress.n < len(indices):
                try:
                    # The pipeline prepares the next batches while the model runs on this one.
                    images, labels = runner.run(next_batch)
                except tf.errors.ResourceExhaustedError:
                    raise
                except tf.errors.OpError as error:
                    raise self.dataset.find_undecodable(
                        lambda features: self.load(features, height, width), indices.start + int(progress.n)
                    ) from error
                if first is not None:
                    first(images)
                yield runner.run(fetches, {model_input: images}), labels
                progress.update(len(labels))

    def _check_scores(self, shape: tf.TensorShape) -> None:
        """Checks that the model's output has a score for every label, as far as its shape is known."""
        if shape.rank not in (None, 2):
            raise ModelError(f"The model's output has the shape {shape}; it must be [images, classes].")
        classes = shape.as_list()[1] if shape.rank else None
        largest = self.dataset.largest.get(self.label_key)
        if classes is not None and largest is not None and largest >= self.first_label + classes:
            raise DatasetError(
                f"The dataset has the label {largest}, but the model's {classes} classes are {self.first_label} to "
                f"{self.first_label + classes - 1}. Use the dataset that the model was trained for."
            )


def _small(encoded: tf.Tensor) -> bytes:
    """Returns an encoded image as a small JPEG."""
    image = tf.cast(tf.io.decode_image(encoded, channels=3, expand_animations=False), tf.float32)
    small = tf.image.resize(image, (_PICTURE_SIZE, _PICTURE_SIZE), preserve_aspect_ratio=True, antialias=True)
    return bytes(tf.io.encode_jpeg(tf.cast(tf.round(small), tf.uint8), quality=80).numpy())


@contextmanager
def _batches_fit(batch_size: int) -> Iterator[None]:
    """Turns an error for lack of memory into one that says what to do.

    Raises:
        EvaluatorError: there is not enough memory.
    """
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        raise EvaluatorError(
            f"There is not enough memory for batches of {batch_size} images. Lower --batch_size."
        ) from error


def find_input(graph: tf.Graph, image_size: int) -> tuple[tf.Tensor, int, int]:
    """Finds the model's only placeholder, and the height and width of the images it takes.

    Args:
        graph: the model.
        image_size: height and width where the model leaves them open.

    Raises:
        ModelError: there is not exactly one, or it does not take batches of RGB images.
    """
    placeholders = [op.outputs[0] for op in graph.get_operations() if op.type == "Placeholder"]
    if len(placeholders) != 1:
        names = ", ".join(tensor.op.name for tensor in placeholders) or "none"
        raise ModelError(f"The model must have exactly one placeholder, for the images; it has: {names}.")
    tensor = placeholders[0]
    images, height, width, channels = tensor.shape.as_list() if tensor.shape.rank == 4 else [None] * 4
    if tensor.dtype != tf.float32 or tensor.shape.rank not in (None, 4) or images or channels not in (None, 3):
        raise ModelError(
            f"Input {tensor.op.name!r} takes {tensor.dtype.name} {tensor.shape}; it must take batches of any size, "
            "float32 [None, height, width, 3]."
        )
    return tensor, height or image_size, width or image_size
