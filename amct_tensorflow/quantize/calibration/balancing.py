"""Computes the factors of equalization groups from the batches of the caller's session (DMQ, spec section 7.6)."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np
import tensorflow as tf

from amct_tensorflow.errors import CalibrationError
from amct_tensorflow.graph.graph_runner import Batch
from amct_tensorflow.graph.names import LayerName, PreparedName
from amct_tensorflow.graph.view import full_tensor_name
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for
from amct_tensorflow.model.equalization_groups import EqualizationGroup, find_equalization_groups
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.fusion import FusedGraph, FusedLayer
from amct_tensorflow.quantize.algorithms.dmq import DEFAULT_STRENGTH, balance_factors, largest_weights
from amct_tensorflow.quantize.calibration.feed import Feed
from amct_tensorflow.quantize.calibration.replay import Replay
from amct_tensorflow.quantize.config.schema import QuantConfig

_Balance = Mapping[LayerName, tuple[float, ...]]


class Balancer:
    """Observes ``batch_num`` batches of a live graph, then computes the factors of equalization groups.

    A group is balanced if one of its quantized readers asks for it; if no layer asks, all free groups with a quantized
    reader are. If readers of a group ask for different strengths, their mean counts.
    """

    def __init__(
        self,
        model: FloatModel,
        config: QuantConfig,
        on_complete: Callable[[_Balance], None],
        *,
        graph: tf.Graph | None = None,
    ) -> None:
        """Edits the caller's graph: adds taps, as ``Calibrator`` does; none if there is nothing to balance.

        Args:
            model: the float model.
            config: which layers are quantized, and how strongly each is to be balanced.
            on_complete: called with the factors, per layer that reads a group [Cin], still inside the caller's
                session; at once if there is nothing to balance.
            graph: the graph that the caller runs; None for that of the model.
        """
        self.result: _Balance | None = None
        self._on_complete = on_complete
        fused = model.fuse(config.unfused_layers())
        found = find_equalization_groups(fused, model.outputs)
        asked = {name: config.layers[name].dmq_strength for name in config.enabled_layers()}
        strengths = {name: strength for name, strength in asked.items() if strength is not None}
        groups = [group for group in found.groups if _may_be_divided(group, fused, strengths)]
        _warn_of_others(strengths, groups, found.not_free)
        strengths = strengths or dict.fromkeys(asked, DEFAULT_STRENGTH)
        self._quantized = {name: fused.layers[name] for name in asked}
        self._strengths = {group: _mean_strength(group, strengths) for group in groups}
        self._strengths = {group: strength for group, strength in self._strengths.items() if strength}
        if not self._strengths:
            log_for("balancing").warning("No layer can be balanced without products that the model does not have.")
            self._complete({})
            return
        inputs = {name: fused.input_of(name) for group in self._strengths for name in group.readers}
        self._tensors = {name: full_tensor_name(text) for name, text in inputs.items()}
        self._highest = {name: np.zeros(group.channels) for group in self._strengths for name in group.readers}
        nodes = {PreparedName(name): [text] for name, text in inputs.items()}
        self._feed = Feed(model, fused, nodes, config.batch_num, graph=graph)
        self._replay = Replay(fused, list(inputs), self._feed.tensors)
        self._splitter = self._replay.splitter(self._tensors.values(), self._tensors)
        self._operations: list[tf.Operation] = []
        for name, tensor in self._tensors.items():  # one after the other, so that the first layer to see NaN is named
            observer = partial(self._observe, fused.layers[name])
            self._operations = [self._replay.observe([self._replay.tensor(tensor)], observer, after=self._operations)]
        self._feed.start(self._take, self._finish, self._release)

    def check_complete(self) -> _Balance:
        """Returns the factors.

        Raises:
            AmctError: what stopped the observation.
            CalibrationError: too few batches were run.
        """
        if self.result is None:
            if self.error is not None:
                raise self.error
            self._feed.batches.check_complete()
        assert self.result is not None  # it follows the last batch
        return self.result

    @property
    def error(self) -> Exception | None:
        """The error inside the caller's session, which TensorFlow would turn into text; None without one."""
        return self._feed.error if self._strengths else None

    def _observe(self, layer: FusedLayer, value: np.ndarray) -> None:
        channels = layer.input_channels
        assert channels is not None
        others = tuple(axis for axis in range(value.ndim) if axis != channels.axis + value.ndim)
        highest = np.abs(value).max(axis=others, initial=0)
        if not np.isfinite(highest).all():
            raise CalibrationError(
                f"The activations of layer {layer.name!r} have invalid value inf or nan. Check the calibration data "
                "and its preprocessing."
            )
        self._highest[layer.name] = np.maximum(self._highest[layer.name], highest)

    def _take(self, batch: Batch, images: int | None) -> None:
        for part in self._splitter.split(batch, images):
            self._replay.run(self._operations, part)

    def _release(self) -> None:
        self._replay.close()
        del self._replay, self._splitter, self._operations

    def _finish(self) -> None:
        self._feed.batches.forget()
        factors: dict[LayerName, tuple[float, ...]] = {}
        for group, strength in self._strengths.items():
            readers = [self._quantized[name] for name in group.readers if name in self._quantized]
            activations = np.max([self._highest[reader.name] for reader in readers], axis=0)
            weights = np.max(
                [largest_weights(reader.op, reader.weights) for reader in readers if reader.weights is not None], axis=0
            )
            factors.update(dict.fromkeys(group.readers, balance_factors(activations, weights, strength)))
        log_for("balancing").info(
            "The inputs of %s are balanced, in %s.",
            plural(len(factors), "layer"),
            plural(len(self._strengths), "equalization group"),
        )
        self._complete(factors)

    def _complete(self, factors: _Balance) -> None:
        self.result = factors
        self._on_complete(factors)


def _may_be_divided(group: EqualizationGroup, fused: FusedGraph, asked: Mapping[LayerName, float]) -> bool:
    """Tells whether dividing a group is free, or a product in front of dense layers of which one asks for it by name.

    A convolution that asks for balancing gets what the original toolkit has: it never costs anything.
    """
    return group.is_free or any(name in asked and fused.layers[name].op.is_dense for name in group.readers)


def _mean_strength(group: EqualizationGroup, strengths: Mapping[LayerName, float]) -> float:
    """Returns the strength of a group; 0 if no reader asks for balancing."""
    asked = [strengths[name] for name in group.readers if name in strengths]
    return float(np.mean(asked)) if asked else 0.0


def _warn_of_others(
    asked: Iterable[LayerName], groups: Iterable[EqualizationGroup], reasons: Mapping[LayerName, str]
) -> None:
    divided = {name for group in groups for name in group.readers}
    for name in asked:
        if name not in divided and name in reasons:
            log_for("balancing").warning("Layer %s is not balanced: %s.", name, reasons[name])
