"""An evaluator that runs batches from files, with labels or without."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import DatasetError
from amct_tensorflow.export.batch_sizes import Values, fixed_batch, in_batches_of
from amct_tensorflow.graph.graph_runner import GraphRunner
from amct_tensorflow.graph.view import attribute
from amct_tensorflow.io.progress import ProgressBar
from amct_tensorflow.model.endpoints import Endpoint
from amct_tensorflow.model.input_batches import read_batches
from amct_tensorflow.model.model_file import read_model
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase


class FileEvaluator(AutoCalibrationEvaluatorBase):
    """Runs batches; its metric is top-1 accuracy in percent, or the number of batches where there are no labels."""

    def __init__(
        self, files: Sequence[str | Path], model: str | Path, calibration_batches: int, labels: np.ndarray | None
    ) -> None:
        """Takes the files.

        Args:
            files: a batch per file, as ``read_batches`` reads them.
            model: the model that says what they must hold.
            calibration_batches: how many of them calibrate.
            labels: per image, its class as the model counts them; None if that is not known.

        Raises:
            ModelError: the model cannot be read.
        """
        self._files = files
        view = read_model(model)
        self._batch = fixed_batch(view)
        inputs = [_endpoint(node) for node in view.nodes.values() if node.op == "Placeholder"]
        self._per_image = [each.name for each in inputs if each.shape and each.shape[0] in (None, self._batch)]
        # Whatever number of images a file holds, they are dealt out as the model takes them.
        self._inputs = [_open(each) if each.name in self._per_image else each for each in inputs]
        self._calibration_batches = calibration_batches
        self._labels = labels
        self._correct: np.ndarray | None = None

    def calibration(self, graph: tf.Graph, outputs: list[str]) -> None:
        """Runs the first batches."""
        for _ in self._run(graph, outputs, "calibration", self._files[: self._calibration_batches]):
            pass

    def evaluate(self, graph: tf.Graph, outputs: list[str]) -> float:
        """Runs all batches."""
        first = [values[0] for values in self._run(graph, outputs, "evaluation", self._files)]
        if self._labels is None:
            return float(len(first))
        scores = np.concatenate(first) if first[0].ndim else np.stack(first)
        if scores.ndim != 2 or len(scores) != len(self._labels):
            raise DatasetError(
                f"The labels are for {len(self._labels)} images, but the model's first output has the shape "
                f"{list(scores.shape)}. Give one label per image, of a model that classifies."
            )
        if self._labels.min() < 0 or self._labels.max() >= scores.shape[1]:
            raise DatasetError(
                f"The labels go from {self._labels.min()} to {self._labels.max()}, but the model has {scores.shape[1]} "
                "classes, which it counts from 0. Give the classes as the model counts them."
            )
        self._correct = scores.argmax(axis=1) == self._labels
        return 100.0 * float(np.mean(self._correct))

    def image_results(self) -> Sequence[float] | None:
        """Returns 100 for each image that was classified correctly, 0 for the others."""
        return None if self._correct is None else [100.0 * correct for correct in self._correct.tolist()]

    def _run(
        self, graph: tf.Graph, outputs: list[str], title: str, files: Sequence[str | Path]
    ) -> Iterator[list[np.ndarray]]:
        fetches = [f"{name}:0" for name in outputs]
        with graph.as_default():
            initialize = tf.compat.v1.global_variables_initializer()
        with (
            GraphRunner(graph, run_often=True) as runner,
            ProgressBar(title, len(files), "batches") as progress,
        ):
            runner.run(initialize)
            for batch, images in self._as_taken(self._read(files, progress)):
                found = runner.run(fetches, {f"{name}:0": values for name, values in batch.items()})
                yield found if images is None else [_first(values, images, self._batch) for values in found]

    def _read(self, files: Sequence[str | Path], progress: ProgressBar) -> Iterator[dict[str, np.ndarray]]:
        for batch in read_batches(files, self._inputs):
            yield batch
            progress.update()

    def _as_taken(self, batches: Iterator[dict[str, np.ndarray]]) -> Iterator[tuple[Values, int | None]]:
        """Yields the batches in the size that the model takes, and how many images of each are not padding."""
        if self._batch is None:
            yield from ((batch, None) for batch in batches)
        else:
            yield from in_batches_of(self._batch, batches, self._per_image)


def _first(values: np.ndarray, images: int, batch: int | None) -> np.ndarray:
    """Returns the entries of an output for the first images of a batch, if it has equally many per image."""
    if batch is None or images == batch or not values.ndim or len(values) % batch:
        return values
    return values[: len(values) // batch * images]


def _endpoint(placeholder: NodeDef) -> Endpoint:
    shape = tf.TensorShape(attribute(placeholder, "shape").shape if "shape" in placeholder.attr else None)
    dtype = tf.as_dtype(attribute(placeholder, "dtype").type).name
    return Endpoint(str(placeholder.name), dtype, None if shape.rank is None else tuple(shape))


def _open(endpoint: Endpoint) -> Endpoint:
    """Returns an input that takes any number of images."""
    return endpoint if endpoint.shape is None else replace(endpoint, shape=(None, *endpoint.shape[1:]))
