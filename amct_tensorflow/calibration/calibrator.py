"""One calibration: taps feed it from the caller's session, and after the last batch it has factors for every layer."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import tensorflow as tf

from amct_tensorflow.algorithms.activation_factors import ActivationFactors, round_through_float16
from amct_tensorflow.algorithms.arq import arq_scales
from amct_tensorflow.algorithms.distribution import Distribution, Observation
from amct_tensorflow.calibration.comparison import Comparison
from amct_tensorflow.calibration.layer_effects import Batch, LayerAnalyser, LayerAnalysis, LayerEffects
from amct_tensorflow.calibration.replay_sources import Source, replay_sources
from amct_tensorflow.calibration.taps import attach_tap
from amct_tensorflow.config.schema import QuantConfig, TensorQuantize
from amct_tensorflow.errors import AmctError, CalibrationError, ConfigValueError
from amct_tensorflow.graph.float_model import FloatModel
from amct_tensorflow.graph.fusion import FusedGraph, FusedLayer
from amct_tensorflow.graph.view import GraphView, attribute, full_tensor_name
from amct_tensorflow.log import log_for
from amct_tensorflow.quantized.plan import QuantizationPlan
from amct_tensorflow.record.layer_factors import LayerFactors


@dataclass(frozen=True, eq=False)
class CalibrationResult:
    """What a calibration found.

    Attributes:
        factors: per layer name, its factors; per ``op:input`` of tensor_quantize, those of the tensor.
        corrections: per layer name, what to add to its bias, float64 [Cout]; layers without one are left out.
        analyses: per layer name, what a search wants to know; empty if none follows.
        batches: per calibration batch, the values of the tensors from which the outputs follow, by full tensor name;
            empty if no search follows.
    """

    factors: dict[str, LayerFactors]
    corrections: dict[str, np.ndarray]
    analyses: dict[str, LayerAnalysis]
    batches: tuple[Batch, ...] = ()

    @property
    def images(self) -> int | None:
        """Number of calibration images; None if the batches were not kept, or do not tell it."""
        lengths = [{len(value) if value.ndim else 0 for value in batch.values()} for batch in self.batches]
        if not lengths or any(len(each) != 1 or 0 in each for each in lengths):
            return None
        return sum(min(each) for each in lengths)

    def plan(self, fused: FusedGraph, outputs: Sequence[str]) -> QuantizationPlan:
        """Returns how to quantize a model that is fused as it was calibrated."""
        return QuantizationPlan(fused, self.factors, self.corrections, outputs)


class Calibrator:
    """Collects ``batch_num`` batches of a live graph, then computes factors, corrections and similarities.

    Attributes:
        fused: the float model after fusion, whose layers are calibrated.
        result: the findings; None until the last batch has been seen.
        error: what went wrong inside the caller's session, where TensorFlow would turn it into text; else None.
    """

    def __init__(
        self,
        model: FloatModel,
        config: QuantConfig,
        on_complete: Callable[[CalibrationResult], None],
        *,
        for_search: bool = False,
        comparison: Comparison | None = None,
    ) -> None:
        """Edits the model's graph: adds a tap to each enabled layer, and what keeps the inputs of the replay.

        Args:
            model: the float model.
            config: which layers to calibrate, and how.
            on_complete: called with the result, still inside the caller's session.
            for_search: whether a search follows, which needs to know what quantization does to each layer, and the
                batches from which the outputs can be computed.
            comparison: a user's sensitivity to tell it by; None for the cosine similarity.

        Raises:
            CalibrationError: weights hold NaN or Inf.
            ConfigValueError: a tensor of tensor_quantize cannot be quantized.
        """
        self.result: CalibrationResult | None = None
        self.error: Exception | None = None
        self._config = config
        self._for_search = for_search
        self._comparison = comparison
        self._on_complete = on_complete
        self._lock = threading.Lock()
        self.fused = model.fuse(config.unfused_layers())
        _check_tensors(config.tensor_quantize, model.view, self.fused)
        self._layers = {name: self.fused.layers[name] for name in config.enabled_layers()}
        self._scale_w = {name: self._weight_scales(layer) for name, layer in self._layers.items()}
        self._searches = {name: config.layers[name].activation for name in self._layers}
        self._searches.update({tensor.key: tensor.activation for tensor in config.tensor_quantize})
        self._observations = {key: Observation() for key in self._searches}
        self._batches = dict.fromkeys(self._searches, 0)
        self._activations: dict[str, ActivationFactors] = {}
        self._kept: dict[str, list[np.ndarray]] = {}
        self._kept_for_outputs: dict[str, list[np.ndarray]] = {}
        self._analyser: LayerAnalyser | None = None
        self._is_complete = False
        if for_search or config.bias_correction:
            self._prepare_replay(model)
        self._attach_observers(model)

    def check_complete(self) -> CalibrationResult:
        """Returns the result.

        Raises:
            AmctError: what stopped the calibration.
            CalibrationError: too few batches were run.
        """
        if self.error is not None:
            raise self.error
        if self.result is None:
            raise CalibrationError(self._what_is_missing())
        if not self._for_search:
            return self.result
        # What only the outputs need may arrive after the last layer has been seen.
        complete = {
            tensor: values
            for tensor, values in {**self._kept, **self._kept_for_outputs}.items()
            if len(values) == self._config.batch_num
        }
        return replace(self.result, batches=self._batches_of(complete))

    def _batches_of(self, kept: Mapping[str, list[np.ndarray]]) -> tuple[Batch, ...]:
        """Turns the values of each tensor into the tensors of each batch."""
        return tuple({name: values[index] for name, values in kept.items()} for index in range(self._config.batch_num))

    def _what_is_missing(self) -> str:
        layer = min(self._batches, key=lambda name: self._batches[name])
        if self._batches[layer] < self._config.batch_num:
            return (
                f"Calibration needs {self._config.batch_num} batches, but layer {layer!r} saw {self._batches[layer]}. "
                "Run the model's outputs at least batch_num times in calibration(), in a session on the graph given."
            )
        tensor = min(self._kept, key=lambda name: len(self._kept[name]))
        return (
            f"Tensor {tensor!r} was not computed in every calibration batch. Feed the model at its placeholders, not "
            "at a tensor between them and the quantized layers."
        )

    def _weight_scales(self, layer: FusedLayer) -> tuple[float, ...]:
        if layer.weights is None:
            return ()
        channel_wise = self._config.layers[layer.name].weights.channel_wise
        return tuple(arq_scales(layer.name, layer.op_type, layer.weights, channel_wise).tolist())

    def _prepare_replay(self, model: FloatModel) -> None:
        """Prepares to compute the layers again, and keeps the tensors from which that is done."""
        graph = model.graph
        inputs = {name: layer.input for name, layer in self._layers.items()}
        sources = replay_sources(graph, model.view, inputs)
        if self._for_search:
            known = {source.tensor for source in sources}
            for source in replay_sources(graph, model.view, inputs, model.outputs):
                if source.tensor not in known:
                    self._attach_keeper(graph, source, self._kept_for_outputs)
        layers = [layer for name, layer in self.fused.layers.items() if name in self._layers]
        tensors = {source.tensor: graph.get_tensor_by_name(source.tensor) for source in sources}
        self._analyser = LayerAnalyser(self.fused, layers, tensors)
        for source in sources:
            self._attach_keeper(graph, source, self._kept)

    def _attach_keeper(self, graph: tf.Graph, source: Source, kept: dict[str, list[np.ndarray]]) -> None:
        kept[source.tensor] = []
        attach_tap(graph, source.reader, source.tensor, partial(self._keep, kept, source.tensor))

    def _attach_observers(self, model: FloatModel) -> None:
        for name, layer in self._layers.items():
            attach_tap(model.graph, name, full_tensor_name(layer.input), partial(self._observe, name))
        for tensor in self._config.tensor_quantize:
            text = model.view.nodes[tensor.layer_name].input[tensor.input_index]
            attach_tap(model.graph, tensor.layer_name, full_tensor_name(text), partial(self._observe, tensor.key))

    def _keep(self, kept: Mapping[str, list[np.ndarray]], tensor: str, value: np.ndarray) -> None:
        """Keeps a source tensor of the replay; batches beyond ``batch_num`` do not count."""
        values = kept.get(tensor)
        if values is not None and len(values) < self._config.batch_num:
            values.append(np.array(value))
            self._finish_if_complete()

    def _observe(self, layer: str, batch: np.ndarray) -> None:
        """Takes the input of a layer; batches beyond ``batch_num`` and empty ones do not count."""
        if self._batches[layer] >= self._config.batch_num or batch.size == 0:
            return
        if not self._observations[layer].add(batch):
            self.error = CalibrationError(
                f"The activations of layer {layer!r} have invalid value inf or nan. Check the calibration data and "
                "its preprocessing, or set the layer's quant_enable to false."
            )
            raise self.error
        self._batches[layer] += 1
        if self._batches[layer] == self._config.batch_num:
            distribution = self._observations.pop(layer).distribution()
            self._activations[layer] = self._search(layer, distribution)
            self._finish_if_complete()

    def _search(self, name: str, distribution: Distribution) -> ActivationFactors:
        activation = self._searches[name]
        factors = activation.algorithm.search(distribution, activation.asymmetric)
        if self._config.fakequant_precision_mode == "FORCE_FP16_QUANT":
            factors = ActivationFactors(round_through_float16(factors.scale), factors.offset)
        log_for("calibration").debug(
            "Layer %s: scale_d %.9g, offset_d %d, inputs in [%g, %g].",
            name, factors.scale, factors.offset, distribution.lowest, distribution.highest,
        )  # fmt: skip
        return factors

    def _finish_if_complete(self) -> None:
        """Starts the analysis when the last tap, whichever that is, has seen its last batch."""
        with self._lock:
            kept = all(len(values) == self._config.batch_num for values in self._kept.values())
            if self._is_complete or not kept or len(self._activations) < len(self._searches):
                return
            self._is_complete = True
        try:
            self.result = self._finish()
            self._on_complete(self.result)
        except AmctError as error:
            self.error = error
            raise
        finally:
            if not self._for_search:
                self._kept.clear()

    def _finish(self) -> CalibrationResult:
        layer_factors = {
            name: LayerFactors(
                scale_d=self._activations[name].scale,
                offset_d=self._activations[name].offset,
                scale_w=self._scale_w[name],
                skip_fusion=layer.batch_norm_kept,
            )
            for name, layer in self._layers.items()
        }
        tensor_factors = {
            tensor.key: LayerFactors(self._activations[tensor.key].scale, self._activations[tensor.key].offset)
            for tensor in self._config.tensor_quantize
        }
        effects = LayerEffects({}, {}) if self._analyser is None else self._replay(self._analyser, layer_factors)
        return CalibrationResult({**layer_factors, **tensor_factors}, effects.corrections, effects.analyses)

    def _replay(self, analyser: LayerAnalyser, factors: Mapping[str, LayerFactors]) -> LayerEffects:
        batches = self._batches_of(self._kept)
        log_for("calibration").info(
            "Measuring what quantization does to each of %d layers on %d calibration batches.",
            len(factors), len(batches),
        )  # fmt: skip
        return analyser.analyse(
            factors,
            batches,
            bias_correction=self._config.bias_correction,
            for_search=self._for_search,
            comparison=self._comparison,
        )


def _check_tensors(tensors: Iterable[TensorQuantize], view: GraphView, fused: FusedGraph) -> None:
    """Checks, before any data is run, that every tensor of tensor_quantize can be quantized in the end.

    Raises:
        ConfigValueError: one vanishes in a fusion, is not float32, or belongs to a loop.
    """
    kept = {node.name: node.op for node in fused.graph_def.node}
    for tensor in tensors:
        node = view.nodes[tensor.layer_name]
        if kept.get(node.name) != node.op:
            problem = "is folded into the layer before it, which is quantized anyway"
        elif attribute(node, "T").type != tf.float32.as_datatype_enum:
            problem = f"computes {tf.dtypes.as_dtype(attribute(node, 'T').type).name}; only float32 can be quantized"
        elif node.name in view.loop_nodes:
            problem = "runs inside a loop, any number of times per batch, and cannot be calibrated"
        else:
            continue
        raise ConfigValueError(f"tensor_quantize names {node.name!r} ({node.op}), which {problem}. Delete it.")
