"""Observes the inputs of layers, and summarizes them for reports."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import tensorflow as tf

from amct_tensorflow.errors import CalibrationError
from amct_tensorflow.graph.graph_runner import Batch, Look
from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.graph.view import parse_tensor_name
from amct_tensorflow.quantize.algorithms.distribution import Distribution, Observation
from amct_tensorflow.quantize.algorithms.range_shape import ChannelPeaks, RangeShape
from amct_tensorflow.quantize.calibration.replay import Replay

# As many as a picture of the width of a phone has room for.
BINS = 96


@dataclass(frozen=True, eq=False)
class ActivationSummary:
    """A histogram of a tensor.

    Attributes:
        lowest: exact minimum.
        highest: exact maximum.
        counts: number of values in each of ``BINS`` equal parts of the range, float64 [BINS]; of a large tensor, a
            scaled sample.
        shape: how the values fill the range; None if an earlier version calibrated.
    """

    lowest: float
    highest: float
    counts: np.ndarray
    shape: RangeShape | None = None


class ActivationObservers:
    """One observer per tensor that a layer reads."""

    def __init__(
        self,
        replay: Replay,
        inputs: Mapping[LayerName, str],
        observers: Mapping[str, Callable[[np.ndarray], None]],
        channel_axes: Mapping[LayerName, int],
    ) -> None:
        """Takes what to observe.

        Args:
            replay: runs the float model.
            inputs: per layer, in topological order, the full name of the tensor that it reads.
            observers: per tensor, another function to call with its values.
            channel_axes: per layer whose input shall be summarized, which axis of that counts channels, if one does.
        """
        self._replay = replay
        self._inputs = dict(inputs)
        self._others = observers
        self._observations = {tensor: Observation() for tensor in inputs.values()}
        axes = {inputs[name]: axis for name, axis in channel_axes.items()}
        self._peaks = {tensor: ChannelPeaks(axes.get(tensor)) for tensor in self._observations}
        self._longest = dict.fromkeys(self._observations, 0)
        self._readers = {tensor: layer for layer, tensor in reversed(list(inputs.items()))}
        self._known: set[str] = set()
        self._last: list[tf.Operation] | None = None

    def take_over(self, earlier: "ActivationObservers", changed: Collection[str]) -> None:
        """Takes over what was observed of tensors before the model was balanced, so that they are not observed again.

        Args:
            earlier: the observers of the model as it was.
            changed: the nodes whose values are others now.
        """
        for tensor in self._observations.keys() & earlier._observations.keys():
            if parse_tensor_name(tensor).node not in changed:
                self._known.add(tensor)
                self._observations[tensor] = earlier._observations[tensor]
                self._peaks[tensor] = earlier._peaks[tensor]
                self._longest[tensor] = earlier._longest[tensor]

    def observe(self, parts: Sequence[Batch]) -> None:
        """Runs a batch, split into parts.

        Raises:
            CalibrationError: a tensor holds NaN or Inf.
        """
        if self._last is None:
            self._last = self._attach()
        for part in parts if self._last else ():
            self._replay.run(self._last, part)

    def _attach(self) -> list[tf.Operation]:
        """Adds the observers to the replay; returns the last of them.

        They are called one after the other, so that the first layer to see NaN is named.
        """
        return self._replay.look(
            [
                Look(self._replay.tensor(tensor), partial(self._observe, tensor, self._readers[tensor]))
                for tensor in self._observations
                if tensor not in self._known
            ]
        )

    def distribution(self, layer: LayerName) -> Distribution:
        """Returns the distribution of the input of a layer."""
        return self._observations[self._inputs[layer]].distribution()

    def summary(self, layer: LayerName, found: Distribution, uses: np.ndarray | None) -> ActivationSummary:
        """Returns a summary of the input of a layer, with its distribution, and how much it uses each channel."""
        shape = RangeShape.of(found, self._peaks[self._inputs[layer]], uses)
        return ActivationSummary(found.lowest, found.highest, found.histogram(BINS), shape)

    def longest_rows(self, layer: LayerName) -> int:
        """Returns the greatest length of the last axis of the input of a layer."""
        return self._longest[self._inputs[layer]]

    def _observe(self, tensor: str, layer: str, value: np.ndarray) -> None:
        if value.size and not self._observations[tensor].add(value):
            raise CalibrationError(
                f"The activations of layer {layer!r} have invalid value inf or nan. Check the calibration data and "
                "its preprocessing, or set the layer's quant_enable to false."
            )
        self._peaks[tensor].add(value)
        self._longest[tensor] = max(self._longest[tensor], *value.shape[-1:], 0)
        if value.size and tensor in self._others:
            self._others[tensor](value)
