"""Observes what the layers of equalization groups read, and chooses factors for the groups that gain by them."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from amct_tensorflow.graph.names import FusedName, LayerName
from amct_tensorflow.graph.view import full_tensor_name
from amct_tensorflow.model.equalization_groups import EqualizationGroup, find_equalization_groups
from amct_tensorflow.model.fusion import FusedGraph
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.quantize.algorithms.balance_choice import Reader, ReadTensor, choose_factors
from amct_tensorflow.quantize.algorithms.distribution import Distribution
from amct_tensorflow.quantize.calibration.channel_sample import ChannelSample
from amct_tensorflow.quantize.config.schema import SECOND_MOMENTS, QuantConfig

# Half a decibel: less is hardly more than chance. A product in front of layers costs a pass over what they read, and
# has to gain 2 dB, which is a third of a bit.
_LEAST_GAIN = 10**0.05
_LEAST_GAIN_OF_PRODUCTS = 10**0.2
# So many groups have their factors chosen at the same time, each in a thread.
_THREADS = min(os.cpu_count() or 1, 2)


class GroupMoments:
    """Rows of what the layers of equalization groups read."""

    def __init__(
        self,
        fused: FusedGraph,
        outputs: Sequence[str],
        config: QuantConfig,
        search: Callable[[LayerName, Distribution], ActivationFactors],
    ) -> None:
        """Begins with nothing.

        Args:
            fused: the graph, after fusion.
            outputs: nodes whose own value is requested.
            config: which layers are quantized, and how.
            search: chooses the factors of what a layer reads.
        """
        self._fused, self._config, self._search = fused, config, search
        self._samples: dict[str, ChannelSample] = {}
        self._groups: list[tuple[EqualizationGroup, dict[str, list[LayerName]]]] = []
        quantized = set(config.enabled_layers())
        for group in find_equalization_groups(fused, outputs).groups:
            names = [name for name in group.readers if name in quantized]
            if not group.is_free and not all(fused.layers[name].op.is_dense for name in names):
                continue  # what convolutions read is balanced where that costs nothing
            readers: dict[str, list[LayerName]] = {}
            for name in names:
                channels = fused.layers[name].input_channels
                assert channels is not None
                tensor = full_tensor_name(fused.input_of(name))
                self._samples.setdefault(tensor, ChannelSample(channels.axis, channels.number))
                readers.setdefault(tensor, []).append(name)
            if readers:
                self._groups.append((group, readers))

    @property
    def scalable(self) -> set[FusedName]:
        """The nodes whose values change if their group is balanced."""
        return {name for group, _ in self._groups for name in group.nodes}

    @property
    def observers(self) -> dict[str, Callable[[np.ndarray], None]]:
        """Per tensor, by its full name, what is to be called with its values."""
        return {tensor: sample.add for tensor, sample in self._samples.items()}

    def balance(self) -> dict[LayerName, tuple[float, ...]]:
        """Returns per layer whose input should be divided by factors, those factors, [Cin]."""
        found: dict[LayerName, tuple[float, ...]] = {}
        with ThreadPoolExecutor(_THREADS) as threads:
            for (group, _), factors in zip(self._groups, threads.map(self._factors, self._groups), strict=True):
                if factors is not None:
                    found.update(dict.fromkeys(group.readers, factors))
        return found

    def _factors(self, pair: tuple[EqualizationGroup, dict[str, list[LayerName]]]) -> tuple[float, ...] | None:
        """Returns the factors of a group, given with the layers that read each tensor; None if they gain too little."""
        group, readers = pair
        tensors = [self._read_tensor(tensor, names) for tensor, names in readers.items()]
        return choose_factors(tensors, _LEAST_GAIN if group.is_free else _LEAST_GAIN_OF_PRODUCTS)

    def _read_tensor(self, tensor: str, names: Sequence[LayerName]) -> ReadTensor:
        """Returns a tensor with its readers; its range is what calibration would choose for the first."""
        makes_up = self._config.weight_rounding == SECOND_MOMENTS
        readers = [self._reader(name) for name in names]
        return ReadTensor(self._samples[tensor].halves(), readers, partial(self._search, names[0]), makes_up)

    def _reader(self, name: LayerName) -> Reader:
        layer = self._fused.layers[name]
        assert layer.weights is not None
        return Reader(layer.op, layer.weights, self._config.layers[name].weights.channel_wise)
