"""Observes the channels of equalization groups, and chooses factors for those that gain by them."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.graph.view import full_tensor_name
from amct_tensorflow.model.equalization_groups import EqualizationGroup, find_equalization_groups
from amct_tensorflow.model.fusion import FusedGraph
from amct_tensorflow.ops.channels import Channels
from amct_tensorflow.quantize.algorithms.dmq import Reader, choose_factors


class GroupMoments:
    """The largest value and the mean square of each channel of what the layers of equalization groups read."""

    def __init__(self, fused: FusedGraph, outputs: Sequence[str], channel_wise: Mapping[LayerName, bool]) -> None:
        """Begins with nothing.

        Args:
            fused: the graph, after fusion.
            outputs: nodes whose own value is requested.
            channel_wise: per layer that is quantized, whether every output channel has a scale of its own.
        """
        self._seen: dict[str, _Channels] = {}
        self._groups: list[tuple[EqualizationGroup, list[Reader], list[_Channels]]] = []
        for group in find_equalization_groups(fused, outputs).groups:
            names = [name for name in group.readers if name in channel_wise]
            if not group.is_free and not all(fused.layers[name].op.is_dense for name in names):
                continue  # what convolutions read is balanced where that costs nothing
            readers, channels = [], []
            for name in names:
                layer = fused.layers[name]
                assert layer.weights is not None and layer.input_channels is not None
                readers.append(Reader(layer.op, layer.weights, channel_wise[name]))
                tensor = full_tensor_name(fused.input_of(name))
                channels.append(self._seen.setdefault(tensor, _Channels(layer.input_channels)))
            if readers:
                self._groups.append((group, readers, channels))

    @property
    def observers(self) -> dict[str, Callable[[np.ndarray], None]]:
        """Per tensor, by its full name, what is to be called with its values."""
        return {tensor: channels.observe for tensor, channels in self._seen.items()}

    def balance(self) -> dict[LayerName, tuple[float, ...]]:
        """Returns per layer whose input should be divided by factors, those factors, [Cin]."""
        found: dict[LayerName, tuple[float, ...]] = {}
        for group, readers, channels in self._groups:
            mean_squares = np.mean([each.mean_squares for each in channels], axis=0)
            highest = np.max([each.highest for each in channels], axis=0)
            factors = choose_factors(readers, mean_squares, highest)
            if factors is not None:
                found.update(dict.fromkeys(group.readers, factors))
        return found


class _Channels:
    """The channels of a tensor."""

    def __init__(self, channels: Channels) -> None:
        """Begins with nothing; takes where they are."""
        self._axis = channels.axis
        self._count = 0
        self._squares = np.zeros(channels.number)
        self.highest = np.zeros(channels.number)

    @property
    def mean_squares(self) -> np.ndarray:
        """The mean square of each, float64 [C]."""
        return self._squares / max(self._count, 1)

    def observe(self, value: np.ndarray) -> None:
        """Takes values."""
        rows = np.moveaxis(value, self._axis, -1).reshape(-1, value.shape[self._axis])
        self.highest = np.maximum(self.highest, np.abs(rows).max(axis=0, initial=0).astype(np.float64))
        self._squares = self._squares + np.einsum("ij,ij->j", rows, rows, dtype=np.float64)
        self._count += len(rows)
