"""What quantization does to each layer on its own, measured on the calibration data.

Each layer is computed twice from the same *float* input: in float, and exactly as the saved model will compute it. The
mean of the difference per output channel is what local bias correction adds to the bias; how similar the two outputs
are is the layer's sensitivity (spec section 6.2). Neither depends on which other layers are quantized.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from amct_tensorflow.calibration.channel_sums import ChannelSums, OutputCorrection
from amct_tensorflow.calibration.comparison import Comparison, compare
from amct_tensorflow.calibration.replay import Batch, Replay
from amct_tensorflow.config.schema import QuantConfig
from amct_tensorflow.graph.fusion import FusedGraph, FusedLayer
from amct_tensorflow.graph.view import full_tensor_name
from amct_tensorflow.quantized.builder import FLOAT_SCOPE, local_quantized_graph
from amct_tensorflow.quantized.plan import QuantizationPlan
from amct_tensorflow.record.layer_correction import LayerCorrection
from amct_tensorflow.record.layer_factors import LayerFactors

# Of the images of a part, each layer is measured on as many as keep its input and output below this many values: all of
# them where feature maps are small, one where a single image already gives thousands of positions per channel.
SAMPLE_LIMIT = 1 << 17


@dataclass(frozen=True)
class LayerAnalysis:
    """What a search wants to know of one layer.

    Attributes:
        similarity: how alike its float and quantized outputs are: the cosine similarity of all calibration images at
            once, or the mean over the images of what a user's sensitivity said of the parts they came in.
        multiply_accumulates: how many the layer took for all calibration batches; 0 for a layer without weights.
    """

    similarity: float
    multiply_accumulates: int


@dataclass(frozen=True, eq=False)
class LayerEffects:
    """What quantization does to the layers.

    Attributes:
        corrections: per layer name, what brings it closer to the float one, the integers of its weights included; none
            for a layer of which there is nothing to correct.
        analyses: per layer name, what a search wants to know; empty if none follows.
    """

    corrections: dict[str, LayerCorrection]
    analyses: dict[str, LayerAnalysis]


class LayerAnalyser:
    """Computes every layer of the float model once more, quantized, beside the float one."""

    def __init__(self, replay: Replay, fused: FusedGraph, layers: Sequence[FusedLayer]) -> None:
        """Takes what runs the float model, the model, and the layers to analyse, in topological order."""
        self._replay = replay
        self._fused = fused
        self._layers = layers

    def analyse(
        self,
        factors: Mapping[str, LayerFactors],
        weights: Mapping[str, np.ndarray],
        parts: Sequence[Batch],
        *,
        config: QuantConfig,
        for_search: bool,
        comparison: Comparison | None = None,
    ) -> LayerEffects:
        """Measures every layer; can be called once.

        Args:
            factors: per layer name, its factors.
            weights: per layer name, the integers of its weights; layers without are rounded to the nearest.
            parts: the calibration batches, cut into parts; see ``Replay``.
            config: says what is corrected; the similarity then is that of the corrected layer.
            for_search: whether to analyse the layers for a search.
            comparison: a user's sensitivity, for which everything runs a second time, since the correction must be
                known before; None for the cosine similarity, which follows from sums.

        Raises:
            EvaluatorError: the sensitivity failed, or returned something else than a number.
        """
        rounded = {name: LayerCorrection(weights=integers) for name, integers in weights.items()}
        probes = {layer.name: _Probe(layer, config) for layer in self._layers}
        quantized = self._import_quantized(QuantizationPlan(self._fused, factors, rounded, ()))
        operations = self._attach(probes, quantized)
        self._run(operations, parts)
        if comparison is not None:
            for probe in probes.values():
                probe.compare_by(comparison)
            self._run(operations, parts)
        corrections = {name: replace(probe.correction, weights=weights.get(name)) for name, probe in probes.items()}
        return LayerEffects(
            {name: correction for name, correction in corrections.items() if correction.parts()},
            {name: probe.analysis() for name, probe in probes.items()} if for_search else {},
        )

    def _run(self, operations: Sequence[tf.Operation], parts: Sequence[Batch]) -> None:
        for part in parts:
            self._replay.run(operations, part)

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
        for layer in self._layers:
            tensor = full_tensor_name(layer.input)
            shapes = [self._replay.tensor(name).shape[1:] for name in (tensor, f"{layer.tail}:0")]
            if layer.op.is_told_its_output_shape or not all(shape.is_fully_defined() for shape in shapes):
                whole.add(tensor)
                continue
            largest = max(shape.num_elements() for shape in shapes)
            images[tensor] = min(images.get(tensor, SAMPLE_LIMIT), max(SAMPLE_LIMIT // max(largest, 1), 1))
        return {tensor: count for tensor, count in images.items() if tensor not in whole}

    def _attach(self, probes: Mapping[str, "_Probe"], quantized: Mapping[str, tf.Tensor]) -> list[tf.Operation]:
        """Adds a probe per layer; each layer waits for the one before, so that few tensors are alive at a time."""
        operations: list[tf.Operation] = []
        for name, probe in probes.items():
            if operations:
                self._replay.let_wait(name, operations[-1])
            original = self._replay.tensor(f"{probe.layer.tail}:0")
            operations.append(self._replay.look_at([original, quantized[name]], probe.look))
        return operations


class _Probe:
    """Measures the two outputs of one layer, part by part.

    Attributes:
        layer: the layer.
    """

    def __init__(self, layer: FusedLayer, config: QuantConfig) -> None:
        self.layer = layer
        has_weights = layer.weights is not None
        self._shifts = config.bias_correction and has_weights
        self._gains = config.gain_correction and has_weights
        self._sums = ChannelSums(layer.channels)
        self._positions = 0
        self._comparison: Comparison | None = None
        self._similarity = 0.0
        self._images = 0

    def compare_by(self, comparison: Comparison) -> None:
        """From now on the layer, with its correction, is compared; everything has been measured once before."""
        self._comparison = comparison

    def look(self, original: np.ndarray, quantized: np.ndarray) -> None:
        """Takes the outputs of a part; ``quantized`` may be of fewer images than ``original``."""
        if self._comparison is None:
            self._positions += original.size // self.layer.channels
            weight = len(original) / max(len(quantized), 1)
            self._sums.add(self._channels_last(original[: len(quantized)]), self._channels_last(quantized), weight)
        else:
            self._compare(self._comparison, original, quantized)

    @property
    def correction(self) -> LayerCorrection:
        """What brings the layer closer to the float one, as all parts say together."""
        found = self._found()
        return LayerCorrection(found.shift if self._shifts else None, found.gain if self._gains else None)

    def _found(self) -> OutputCorrection:
        return self._sums.correction(gain=self._gains, shift=self._shifts)

    def analysis(self) -> LayerAnalysis:
        """Returns what all parts say together."""
        if self._comparison is None:
            similarity = self._sums.similarity(self._found())
        else:
            similarity = self._similarity / max(self._images, 1)
        return LayerAnalysis(similarity, self._multiply_accumulates())

    def _compare(self, comparison: Comparison, original: np.ndarray, quantized: np.ndarray) -> None:
        images = len(original)
        axes = [1] * (quantized.ndim - 2) if self._is_nchw(quantized) else []
        gain, shift = (values.astype(np.float32).reshape([-1, *axes]) for values in self._found())
        quantized = gain * quantized + shift
        similarity = compare(comparison, original[: len(quantized)], quantized, f"layer {self.layer.name!r}")
        self._similarity += images * similarity
        self._images += images

    def _multiply_accumulates(self) -> int:
        """Every position of the output takes each weight once; of a transposed convolution, every one of its input."""
        if self.layer.weights is None:
            return 0
        return self._positions * self.layer.weights.size // self.layer.positions_per_weight

    def _is_nchw(self, value: np.ndarray) -> bool:
        return self.layer.data_format == "NCHW" and value.ndim == 4

    def _channels_last(self, value: np.ndarray) -> np.ndarray:
        return np.moveaxis(value, 1, -1) if self._is_nchw(value) else value
