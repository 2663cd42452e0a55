"""Measures the effect of quantizing each layer alone, on the calibration data.

Each layer is computed twice from the same *float* input: in float, and exactly as in the saved model. The similarity of
the two outputs is the layer's sensitivity (spec section 6.2). It does not depend on which other layers are quantized.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from amct_tensorflow.graph.graph_runner import Batch
from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.graph.view import full_tensor_name
from amct_tensorflow.model.fusion import FusedLayer
from amct_tensorflow.quantize.calibration.output_comparison import Comparison, OutputSums, compare
from amct_tensorflow.quantize.calibration.replay import Replay
from amct_tensorflow.quantize.quantized.builder import FLOAT_SCOPE, local_quantized_graph
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan

# Of the images of a part, each layer is measured on as many as keep its input and output below this many values: all of
# them where feature maps are small, one where a single image already gives thousands of positions per channel.
SAMPLE_LIMIT = 1 << 17


@dataclass(frozen=True)
class LayerAnalysis:
    """The measured effect of quantizing one layer.

    Attributes:
        similarity: of its float and quantized outputs: the cosine similarity over all calibration images, or the mean
            over the images of a user's sensitivity, which is asked part by part.
        multiply_accumulates: of the layer for all calibration batches; 0 for a layer that pools.
        noise: squared error of its output by its squared float value; None if the output is all zero, or an earlier run
            did not measure it.
        uncorrected_noise: the same without what was added to its bias; None also if nothing was.
    """

    similarity: float
    multiply_accumulates: int
    noise: float | None = None
    uncorrected_noise: float | None = None


class AnalysesToCome(Mapping[LayerName, LayerAnalysis]):
    """The analyses of layers that are being measured; whoever asks for one waits for all, and gets their error."""

    def __init__(self, future: Future[dict[LayerName, LayerAnalysis]]) -> None:
        """Takes the future of the analyses."""
        self._future = future

    def __getitem__(self, name: LayerName) -> LayerAnalysis:
        return self._future.result()[name]

    def __iter__(self) -> Iterator[LayerName]:
        return iter(self._future.result())

    def __len__(self) -> int:
        return len(self._future.result())


class LayerAnalyser:
    """Computes every layer both in float and quantized."""

    def __init__(self, replay: Replay, plan: QuantizationPlan) -> None:
        """Adds the quantized layers to a replay.

        Args:
            replay: runs the float model.
            plan: how the layers are quantized.
        """
        self._replay = replay
        self._fused = plan.fused
        self._layers = [layer for name, layer in plan.fused.layers.items() if name in plan.factors]
        shifts = {name: correction.bias for name, correction in plan.corrections.items()}
        self._probes = {layer.name: _Probe(layer, shifts.get(layer.name)) for layer in self._layers}
        self._operations = self._attach(self._import_quantized(plan)) if self._layers else []

    def analyse(self, parts: Sequence[Batch], comparison: Comparison | None = None) -> dict[LayerName, LayerAnalysis]:
        """Measures every layer; can be called once.

        Args:
            parts: the calibration batches, split into parts; see ``Replay``.
            comparison: a user's sensitivity; None for the cosine similarity, which follows from sums.

        Raises:
            EvaluatorError: the sensitivity failed, or returned something else than a number.
        """
        for probe in self._probes.values():
            probe.comparison = comparison
        for part in parts if self._operations else ():
            self._replay.run(self._operations, part)
        return {name: probe.analysis() for name, probe in self._probes.items()}

    def _import_quantized(self, plan: QuantizationPlan) -> dict[str, tf.Tensor]:
        """Imports every quantized layer, reading the float model's tensors; returns its output per layer name."""
        quantized, outputs = local_quantized_graph(plan)
        images = self._images_to_take()
        prefix = f"{FLOAT_SCOPE}/"
        with self._replay.graph.as_default():
            input_map = {}
            for text in {text for node in quantized.node for text in node.input if text.startswith(prefix)}:
                tensor = text.removeprefix(prefix)
                value = self._replay.tensor(tensor)
                input_map[text] = value[: images[tensor]] if tensor in images else value
            tf.import_graph_def(quantized, name="quantized", input_map=input_map)
        find = self._replay.graph.get_tensor_by_name
        return {name: find(f"quantized/{output}:0") for name, output in outputs.items()}

    def _images_to_take(self) -> dict[str, int]:
        """Returns per layer input how many images of it suffice (see ``SAMPLE_LIMIT``); absent where all are needed.

        A transposed convolution is told the shape of its output, images included, and therefore gets them all.
        """
        images: dict[str, int] = {}
        whole: set[str] = set()
        pairs: list[list[str]] = []
        for layer in self._layers:
            tensors = list(map(full_tensor_name, self._fused.operands_of(layer.name)))
            shapes = [self._replay.tensor(name).shape for name in (*tensors, self._output_of(layer.name))]
            is_known = all(shape.rank is not None and shape[1:].is_fully_defined() for shape in shapes)
            pairs.append(tensors)
            # The first axis of a second operand is that of the first operand, too, only if there are several matrices.
            is_paired = len(tensors) == 1 or (len({shape.rank for shape in shapes}) == 1 and shapes[0].rank != 2)
            if layer.op.is_told_its_output_shape or not is_known or not is_paired:
                whole.update(tensors)
                continue
            largest = max(shape[1:].num_elements() for shape in shapes)
            for tensor in tensors:
                images[tensor] = min(images.get(tensor, SAMPLE_LIMIT), max(SAMPLE_LIMIT // max(largest, 1), 1))
        counts = {tensor: count for tensor, count in images.items() if tensor not in whole}
        return _alike_in_pairs(counts, pairs)

    def _inner_length(self, name: LayerName) -> tf.Tensor:
        """Returns how many products each value of a product of two operands sums up; 0 for other layers."""
        with self._replay.graph.as_default():
            if self._probes[name].layer.op.second_input is None:
                return tf.constant(0)
            return tf.shape(self._replay.tensor(full_tensor_name(self._fused.input_of(name))))[-1]

    def _output_of(self, name: LayerName) -> str:
        return f"{self._fused.tail_of(name)}:0"

    def _attach(self, quantized: Mapping[str, tf.Tensor]) -> list[tf.Operation]:
        """Adds a probe per layer; each layer waits for the one before, so that few tensors are alive at a time."""
        operations: list[tf.Operation] = []
        self._replay.look_no_more()
        for name, probe in self._probes.items():
            if operations:
                self._replay.let_wait(name, operations[-1])
            original = self._replay.tensor(self._output_of(name))
            operations.append(
                self._replay.observe([original, quantized[name], self._inner_length(name)], probe.observe)
            )
        return operations


def _alike_in_pairs(images: Mapping[str, int], pairs: Sequence[Sequence[str]]) -> dict[str, int]:
    """Returns how many images of each tensor suffice, where the operands of a product must have equally many."""
    result, before = dict(images), None
    while result != before:
        before = dict(result)
        for pair in pairs:
            counts = [result.pop(tensor, None) for tensor in dict.fromkeys(pair)]
            known = [count for count in counts if count is not None]
            if len(known) == len(counts):
                result.update(dict.fromkeys(pair, min(known)))
    return result


class _Probe:
    """Compares the two outputs of one layer, part by part.

    Attributes:
        layer: the layer.
        comparison: a user's sensitivity to ask; None for the cosine similarity.
    """

    def __init__(self, layer: FusedLayer, shift: np.ndarray | None = None) -> None:
        """Takes a layer, and what the quantized one has added to its bias, float64 [Cout]."""
        self.layer = layer
        self.comparison: Comparison | None = None
        self._shift = shift
        self._sums = OutputSums(None if shift is None else layer.op.channel_axis(layer.data_format))
        self._positions = 0
        self._products = 0  # of two computed operands
        self._similarity = 0.0
        self._images = 0

    def observe(self, original: np.ndarray, quantized: np.ndarray, inner: np.ndarray | int = 0) -> None:
        """Takes the outputs of a part, and how many products of computed operands each value of them sums up.

        ``quantized`` may be of fewer images than ``original``.
        """
        images = len(original)
        self._positions += original.size // self.layer.channels
        self._products += original.size * int(inner)
        seen = original[: len(quantized)]
        self._sums.add(seen, quantized, images / max(len(quantized), 1))
        if self.comparison is not None:
            similarity = compare(self.comparison, seen, quantized, f"layer {self.layer.name!r}")
            self._similarity += images * similarity
            self._images += images

    def analysis(self) -> LayerAnalysis:
        """Returns what all parts say together."""
        asked = self._similarity / max(self._images, 1)
        return LayerAnalysis(
            similarity=self._sums.similarity if self.comparison is None else asked,
            multiply_accumulates=self._multiply_accumulates(),
            noise=self._sums.noise,
            uncorrected_noise=None if self._shift is None else self._sums.noise_without(self._shift),
        )

    def _multiply_accumulates(self) -> int:
        """Every position of the output takes each weight once; of a transposed convolution, every one of its input."""
        if self.layer.weights is None:
            return self._products
        return self._positions * self.layer.weights.size // self.layer.positions_per_weight
