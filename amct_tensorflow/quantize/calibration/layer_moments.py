"""Computes corrections from the moments of each layer's input: integers of weights, and a shift of the bias.

A layer multiplies rows ``x`` of data by a matrix ``W``; quantized, it multiplies ``q(x)`` by ``Q``. The means and the
covariance of ``q(x)`` are kept, of rows evenly spread over all calibration images. The covariance decides the rounding
of the weights (see ``algorithms.rounding``). The means give the average error per output channel,

    E[x] @ W - E[q(x)] @ Q

which local bias correction adds to the bias. ``x`` is that of the float model, so that no correction depends on which
other layers are quantized. Of dense layers the means are weighted (``row_weights``).

Layers that read the same rows, as those of query, key and value, share their moments. Layers with the same weights, as
the steps of a recurrent network or the octaves of a filter bank, are rounded together, to the same integers, which the
file holds once: by the covariance of the rows of all of them, each in steps of its own data, so that all count alike.
Layers are taken in groups whose moments fit ``_MOST_BYTES``, each of which runs the batches again, so that memory does
not grow with depth. Of many images fewer rows each are looked at, so that time does not grow with their number.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from math import modf, prod

import numpy as np
import tensorflow as tf

from amct_tensorflow.graph.batch_splitter import images_of
from amct_tensorflow.graph.graph_runner import Batch, Look
from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.graph.view import full_tensor_name
from amct_tensorflow.io.stages import stage
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for
from amct_tensorflow.model.fusion import FusedGraph, FusedLayer
from amct_tensorflow.ops.matrix_form import MatrixForm, Sample
from amct_tensorflow.quantize.algorithms.activation_factors import highest_integer, lowest_integer
from amct_tensorflow.quantize.algorithms.rounding import round_to_second_moments
from amct_tensorflow.quantize.algorithms.second_moments import LARGEST_BLOCK, SecondMoments, sum_of_rows
from amct_tensorflow.quantize.calibration.channel_sample import GOLDEN
from amct_tensorflow.quantize.calibration.replay import Replay
from amct_tensorflow.quantize.config.schema import SECOND_MOMENTS, QuantConfig
from amct_tensorflow.quantize.quantized.quantization_plan import nearest_integers
from amct_tensorflow.quantize.record.factors import LayerCorrection, LayerFactors

# Of each image so many positions of a feature map are looked at: 32 images give 8,192 rows, more than most layers have
# inputs.
ROWS_PER_IMAGE = 256
# Of all images together so many, and more for no layer: 14 times the largest block of inputs.
_MOST_ROWS = 1 << 15
# So many rows per input are enough, and of few inputs so many.
_ROWS = 128, 2048
# Of a depthwise layer each row is one of each of hundreds of groups, and fewer are as good: with 360 to 2,048 the
# outputs of MobileNet V2 and EfficientNet-Lite0 diverge alike.
_DEPTHWISE_ROWS = 20, 360
# So much the moments take that are collected at a time, but for a single layer with more.
_MOST_BYTES = 1 << 28
# The products of so many rows are looked at together, so that they take little memory.
_ROWS_AT_A_TIME = 1024
# Of groups of channels, so many values are worked on at a time: 4 MB, which passes in turn find in the cache.
_VALUES_IN_CACHE = 1 << 20
# So many chains of observers are called beside each other, by threads of the replay.
_CHAINS = 2
# So many inputs of layers are worked on at a time, each in a thread, which takes up to 250 MB.
_THREADS = min(os.cpu_count() or 1, 2)


class LayerMoments:
    """Collects the moments of every layer with weights, and computes its correction."""

    def __init__(
        self,
        replay: Replay,
        fused: FusedGraph,
        layers: Sequence[FusedLayer],
        factors: Mapping[LayerName, LayerFactors],
        config: QuantConfig,
    ) -> None:
        """Takes the layers.

        Args:
            replay: runs the float model.
            fused: the model.
            layers: the layers, in topological order; those without weights are left out.
            factors: per layer name, its factors.
            config: says which corrections to compute.
        """
        self._replay = replay
        self._rounds, self._corrects = config.weight_rounding == SECOND_MOMENTS, config.bias_correction
        inputs: dict[tuple[object, ...], _Input] = {}
        for layer in layers if self._rounds or self._corrects else ():
            if layer.weights is not None:
                reader = _Layer(layer, fused, factors[layer.name])
                tensor = full_tensor_name(fused.input_of(layer.name))
                shared = inputs.setdefault((tensor, *reader.rows_key), _Input(tensor, reader))
                shared.readers.append(reader)
        self._roundings = [
            _Rounding(each, rounds=self._rounds) for each in _with_equal_weights(inputs.values(), together=self._rounds)
        ]

    @stage("calibrating: correcting weights and biases")
    def corrections(self, parts: Sequence[Batch]) -> dict[LayerName, LayerCorrection]:
        """Runs parts of calibration batches; returns the corrections per layer name."""
        found: dict[LayerName, LayerCorrection] = {}
        sparse: dict[LayerName, float] = {}
        for roundings in _waves(self._roundings):
            last = self._attach(roundings)
            inputs = [each for one in roundings for each in one.inputs]
            for number, (part, share) in enumerate(zip(parts, _shares(parts), strict=True)):
                for each in inputs:
                    each.begin(number, share)
                self._replay.run(last, part)
            with ThreadPoolExecutor(_THREADS) as threads:
                for one, corrections in zip(roundings, threads.map(self._correct, roundings), strict=True):
                    found.update(corrections)
                    if one.is_sparse:
                        sparse.update(dict.fromkeys(corrections, one.trust))
                    one.forget()
        _tell(sparse)
        return found

    def _attach(self, roundings: Sequence["_Rounding"]) -> list[tf.Operation]:
        """Adds observers to the replay; returns those that are called last.

        What is rounded together sums up the same moments, and is therefore in one chain.
        """
        return self._replay.look(
            [
                Look(self._replay.tensor(each.tensor), each.observe, index % _CHAINS)
                for index, rounding in enumerate(roundings)
                for each in rounding.inputs
            ]
        )

    def _correct(self, rounding: "_Rounding") -> dict[LayerName, LayerCorrection]:
        """Returns the corrections of the layers that are rounded together."""
        integers = rounding.round() if self._rounds else {}
        return {
            layer.name: LayerCorrection(
                read.shift(layer, integers.get(layer.name)) if self._corrects else None, integers.get(layer.name)
            )
            for read in rounding.inputs
            for layer in read.readers
        }


def _shares(parts: Sequence[Batch]) -> list[Fraction]:
    """Returns the share of each part in all images; parts are alike if it is not known how many they have."""
    images = [images_of(part) for part in parts]
    known = [count for count in images if count is not None]
    if len(known) < len(parts) or not sum(known):
        return [Fraction(1, len(parts))] * len(parts)
    return [Fraction(count, sum(known)) for count in known]


def _with_equal_weights(inputs: Iterable["_Input"], *, together: bool) -> list[list["_Input"]]:
    """Returns inputs in groups; if asked for, those are together that layers with the same weights read."""
    groups: list[list[_Input]] = []
    of_weights: dict[tuple[object, ...], list[_Input]] = {}
    for each in inputs:
        group = [each]
        groups.append(group)
        for key in (layer.weights_key for layer in each.readers) if together else ():
            other = of_weights.setdefault(key, group)
            if other is not group:  # two groups become the earlier one
                other.extend(group)
                groups.remove(group)
                of_weights.update((name, other) for name, one in of_weights.items() if one is group)
                group = other
    return groups


def _waves(roundings: Iterable["_Rounding"]) -> Iterator[list["_Rounding"]]:
    """Yields what is rounded together in groups whose moments fit the memory that they may take."""
    group: list[_Rounding] = []
    for each in roundings:
        if group and sum(one.size for one in group) + each.size > _MOST_BYTES:
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def _tell(sparse: Mapping[LayerName, float]) -> None:
    """Logs of layers with more inputs than rows of data how far their second moments are trusted."""
    for name, trust in sparse.items():
        log_for("calibration").debug("Layer %s: its second moments count for %.0f %%.", name, 100 * trust)
    if sparse:
        least = min(sparse, key=lambda name: sparse[name])
        log_for("calibration").info(
            "%s more inputs than the data has rows; weights are rounded by their second moments only as far as those "
            "can be trusted: by %.0f %% in %s%s. More images help.",
            plural(len(sparse), "layer", "has", "have"), 100 * sparse[least], least,
            "" if len(sparse) == 1 else f", by up to {100 * max(sparse.values()):.0f} % in others",
        )  # fmt: skip


def row_weights(rows: np.ndarray, weights: np.ndarray, step: float) -> np.ndarray:
    """Returns how much each row counts in the mean error of a dense layer: by the relative error of its output.

    What reads a dense layer takes every row for itself, and a LayerNorm brings all rows to one size. A few rows may be
    hundreds of times as large as the others, as the first token of a sentence is inside many transformers; clipping
    takes much from them, and their mean error would be added to all the others, where it is no error but a new one.

    With these weights the shift makes the sum over rows of ``|error|**2 / |output|**2`` least. To the squared output
    is added what an error of one step in each input comes to, so that rows of nothing do not count more than all.

    Args:
        rows: of the data, [groups, rows, inputs].
        weights: [groups, inputs, outputs].
        step: of the data's integers.

    Returns:
        Float64 [groups, rows].
    """
    starts = range(0, rows.shape[1], _ROWS_AT_A_TIME)
    products = (rows[:, start : start + _ROWS_AT_A_TIME] @ weights for start in starts)
    squares = [np.einsum("gro,gro->gr", part, part, dtype=np.float64) for part in products]
    of_a_step = step**2 * np.einsum("gio,gio->g", weights, weights, dtype=np.float64)[:, np.newaxis]
    sizes = np.concatenate(squares, axis=1) + of_a_step
    return np.asarray(np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > 0))


class _Means:
    """The means of rows of the data, and of the quantized data in steps, [groups, inputs]."""

    def __init__(self) -> None:
        self._weight: float | np.ndarray = 0.0
        self._sums: tuple[float | np.ndarray, ...] = (0.0, 0.0)

    def add(self, rows: np.ndarray, steps: np.ndarray, weights: np.ndarray | None) -> None:
        """Takes rows, [groups, rows, inputs]; each counts as much as its weight, [groups, rows], or all count alike."""
        if weights is None:
            sums = [sum_of_rows(part) for part in (rows, steps)]
            self._weight += rows.shape[1]
        else:
            sums = [np.einsum("gr,gri->gi", weights, part) for part in (rows, steps)]
            self._weight += weights.sum(axis=1, keepdims=True)
        self._sums = tuple(total + part for total, part in zip(self._sums, sums, strict=True))

    def values(self) -> list[np.ndarray]:
        """Returns both means; zeros if no row has any weight."""
        some = np.greater(self._weight, 0)
        return [np.divide(total, self._weight, out=np.zeros_like(total), where=some) for total in self._sums]


class _Layer:
    """A layer, in the form of products of matrices."""

    def __init__(self, layer: FusedLayer, fused: FusedGraph, factors: LayerFactors) -> None:
        assert layer.weights is not None and layer.op.matrix_form is not None
        self.name = layer.name
        self.node = fused.node_of(layer.name)
        self.factors = factors
        self.weights: np.ndarray = layer.weights
        self.form: MatrixForm = layer.op.matrix_form
        self.is_dense = layer.op.is_dense
        self.means = _Means()
        self._layer = layer
        self._shape = fused.view.shape(fused.input_of(layer.name))

    @cached_property
    def window(self) -> tuple[int, ...]:
        """The axes of its weights that are summed over."""
        channels = self._layer.op.channel_axes
        return tuple(length for axis, length in enumerate(self.weights.shape) if axis not in channels)

    @property
    def has_a_group_per_channel(self) -> bool:
        """Whether weights are laid out by channels of the input as well as of the output."""
        return len(self._layer.op.channel_axes) > 1

    @property
    def rows_key(self) -> tuple[object, ...]:
        """What its rows depend on, besides the tensor: layers for which it is equal have the same."""
        grid = (self.factors.scale_d, self.factors.offset_d, self.factors.num_bits)
        attributes = sorted((key, value.SerializeToString(deterministic=True)) for key, value in self.node.attr.items())
        return (*grid, self._layer.op_type, self.window, *attributes)

    @cached_property
    def weights_key(self) -> tuple[object, ...]:
        """What its integers depend on, besides the moments of its rows; what is equal has rows of equal shape, too."""
        digest = hashlib.blake2b(np.ascontiguousarray(self.weights).data).digest()
        groups = None if self.is_dense else self._channels or self.name
        return (self._layer.op_type, self.weights.shape, digest, groups, self.factors.scale_w, self.factors.num_bits)

    @property
    def _channels(self) -> int | None:
        """How many channels its input has, which tells the number of its groups; None if only a run tells."""
        axis = self._layer.op.channel_axis(self._layer.data_format)
        return None if self._shape is None else self._shape[axis]

    @property
    def scales(self) -> np.ndarray:
        """Its steps in the shape of its weights."""
        scale_w = np.asarray(self.factors.scale_w, np.float64)
        return np.broadcast_to(self._layer.op.along_channels(self.weights, scale_w), self.weights.shape)

    @property
    def nearest(self) -> np.ndarray:
        """The nearest integers."""
        return nearest_integers(self._layer.op_type, self.weights, np.asarray(self.factors.scale_w, np.float32))


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the rows of one group at once, as products of matrices want them, those of many in parts."""
    groups, count, inputs = rows.shape
    length = count if groups == 1 else max(_VALUES_IN_CACHE // (groups * inputs), 1)
    for start in range(0, count, length):
        yield rows[:, start : start + length]


class _Rounding:
    """Inputs of layers that are rounded together, by the second moments of them all."""

    def __init__(self, inputs: Sequence["_Input"], *, rounds: bool) -> None:
        self.inputs = inputs
        self.trust = 0.0  # how far the covariance counts, from 0 to 1
        self._second = SecondMoments()
        for each in inputs:
            each.second = self._second if rounds else None
            each.is_alone = len(inputs) == 1

    @property
    def size(self) -> int:
        """How many bytes the moments of a group take; where there are many, each takes little."""
        inputs = prod(self.inputs[0].window)
        return 4 * inputs * min(inputs, LARGEST_BLOCK)

    @property
    def is_sparse(self) -> bool:
        """Whether there are less rows than inputs, from which no covariance can be told."""
        return 0 < self._second.count < self._second.inputs

    def forget(self) -> None:
        """Frees the moments."""
        self._second = SecondMoments()
        for each in self.inputs:
            each.second = None

    def round(self) -> dict[LayerName, np.ndarray]:
        """Returns the integers of each layer's weights."""
        form, groups = self.inputs[0].form, max(each.groups for each in self.inputs)
        alike: dict[tuple[object, ...], list[_Layer]] = {}
        for layer in (layer for each in self.inputs for layer in each.readers):
            alike.setdefault(layer.weights_key, []).append(layer)
        layers = [each[0] for each in alike.values()]
        matrices = [form.matrices(layer.weights, groups) for layer in layers]
        weights = np.concatenate(matrices, axis=2)
        scales = np.concatenate([form.matrices(layer.scales, groups) for layer in layers], axis=2)
        integers = np.zeros(weights.shape, np.int8)
        trusts = []
        for block, covariance, damping in self._second.covariances() if self._second.count else ():
            integers[:, block] = round_to_second_moments(weights[:, block], scales[:, block], covariance, damping)
            trusts.append(np.mean(1 / (1 + damping)))
        self.trust = float(np.mean(trusts)) if trusts else 0.0
        parts = np.split(integers, np.cumsum([each.shape[2] for each in matrices])[:-1], axis=2)
        return {
            layer.name: form.weights(part, layer.weights.shape)
            for part, same in zip(parts, alike.values(), strict=True)
            for layer in same
        }


class _Input:
    """The means of the rows that layers read, quantized alike.

    Attributes:
        tensor: what they read.
        readers: the layers.
        second: the second moments, of these rows and perhaps of others.
        is_alone: whether they are of these rows alone.
        groups: number of groups that the rows come in.
    """

    def __init__(self, tensor: str, reader: _Layer) -> None:
        """Takes the tensor, and one of the layers that read it."""
        self.tensor = tensor
        self.readers: list[_Layer] = []
        self.second: SecondMoments | None = None
        self.is_alone = True
        self.groups = 1
        self._reader = reader
        self._origin: np.ndarray | None = None  # the mean of the first rows
        self._count = 0
        self._data: tuple[int, ...] = ()  # the shape of what was observed last
        self._sample = Sample(self.most_rows)

    @property
    def form(self) -> MatrixForm:
        """The form in which its layers are products of matrices."""
        return self._reader.form

    @property
    def window(self) -> tuple[int, ...]:
        """The axes of their weights that are summed over."""
        return self._reader.window

    @property
    def most_rows(self) -> int:
        """How many rows of all images together are looked at, at most."""
        per_input, least = _DEPTHWISE_ROWS if self._reader.has_a_group_per_channel else _ROWS
        return min(max(per_input * prod(self.window), least), _MOST_ROWS)

    def begin(self, number: int, share: Fraction) -> None:
        """Begins with a part of the batches: the how-manieth it is, and its share of all images.

        Where a part gives few rows, they begin elsewhere in each: all would look at the corners of images.
        """
        most = max(int(self.most_rows * share), 1)
        self._sample = Sample(most, 0.0 if most >= ROWS_PER_IMAGE else modf(number * GOLDEN)[0])

    def observe(self, value: np.ndarray) -> None:
        """Takes the input of the layers for the images of a part."""
        if not value.size:
            return
        reader = self._reader
        sample = replace(self._sample, most=min(ROWS_PER_IMAGE * len(value), self._sample.most))
        rows = reader.form.rows(reader.node, value, reader.weights.shape, sample)
        self.groups, self._count, self._data = len(rows), self._count + rows.shape[1], value.shape
        for some in _blocks(rows):
            steps = self._quantize(some)
            for layer in self.readers if reader.is_dense else [reader]:
                layer.means.add(some, steps, self._row_weights(layer, some) if layer.is_dense else None)
            if self.second is not None:
                self.second.add(steps if self.is_alone else self._centred(steps))

    def _centred(self, steps: np.ndarray) -> np.ndarray:
        """Returns rows without their mean, in which they may differ from others that share their moments."""
        if self._origin is None:
            self._origin = steps.mean(axis=1, keepdims=True)
        return np.asarray(steps - self._origin)

    def shift(self, layer: _Layer, integers: np.ndarray | None) -> np.ndarray | None:
        """Returns what to add to the bias of a layer; None if nothing was observed."""
        if not self._count:
            return None
        integers = layer.nearest if integers is None else integers
        quantized = integers * (layer.scales * np.float64(np.float32(layer.factors.scale_d)))
        means = (layer if layer.is_dense else self._reader).means.values()
        lost = [
            np.einsum("gi,gio->go", mean, layer.form.matrices(weights, self.groups))
            for mean, weights in zip(means, (layer.weights.astype(np.float64), quantized), strict=True)
        ]
        return layer.form.per_channel(layer.node, lost[0] - lost[1], layer.weights.shape, self._data)

    def _row_weights(self, layer: _Layer, rows: np.ndarray) -> np.ndarray:
        matrices = layer.form.matrices(layer.weights, len(rows))
        return row_weights(rows, matrices, layer.factors.scale_d)

    def _quantize(self, values: np.ndarray) -> np.ndarray:
        """Returns the integers relative to the zero point, as the saved model's quantizer yields them."""
        factors = self._reader.factors
        steps = values * (np.float32(1) / np.float32(factors.scale_d))
        np.rint(steps, out=steps)
        lowest, highest = lowest_integer(factors.num_bits), highest_integer(factors.num_bits)
        # With bounds of their own type NumPy 2.4 clips 8 times as fast as by its functions for one bound.
        bounds = np.float32(lowest - factors.offset_d), np.float32(highest - factors.offset_d)
        return np.asarray(np.clip(steps, *bounds, out=steps))
