"""An evaluator of any model that needs only raw files of its inputs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from amct_tensorflow.data.raw_batches import RawBatches
from amct_tensorflow.errors import ArgumentTypeError, EvaluatorError
from amct_tensorflow.graph.graph_runner import GraphRunner
from amct_tensorflow.graph.view import full_tensor_name
from amct_tensorflow.io.progress import ProgressBar
from amct_tensorflow.model.input_texts import parse_input_shapes, split_parts
from amct_tensorflow.quantize.calibration.taps import fetches_to_calibrate
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase
from amct_tensorflow.search.sensitivity.divergence import Divergence
from amct_tensorflow.search.workers.shares import WHOLE, Share


@dataclass(frozen=True, eq=False)
class ModelOutputs:
    """The outputs of a model, as a metric.

    Attributes:
        batches: per batch, the value of every output.
    """

    batches: Sequence[Sequence[np.ndarray]]

    def __repr__(self) -> str:
        return f"<outputs for {len(self.batches)} batches>"


class GraphEvaluator(AutoCalibrationEvaluatorBase):
    """Runs a model on raw files, and judges it by the divergence of its outputs from those of the original model.

    Derive from it, and override ``evaluate`` and ``metric_eval``, where the files have labels beside them.
    """

    def __init__(
        self,
        data_dir: str | Sequence[str],
        input_shape: str | Mapping[str, Sequence[int | None]],
        data_types: str | Sequence[str],
        *,
        batch_num: int | None = None,
        max_divergence: float | None = None,
    ) -> None:
        """Finds the files.

        Args:
            data_dir: a folder per input, as a list or ``"dir1/;dir2/"``; each file in it holds one batch, and file i of
                every folder, sorted by name, belongs to batch i.
            input_shape: per input its shape, as a dictionary or ``"name1:n,h,w,c;name2:..."``; names may end in ``:0``.
            data_types: the type of the values per input, as a list or ``"float32;int32"``.
            batch_num: how many batches to calibrate with; all, unless it is given.
            max_divergence: how far outputs may move from those of the original model; ``metric_eval`` needs it. Of
                probabilities it is their KL divergence in nats; of other floats, the squared error divided by the
                squared reference; of anything else, the share of values that differ.

        Raises:
            ArgumentTypeError: an argument has the wrong type.
            ArgumentValueError: an argument holds a wrong value, or they do not belong together.
            DatasetError: a folder does not exist or holds no file, folders hold different numbers of files, or fewer
                than ``batch_num``.
        """
        shapes = parse_input_shapes(input_shape) if isinstance(input_shape, str) else input_shape
        if not isinstance(shapes, Mapping):
            raise ArgumentTypeError(f"GraphEvaluator: input_shape must be str or dict, not {type(shapes).__name__}.")
        inputs = {full_tensor_name(name): shape for name, shape in shapes.items()}
        folders, types = _parts("data_dir", data_dir), _parts("data_types", data_types)
        self._batches = RawBatches(inputs, folders, types)
        self._calibration = self._batches if batch_num is None else RawBatches(inputs, folders, types, batch_num)
        self._max_divergence = max_divergence

    def calibration(self, graph: tf.Graph, outputs: list[str]) -> None:
        """Runs the first batches; ``outputs`` are names of operators or of tensors."""
        fetches = fetches_to_calibrate(graph, list(map(full_tensor_name, outputs)))
        for _ in self._run(graph, fetches, "calibration", self._calibration):
            pass

    def evaluate_share(self, graph: tf.Graph, outputs: list[str], share: Share) -> Any:
        """Returns the outputs for the batches of a share, which have to fit into memory."""
        quantized = any(operation.type.startswith("Ascend") for operation in graph.get_operations())
        title = "quantized model" if quantized else "original model"
        return list(self._run(graph, list(map(full_tensor_name, outputs)), title, self._batches, share))

    def join_shares(self, results: Sequence[Sequence[Sequence[np.ndarray]]]) -> ModelOutputs:
        """Returns the values of the outputs for all batches."""
        return ModelOutputs([batch for result in results for batch in result])

    def metric_eval(self, original_metric: ModelOutputs, new_metric: ModelOutputs) -> tuple[bool, float]:
        """Returns whether the divergence from the outputs of the original model is small enough, and the divergence.

        Raises:
            EvaluatorError: ``max_divergence`` was not given.
        """
        if self._max_divergence is None:
            raise EvaluatorError(
                "GraphEvaluator has no labels to judge a model by. Say with max_divergence how far its outputs may "
                "move, or derive from it and override evaluate and metric_eval."
            )
        divergence = Divergence(len(original_metric.batches[0]))
        for expected, actual in zip(original_metric.batches, new_metric.batches, strict=True):
            divergence.add(expected, actual)
        return divergence.value <= self._max_divergence, divergence.value

    def identity(self) -> Mapping[str, Any]:
        """Returns the files by name and size, so that a run is not resumed with others."""
        return {
            "dataset": {
                name: [[Path(file).name, Path(file).stat().st_size] for file in files]
                for name, files in self._batches.files().items()
            },
            "calibration batches": len(self._calibration),
            "largest divergence": self._max_divergence,
        }

    def _run(
        self, graph: tf.Graph, fetches: Sequence[Any], title: str, batches: RawBatches, share: Share = WHOLE
    ) -> Iterator[list[Any]]:
        """Yields per batch the values of what is fetched."""
        _check_inputs(graph, list(batches.files()))
        with graph.as_default():
            initialize = tf.compat.v1.global_variables_initializer()
        indices = share.of(len(batches))
        with (
            GraphRunner(graph, run_often=True) as runner,
            ProgressBar(title, len(indices), "batches") as progress,
        ):
            runner.run(initialize)
            for index in indices:
                yield runner.run(fetches, batches.read(index))
                progress.update()


def _check_inputs(graph: tf.Graph, names: Sequence[str]) -> None:
    """Checks that a model has every input for which there is data; TensorFlow itself misses other inputs."""
    inputs = [each.outputs[0].name for each in graph.get_operations() if each.type.startswith("Placeholder")]
    unknown = [name for name in names if name not in inputs]
    if unknown:
        raise EvaluatorError(
            f"input_shape names {', '.join(unknown)}, but the inputs of the model are {', '.join(inputs) or 'none'}. "
            "Correct the name."
        )


def _parts(argument: str, value: str | Sequence[str]) -> list[str]:
    """Returns the parts of an argument, which is a list or a text with semicolons."""
    parts = split_parts(value) if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise ArgumentTypeError(f"GraphEvaluator: {argument} must be str, or a list of str.")
    return [part.strip() for part in parts if part.strip()]
