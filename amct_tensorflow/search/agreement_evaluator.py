"""An evaluator that needs no code of the user's: it compares a model's outputs with those of the float model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from amct_tensorflow.errors import DatasetError
from amct_tensorflow.graph.batch_splitter import images_of
from amct_tensorflow.graph.graph_runner import GraphRunner
from amct_tensorflow.graph.view import full_tensor_name
from amct_tensorflow.io.progress import ProgressBar
from amct_tensorflow.model.endpoints import Endpoint
from amct_tensorflow.model.input_batches import Batch, read_batches
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.calibration.taps import fetches_to_calibrate
from amct_tensorflow.search.agreement import Measure, Outputs, accuracy
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase
from amct_tensorflow.search.workers.shares import Share

# Calibration takes so many images, if nothing else is said.
_CALIBRATION_IMAGES = 32


@dataclass(frozen=True)
class DataFiles:
    """Files of batches, some to calibrate on, some to evaluate on.

    Attributes:
        inputs: the inputs of the model.
        calibration: the files to calibrate on.
        evaluation: the files to evaluate on.
        images: per file to evaluate on, its images: their numbers among those of all files.
    """

    inputs: Sequence[Endpoint]
    calibration: Sequence[str]
    evaluation: Sequence[str]
    images: Sequence[range]

    def batch(self, index: int) -> Batch:
        """Reads a batch to evaluate on."""
        return next(read_batches([self.evaluation[index]], self.inputs))


def divide_files(files: Sequence[str], inputs: Sequence[Endpoint], calibration_files: int | None) -> DataFiles:
    """Reads and checks all files, and divides them.

    The first ones calibrate. The others evaluate if they hold at least as many images, so that nothing is judged by
    what it was fitted to; else all do.

    Args:
        files: a batch per file.
        inputs: the inputs of the model.
        calibration_files: how many calibrate; None for as many as hold 32 images.

    Raises:
        DatasetError: a file cannot be read or does not fit, or there are too few.
    """
    if calibration_files is not None and calibration_files > len(files):
        raise DatasetError(f"{calibration_files} files are to calibrate, but there are {len(files)}. Give more data.")
    images: list[range] = []
    for file, batch in zip(files, read_batches(files, inputs), strict=True):
        if images_of(batch) == 0:
            raise DatasetError(f"{file} holds no image: its first axis, which counts them, is 0 long.")
        start = images[-1].stop if images else 0
        images.append(range(start, start + (images_of(batch) or 1)))
    if calibration_files is None:
        calibration_files = next(
            (n for n, each in enumerate(images, 1) if each.stop >= _CALIBRATION_IMAGES), len(files)
        )
    calibrated = images[calibration_files - 1].stop
    first = calibration_files if images[-1].stop >= 2 * calibrated else 0
    return DataFiles(inputs, files[:calibration_files], files[first:], images[first:])


class AgreementEvaluator(AutoCalibrationEvaluatorBase):
    """Measures how far a model agrees with the float model, or with labels."""

    def __init__(
        self, model: bytes, files: DataFiles, measure: Measure, limit: float, labels: np.ndarray | None = None
    ) -> None:
        """Takes what to measure on, and what to ask for.

        Args:
            model: the float model as a frozen graph.
            files: the data.
            measure: what is measured; with labels, their classes are what is compared.
            limit: how far the measure may get worse than that of the float model.
            labels: per image of all files, its class as the model counts them; None to compare with the float model.
        """
        self._model = model
        self._files = files
        self._measure = measure
        self._limit = limit
        self._labels = labels
        self._references: dict[int, list[np.ndarray]] = {}

    def calibration(self, graph: tf.Graph, outputs: list[str]) -> None:
        """Runs the files to calibrate on."""
        with GraphRunner(graph, run_often=False) as runner:
            _initialize(graph, runner)
            fetches = fetches_to_calibrate(graph, list(map(full_tensor_name, outputs)))
            for batch in read_batches(self._files.calibration, self._files.inputs):
                _run(runner, fetches, batch)

    def evaluate_share(self, graph: tf.Graph, outputs: list[str], share: Share) -> Any:
        """Returns what the measure finds per file."""
        indices = share.of(len(self._files.evaluation))
        if self._labels is None:
            self._refer(outputs, indices)
        with (
            GraphRunner(graph, run_often=True) as runner,
            ProgressBar("evaluation", len(indices), "batches") as progress,
        ):
            _initialize(graph, runner)
            found = []
            for index in indices:
                found.append(
                    self._compare(index, _run(runner, list(map(full_tensor_name, outputs)), self._files.batch(index)))
                )
                progress.update()
        return found

    def join_shares(self, results: Sequence[Any]) -> float:
        """Returns the measure of all files."""
        found = self._measure.join([each for result in results for each in result])
        self._image_results = found.per_image
        return found.metric

    def metric_eval(self, original_metric: float, new_metric: float) -> tuple[bool, float]:
        """Returns whether the measure got no worse than allowed, and how much worse it got."""
        loss = original_metric - new_metric
        loss = -loss if self._measure.lower_is_better else loss
        return loss <= self._limit, loss

    def identity(self) -> Mapping[str, Any]:
        """Returns what results depend on, so that a run is not resumed with something else."""
        labels = None if self._labels is None else self._labels.tolist()
        return {
            "data": {
                purpose: [[Path(file).name, Path(file).stat().st_size] for file in files]
                for purpose, files in (("calibration", self._files.calibration), ("evaluation", self._files.evaluation))
            },
            "measure": [self._measure.name, self._limit],
            "labels": labels,
        }

    def _compare(self, index: int, values: Outputs) -> Any:
        if self._labels is not None:
            return accuracy(self._labels)(values, self._files.images[index])
        return self._measure.compare(self._references[index], values)

    def _refer(self, outputs: list[str], indices: Sequence[int]) -> None:
        """Runs the float model on files, once in a process."""
        missing = [index for index in indices if index not in self._references]
        if not missing:
            return
        graph = import_graph(tf.compat.v1.GraphDef.FromString(self._model), "the float model")
        with (
            GraphRunner(graph, run_often=True) as runner,
            ProgressBar("reference", len(missing), "batches") as progress,
        ):
            for index in missing:
                values = _run(runner, list(map(full_tensor_name, outputs)), self._files.batch(index))
                if (wrong := self._measure.incomparable(values)) is not None:
                    raise DatasetError(
                        f"The float model itself yields inf or nan at its output {outputs[wrong]!r} for "
                        f"{self._files.evaluation[index]}, so that nothing can be compared with it. Check the data and "
                        "its preprocessing, or name other outputs with --outputs."
                    )
                self._references[index] = values
                progress.update()


def first_outputs(model: bytes, outputs: Sequence[str], files: DataFiles) -> list[np.ndarray]:
    """Returns the outputs of the float model for the first file to evaluate on.

    Raises:
        DatasetError: the model does not run on it.
    """
    graph = import_graph(tf.compat.v1.GraphDef.FromString(model), "the float model")
    with GraphRunner(graph) as runner:
        found = runner.values([f"{name}:0" for name in outputs], {f"{n}:0": each for n, each in files.batch(0).items()})
    return [found[f"{name}:0"] for name in outputs]


def described(files: DataFiles) -> str:
    """Says on how many images is calibrated and evaluated."""
    calibrated, evaluated = len(files.calibration), sum(map(len, files.images))
    among = "the others" if files.images[0].start else "all, those of the calibration among them"
    return f"Calibrating on the first {calibrated} files, evaluating on {evaluated} images: {among}."


def _initialize(graph: tf.Graph, runner: GraphRunner) -> None:
    with graph.as_default():
        initialize = tf.compat.v1.global_variables_initializer()
    runner.run(initialize)


def _run(runner: GraphRunner, fetches: Sequence[Any], batch: Batch) -> list[Any]:
    return list(runner.run(fetches, {f"{name}:0": values for name, values in batch.items()}))
