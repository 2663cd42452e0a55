"""Calibrates the layers of a model on batches that taps in the caller's session collect.

By default all is computed in that session, when the last batch has been seen. A search asks for the result when the
session has ended, whose copies of a large model take memory. The factors of a small model are computed beside the
evaluation of the float model, which leaves processors idle now and then, and the analyses beside that of the first
quantized model.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
import tensorflow as tf
from threadpoolctl import threadpool_limits

from amct_tensorflow.errors import CalibrationError, ConfigValueError
from amct_tensorflow.graph.graph_runner import Batch
from amct_tensorflow.graph.names import LayerName, PreparedName
from amct_tensorflow.graph.view import GraphView, attribute, full_tensor_name
from amct_tensorflow.io.memory import give_memory_back
from amct_tensorflow.io.stages import counted_beside, counted_here, stage
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for
from amct_tensorflow.model.equalization import equalize
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.fusion import FusedGraph, FusedLayer
from amct_tensorflow.quantize.algorithms.activation_factors import (
    INT8_BITS,
    ActivationFactors,
    break_ties,
    round_through_float16,
    wide_range_factors,
)
from amct_tensorflow.quantize.algorithms.distribution import Distribution
from amct_tensorflow.quantize.algorithms.range_refinement import refine_range
from amct_tensorflow.quantize.algorithms.range_shape import uses_of_channels
from amct_tensorflow.quantize.algorithms.scales import arq_scales
from amct_tensorflow.quantize.algorithms.weight_steps import adapt_steps, second_step, step_for_zeros, why_no_product
from amct_tensorflow.quantize.calibration.feed import Feed
from amct_tensorflow.quantize.calibration.group_moments import GroupMoments
from amct_tensorflow.quantize.calibration.layer_analysis import AnalysesToCome, LayerAnalyser, LayerAnalysis
from amct_tensorflow.quantize.calibration.layer_moments import LayerMoments
from amct_tensorflow.quantize.calibration.observers import ActivationObservers, ActivationSummary
from amct_tensorflow.quantize.calibration.output_comparison import Comparison
from amct_tensorflow.quantize.calibration.replay import Replay
from amct_tensorflow.quantize.calibration.settling import settle_steps
from amct_tensorflow.quantize.config.schema import FORCE_FP16_QUANT, QuantConfig, TensorQuantize
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.quantize.record.factors import LayerCorrection, LayerFactors

_T = TypeVar("_T")

# Models with less than so many bytes of weights are calibrated beside the evaluation. Beside that of a larger one,
# moments and copies of weights would take gigabytes, and few processors are idle.
_SMALL_BYTES = 1 << 26


@dataclass(frozen=True, eq=False)
class CalibrationResult:
    """The findings of a calibration.

    Attributes:
        factors: per layer name, its factors; per ``op:input`` of tensor_quantize, those of the tensor.
        corrections: per layer name, its corrections; layers without any are left out.
        analyses: per layer name, the measured effect of quantization; empty if no search follows. Who asks for one may
            have to wait for it.
        batches: per calibration batch, the values of the tensors from which the outputs follow, by full tensor name;
            empty if no search follows.
        balance: per layer whose input was divided by factors, those factors; see ``equalize``.
        summaries: per layer name and per ``op:input``, a histogram of its input; empty if no search follows.
        images: number of calibration images, which is the length of the fed tensors along their first axis; None if no
            search follows, or if the fed tensors differ in it.
        unquantizable: per layer that stays in float because no factors serve it, why.
        tables: the tables that are stored in int8, by their names.
    """

    factors: dict[LayerName, LayerFactors]
    corrections: dict[LayerName, LayerCorrection]
    analyses: Mapping[LayerName, LayerAnalysis]
    batches: tuple[Batch, ...] = ()
    balance: Mapping[LayerName, tuple[float, ...]] = field(default_factory=dict)
    summaries: Mapping[LayerName, ActivationSummary] = field(default_factory=dict)
    images: int | None = None
    unquantizable: Mapping[LayerName, str] = field(default_factory=dict)
    tables: tuple[LayerName, ...] = ()

    def plan(self, fused: FusedGraph, outputs: Sequence[str]) -> QuantizationPlan:
        """Returns the plan that quantizes a model, fused as it was calibrated."""
        return QuantizationPlan(fused, self.factors, self.corrections, outputs, self.tables)


class Calibrator:
    """Collects ``batch_num`` batches of a live graph, then computes factors, corrections and similarities.

    Attributes:
        fused: the float model after fusion, whose layers are calibrated.
        result: the findings; None until the last batch has been seen.
        computes_beside: whether they are computed beside the caller's session, which then only collects the batches.
        is_small: whether the model is so small that copies of its weights do not matter.
        inputs: as of ``Feed``.
    """

    def __init__(
        self,
        model: FloatModel,
        config: QuantConfig,
        on_complete: Callable[[CalibrationResult], None],
        *,
        for_search: bool = False,
        comparison: Comparison | None = None,
        balance: Mapping[LayerName, tuple[float, ...]] | None = None,
        beside: Executor | None = None,
        overlaps: bool = False,
        inputs_do: bool = False,
    ) -> None:
        """Adds taps to the graph of ``inputs``, or of the model, that keep what the inputs of all layers follow from.

        Args:
            model: the float model.
            config: which layers to calibrate, and how.
            on_complete: called with the result, still inside the caller's session.
            for_search: whether a search follows, which needs the analyses of layers, and the batches from which the
                outputs can be computed.
            comparison: a user's sensitivity to compare outputs with; None for the cosine similarity.
            balance: per layer by what to divide its input; see ``equalize``. Without any, the groups that gain
                by it are balanced, if the configuration allows it and the outputs of the model are known.
            beside: a single thread, in which the layers of a small model are analysed from when the caller takes the
                result, which is computed only then; None if all is computed in the caller's session.
            overlaps: whether the factors of a small model are computed in that thread, too, from the last batch on.
                BLAS has one thread then, also for the caller.
            inputs_do: as for ``Feed``, if the factors are computed so.

        Raises:
            CalibrationError: weights hold NaN or Inf.
            ConfigValueError: a tensor of tensor_quantize cannot be quantized.
            ModelError: the input of a layer cannot be computed from the fed tensors.
        """
        self.result: CalibrationResult | None = None
        self._config = config
        self._for_search = for_search
        self._comparison = comparison
        self._on_complete = on_complete
        self._beside = beside
        self._actions_beside = 0
        self._to_measure: QuantizationPlan | None = None
        self._is_due = False
        self._is_stopped = False
        self._computing: Future[None] | None = None
        self._model = weakref.ref(model)
        self._outputs = model.outputs
        self.fused = model.fuse(config.unfused_layers(), balance)
        _check_tensors(config.tensor_quantize, model.view, self.fused)
        enabled = config.enabled_layers()
        self._searches = {
            key: config.layers[name].activation for name in enabled for key in self.fused.layers[name].operand_keys
        }
        self._searches.update({tensor.key: tensor.activation for tensor in config.tensor_quantize})
        nodes = {PreparedName(name): list(self.fused.operands_of(name)) for name in enabled}
        for tensor in config.tensor_quantize:
            nodes.setdefault(tensor.layer_name, []).append(_input_of(self.fused.view, tensor))
        self._nodes = nodes.keys()
        self._groups: GroupMoments | None = None
        if config.input_balancing and model.outputs and not balance:
            self._groups = GroupMoments(self.fused, model.outputs, config, self._range)
        outputs = model.outputs if for_search else ()
        scalable = self._groups.scalable if self._groups else ()
        weights = [self.fused.layers[name].weights for name in enabled]
        self.is_small = sum(0 if each is None else each.nbytes for each in weights) < _SMALL_BYTES
        self.computes_beside = beside is not None and overlaps and self.is_small
        self._feed = Feed(
            model, self.fused, nodes, config.batch_num, outputs=outputs, scalable=scalable,
            inputs_do=inputs_do and self.computes_beside,
        )  # fmt: skip
        self.inputs = self._feed.inputs
        self._prepare()
        self._splitter = self._replay.splitter(self._inputs.values(), self._layers)
        self._parts: list[Batch] = []
        self._images: int | None = 0
        self._taken: list[tuple[Batch, int | None]] = []  # which have not been looked at
        self._feed.start(self._take, counted_here(self._complete), self._release)  # called by TensorFlow's threads

    def _prepare(self) -> None:
        """Imports the fused model, and adds observers to the inputs of its layers."""
        inputs = {
            key: text
            for name, layer in self.fused.layers.items()
            if name in self._searches
            for key, text in zip(layer.operand_keys, self.fused.operands_of(name), strict=True)
        }
        inputs.update({tensor.key: _input_of(self.fused.view, tensor) for tensor in self._config.tensor_quantize})
        self._inputs = {key: full_tensor_name(text) for key, text in inputs.items()}
        self._layers = {name: self.fused.layers[name] for name in self._config.enabled_layers()}
        self._scales = {name: self._arq(layer) for name, layer in self._layers.items()}
        tails = [self.fused.tail_of(name) for name in self._layers]
        self._replay = Replay(self.fused, [*tails, *self._nodes], self._feed.tensors)
        self._replay.is_stopped = self._is_stopped
        observers = {} if self._groups is None else self._groups.observers
        axes = {name: layer.input_channels.axis for name, layer in self._layers.items() if layer.input_channels}
        self._observers = ActivationObservers(self._replay, self._inputs, observers, axes if self._for_search else {})

    @stage("calibrating: balancing channels")
    def _balance(self) -> None:
        """Balances the equalization groups that gain by it, and then observes anew what layers read of them."""
        balance = {} if self._groups is None else self._groups.balance()
        self._groups = None
        if balance:
            log_for("calibration").info(
                "The channels of what %s lose less to rounding if they are balanced: %s",
                plural(len(balance), "layer", "reads", "read"), ", ".join(balance),
            )  # fmt: skip
            observers = self._observers
            self._let_go()
            self.fused = self._equalize(balance)
            self._prepare()
            self._observers.take_over(observers, {tensor.node for tensor in self.fused.divided})
            self._observers.observe(self._parts)

    def _equalize(self, balance: Mapping[LayerName, tuple[float, ...]]) -> FusedGraph:
        """Returns the model as balanced; whoever goes on with it, as a search does, finds it so without more work."""
        model = self._model()
        if model is None:
            return equalize(self.fused, balance, self._outputs)
        return model.fuse(self._config.unfused_layers(), balance)

    @property
    def error(self) -> Exception | None:
        """The error inside the caller's session, which TensorFlow would turn into text; None without one."""
        return self._feed.error

    def check_fed(self) -> None:
        """Checks that all batches were run.

        Raises:
            AmctError: what stopped the calibration.
            CalibrationError: too few batches were run.
        """
        if self.error is not None:
            raise self.error
        if self.result is None:
            self._feed.batches.check_complete()

    def check_complete(self) -> CalibrationResult:
        """Returns the result; computes it, or waits for it, if it is not computed in the caller's session.

        Raises:
            AmctError: what stopped the calibration.
            CalibrationError: too few batches were run.
        """
        self.check_fed()
        if self._computing is not None:
            self._computing.result()
        if self._is_due:
            self._compute_now()
        assert self.result is not None  # it follows the last batch
        if not self._for_search:
            return self.result
        if self._to_measure is not None:
            measure = partial(self._measure, self._to_measure)
            self._to_measure = None
            self.result = replace(self.result, analyses=AnalysesToCome(self._start_beside(measure)))
        # What only the outputs need may arrive after the last layer has been seen.
        return replace(self.result, batches=self._feed.batches.batches(), images=self._images)

    def stop(self) -> None:
        """Ends soon what is computed beside the caller, whose result nobody wants any more."""
        self._is_stopped = True
        replay = self.__dict__.get("_replay")  # another one may be made, or this one freed, in the meantime
        if replay is not None:
            replay.is_stopped = True

    def _arq(self, layer: FusedLayer) -> np.ndarray | None:
        """Returns the ARQ scales of a layer's weights."""
        if layer.weights is None:
            return None
        channel_wise = self._config.layers[layer.name].weights.channel_wise
        return arq_scales(layer.name, layer.op_type, layer.weights, channel_wise)

    def _take(self, batch: Batch, images: int | None) -> None:
        self._images = None if images is None or self._images is None else self._images + images
        self._taken.append((batch, images))
        if self._beside is None:
            self._look()

    @stage("calibrating: observing activations")
    def _look(self) -> None:
        """Observes the batches that were taken."""
        for batch, images in self._taken:
            parts = self._splitter.split(batch, images)
            self._observers.observe(parts)
            self._parts.extend(parts)
        self._taken.clear()

    def _complete(self) -> None:
        if self.computes_beside:
            self._computing = self._start_beside(self._compute)
        elif self._beside is not None:
            self._is_due = True
        else:
            self._compute()

    def _compute_now(self) -> None:
        """Computes the result behind the caller's session, whose memory is free again."""
        give_memory_back()
        try:
            self._compute()
        finally:
            self._is_due = False
            self._release()
            give_memory_back()

    def _compute(self) -> None:
        with _one_thread_of_blas():
            self._look()
            self._balance()
            self.result = self._finish()
        if not self._for_search:
            self._feed.batches.forget()
        self._on_complete(self.result)

    def _start_beside(self, action: Callable[[], _T]) -> Future[_T]:
        """Begins with an action beside the caller; behind the last one, all is freed."""
        assert self._beside is not None
        self._actions_beside += 1

        def act() -> _T:
            try:
                return action()
            finally:
                self._actions_beside -= 1
                self._release()

        return self._beside.submit(counted_beside(act))

    def _release(self) -> None:
        """Frees what is not needed any more, unless there is something to do beside the caller, which needs it."""
        if not self._actions_beside and self._to_measure is None and not self._is_due:
            self._let_go()
            for name in ("_parts", "_taken", "_on_complete", "_beside"):
                self.__dict__.pop(name, None)

    def _let_go(self) -> None:
        """Frees the graph that is run again, and what holds it; an error may come before there is another."""
        replay = self.__dict__.pop("_replay", None)
        if replay is not None:
            replay.close()
        for name in ("_observers", "_splitter"):
            self.__dict__.pop(name, None)

    @stage("calibrating: choosing factors")
    def _finish(self) -> CalibrationResult:
        activations: dict[LayerName, ActivationFactors] = {}
        summaries: dict[LayerName, ActivationSummary] = {}
        for name in self._searches:
            distribution = self._observers.distribution(name)
            activations[name] = self._search(name, distribution)
            if self._for_search:
                layer = self._layers.get(name)
                uses = None if layer is None else uses_of_channels(layer.op, layer.weights)
                summaries[name] = self._observers.summary(name, distribution, uses)
        layer_factors, unquantizable = self._layer_factors(activations)
        del self._observers  # they hold a histogram of each tensor
        if not self.is_small:
            give_memory_back()  # before moments take it
        tensor_factors = {
            tensor.key: _tensor_factors(activations[tensor.key]) for tensor in self._config.tensor_quantize
        }
        layers = [layer for name, layer in self.fused.layers.items() if name in layer_factors]
        moments = LayerMoments(self._replay, self.fused, layers, layer_factors, self._config)
        corrections = moments.corrections(self._parts)
        layer_factors = settle_steps(self.fused, layer_factors, corrections)
        analyses = self._analyse(layer_factors, corrections)
        return CalibrationResult(
            {**layer_factors, **tensor_factors},
            corrections,
            analyses,
            balance=self.fused.balance,
            summaries=summaries,
            unquantizable=unquantizable,
            tables=self._config.compressed_tables(),
        )

    def _layer_factors(
        self, activations: Mapping[LayerName, ActivationFactors]
    ) -> tuple[dict[LayerName, LayerFactors], dict[LayerName, str]]:
        """Returns the factors of the layers, and why those without have none.

        Raises:
            CalibrationError: there is nothing left to quantize.
        """
        factors: dict[LayerName, LayerFactors] = {}
        unquantizable: dict[LayerName, str] = {}
        for name, layer in self._layers.items():
            activation = activations[name]
            scale_w = self._scale_w(layer, activations)
            if isinstance(scale_w, str):
                unquantizable[name] = scale_w
                log_for("calibration").warning("Layer %s stays in float: %s.", name, scale_w)
            else:
                factors[name] = LayerFactors(
                    activation.scale, activation.offset, scale_w, layer.batch_norm_kept, activation.num_bits
                )
        if not factors and not self._config.tensor_quantize:
            first, reason = next(iter(unquantizable.items()))
            raise CalibrationError(
                f"No layer can be quantized; that of {first!r}: {reason}. Check weights and biases of the model."
            )
        return factors, unquantizable

    def _scale_w(
        self, layer: FusedLayer, activations: Mapping[LayerName, ActivationFactors]
    ) -> tuple[float, ...] | str:
        """Returns the steps of weights, or of a second operand; none for a layer with neither; or why none serve."""
        first, scales = activations[layer.name], self._scales[layer.name]
        for key in layer.operand_keys[1:]:
            second = second_step(first.scale, activations[key].scale)
            inner = self._observers.longest_rows(layer.name)
            return why_no_product(first.scale, second, inner) or (second,)
        if scales is None:
            return ()
        steps = adapt_steps(layer, first.scale, scales, first.num_bits)
        if steps.failure is None and steps.remark is not None:
            log_for("calibration").info("Layer %s: %s.", layer.name, steps.remark)
        return steps.failure or tuple(steps.scales.tolist())

    def _range(self, name: LayerName, distribution: Distribution) -> ActivationFactors:
        """Returns the factors whose range suits what a layer reads best."""
        activation = self._searches[name]
        if activation.num_bits != INT8_BITS:
            return wide_range_factors(distribution.lowest, distribution.highest)
        factors = activation.algorithm.search(distribution, activation.asymmetric)
        if self._config.range_refinement:
            factors = refine_range(distribution, factors, activation.asymmetric)
        return break_ties(distribution, factors)

    def _search(self, name: LayerName, distribution: Distribution) -> ActivationFactors:
        factors = self._range(name, distribution)
        if distribution.lowest == distribution.highest == 0:
            factors = factors_of_nothing(factors, self._layers.get(name), self._scales.get(name))
        factors = in_precision(factors, self._config, name)
        log_for("calibration").debug(
            "Layer %s: scale_d %.9g, offset_d %d, %d bits, inputs in [%g, %g].",
            name, factors.scale, factors.offset, factors.num_bits, distribution.lowest, distribution.highest,
        )  # fmt: skip
        return factors

    def _analyse(
        self, factors: Mapping[LayerName, LayerFactors], corrections: Mapping[LayerName, LayerCorrection]
    ) -> dict[LayerName, LayerAnalysis]:
        """Measures the layers if a search follows; of a small model, beside the caller when it takes the result."""
        if not self._for_search:
            return {}
        plan = QuantizationPlan(self.fused, factors, corrections, ())
        if self._beside is None or not self.is_small:
            return self._measure(plan)
        self._to_measure = plan
        return {}

    @stage("calibrating: measuring each layer")
    def _measure(self, plan: QuantizationPlan) -> dict[LayerName, LayerAnalysis]:
        """Measures the layers; BLAS is left as it is, as it takes one thread for what is asked of it here."""
        log_for("calibration").info(
            "Measuring what quantization does to each of %s; calibration batches: %d.",
            plural(len(plan.factors), "layer"), self._config.batch_num,
        )  # fmt: skip
        return LayerAnalyser(self._replay, plan).analyse(self._parts, self._comparison)


def _one_thread_of_blas() -> AbstractContextManager[object]:
    """Keeps BLAS from threads: they spin when a product is done, and would take the cores from TensorFlow."""
    limits: AbstractContextManager[object] = threadpool_limits(limits=1, user_api="blas")
    return limits


def factors_of_nothing(
    factors: ActivationFactors, layer: FusedLayer | None, scales: np.ndarray | None
) -> ActivationFactors:
    """Returns the factors of an input at which nothing but 0 was seen, with the step that suits its reader.

    Args:
        factors: those of a range of nothing.
        layer: the layer that reads it; None for another op.
        scales: the steps of its weights; None without.
    """
    return factors if layer is None or scales is None else replace(factors, scale=step_for_zeros(layer, scales))


def in_precision(factors: ActivationFactors, config: QuantConfig, name: str) -> ActivationFactors:
    """Returns the factors with a scale that float16 holds, if the configuration asks for it and there is one."""
    if config.fakequant_precision_mode != FORCE_FP16_QUANT:
        return factors
    rounded = round_through_float16(factors.scale)
    if rounded is None:
        log_for("calibration").warning(
            "Layer %s: float16 holds neither its scale_d, %.9g, nor the square root; it stays as it is.",
            name, factors.scale,
        )  # fmt: skip
        return factors
    return replace(factors, scale=rounded)


def _tensor_factors(activation: ActivationFactors) -> LayerFactors:
    return LayerFactors(activation.scale, activation.offset, num_bits=activation.num_bits)


def _input_of(view: GraphView, tensor: TensorQuantize) -> str:
    return str(view.nodes[tensor.layer_name].input[tensor.input_index])


def _check_tensors(tensors: Iterable[TensorQuantize], view: GraphView, fused: FusedGraph) -> None:
    """Checks before any data is run that every tensor of tensor_quantize can be quantized.

    Raises:
        ConfigValueError: one vanishes in a fusion, is not float32, or belongs to a loop or a branch.
    """
    kept = {node.name: node.op for node in fused.graph_def.node}
    for tensor in tensors:
        node = view.nodes.get(tensor.layer_name)
        if node is None or tensor.input_index >= len(node.input):
            raise ConfigValueError(
                f"tensor_quantize names input {tensor.key!r}, which the model does not need: it passes its input on, "
                "follows from constants, or belongs to a branch that is never taken. Delete it."
            )
        if kept.get(node.name) != node.op:
            problem = "is folded into the layer before it, which is quantized anyway"
        elif attribute(node, "T").type != tf.float32.as_datatype_enum:
            problem = f"computes {tf.dtypes.as_dtype(attribute(node, 'T').type).name}; only float32 can be quantized"
        elif node.name in view.loop_nodes:
            problem = "runs inside a loop, any number of times per batch, and cannot be calibrated"
        elif node.name in view.branch_nodes:
            problem = "stands in a branch, which calibration may not take"
        else:
            continue
        raise ConfigValueError(f"tensor_quantize names {node.name!r} ({node.op}), which {problem}. Delete it.")
