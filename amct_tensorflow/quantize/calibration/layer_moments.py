"""Computes corrections from the moments of each layer's input: integers of weights, and a shift of the bias.

A layer multiplies rows ``x`` of data by a matrix ``W``; quantized, it multiplies ``q(x)`` by ``Q``. The means and the
covariance of ``q(x)`` are kept, of rows evenly spread over all calibration images. The covariance decides the rounding
of the weights (see ``algorithms.rounding``). The means give the average error per output channel,

    E[x] @ W - E[q(x)] @ Q

which local bias correction adds to the bias. ``x`` is that of the float model, so that no correction depends on which
other layers are quantized.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.graph_runner import Batch
from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.graph.view import full_tensor_name
from amct_tensorflow.model.fusion import FusedGraph, FusedLayer
from amct_tensorflow.ops.matrix_form import MatrixForm
from amct_tensorflow.quantize.algorithms.activation_factors import highest_integer, lowest_integer
from amct_tensorflow.quantize.algorithms.rounding import SecondMoments, round_to_second_moments
from amct_tensorflow.quantize.calibration.replay import Replay
from amct_tensorflow.quantize.config.schema import SECOND_MOMENTS, QuantConfig
from amct_tensorflow.quantize.quantized.quantization_plan import nearest_integers
from amct_tensorflow.quantize.record.factors import LayerCorrection, LayerFactors

# Of each image so many positions of a feature map are looked at: 32 images give 8,192 rows, more than most layers have
# inputs.
ROWS_PER_IMAGE = 256


class LayerMoments:
    """Collects the moments of every layer with weights, then computes its correction."""

    def __init__(
        self,
        replay: Replay,
        fused: FusedGraph,
        layers: Sequence[FusedLayer],
        factors: Mapping[LayerName, LayerFactors],
        config: QuantConfig,
    ) -> None:
        """Adds what collects the moments to a replay.

        Args:
            replay: runs the float model.
            fused: the model.
            layers: the layers, in topological order; those without weights are left out.
            factors: per layer name, its factors.
            config: says which corrections to compute.
        """
        self._replay = replay
        rounds, corrects = config.weight_rounding == SECOND_MOMENTS, config.bias_correction
        self._layers = {
            layer.name: _Layer(layer, fused.node_of(layer.name), factors[layer.name], rounds, corrects)
            for layer in (layers if rounds or corrects else ())
            if layer.weights is not None
        }
        self._last: list[tf.Operation] = []
        for each in self._layers.values():  # one after the other, so that few tensors are alive at a time
            tensor = replay.tensor(full_tensor_name(fused.input_of(each.layer.name)))
            self._last = [replay.observe([tensor], each.observe, after=self._last)]

    def observe(self, parts: Sequence[Batch]) -> None:
        """Runs parts of calibration batches."""
        for part in parts if self._last else ():
            self._replay.run(self._last, part)

    def corrections(self) -> dict[LayerName, LayerCorrection]:
        """Returns the corrections per layer name, and frees the moments."""
        return {name: self._layers.pop(name).correction() for name in list(self._layers)}


class _Layer:
    """The moments of one layer."""

    def __init__(self, layer: FusedLayer, node: NodeDef, factors: LayerFactors, rounds: bool, corrects: bool) -> None:
        assert layer.weights is not None and layer.op.matrix_form is not None
        self.layer = layer
        self._node = node
        self._factors = factors
        self._corrects = corrects
        self._weights: np.ndarray = layer.weights
        self._form: MatrixForm = layer.op.matrix_form
        self._second = SecondMoments() if rounds else None
        self._count = 0
        self._sums: list[np.ndarray | float] = [0.0, 0.0]  # of rows of the data, and of the quantized data in steps
        self._groups = 1
        self._data: tuple[int, ...] = ()  # the shape of what was observed last

    def observe(self, value: np.ndarray) -> None:
        """Takes the input of the layer for some images."""
        if not value.size:
            return
        rows = self._form.rows(self._node, value, self._weights.shape, ROWS_PER_IMAGE * len(value))
        steps = self._quantize(rows)
        self._groups, self._count, self._data = len(rows), self._count + rows.shape[1], value.shape
        self._sums = [
            total + part.sum(axis=1, dtype=np.float64) for total, part in zip(self._sums, (rows, steps), strict=True)
        ]
        if self._second is not None:
            self._second.add(steps)

    def correction(self) -> LayerCorrection:
        """Returns the correction of the layer."""
        integers = None if self._second is None else self._round(self._second)
        return LayerCorrection(self._shift(integers) if self._corrects and self._count else None, integers)

    def _quantize(self, values: np.ndarray) -> np.ndarray:
        """Returns the integers relative to the zero point, as the saved model's quantizer yields them."""
        scale, offset = np.float32(self._factors.scale_d), self._factors.offset_d
        steps = np.rint(values * (np.float32(1) / scale))
        num_bits = self._factors.num_bits
        lowest, highest = lowest_integer(num_bits) - offset, highest_integer(num_bits) - offset
        return np.asarray(np.clip(steps, lowest, highest), np.float32)

    def _scales(self) -> np.ndarray:
        scale_w = np.asarray(self._factors.scale_w, np.float64)
        return np.broadcast_to(self.layer.op.along_channels(self._weights, scale_w), self._weights.shape)

    def _round(self, moments: SecondMoments) -> np.ndarray:
        weights, scales = (self._form.matrices(each, self._groups) for each in (self._weights, self._scales()))
        integers = np.zeros(weights.shape, np.int8)
        for block, covariance in moments.covariances():
            integers[:, block] = round_to_second_moments(weights[:, block], scales[:, block], covariance)
        return self._form.weights(integers, self._weights.shape)

    def _shift(self, integers: np.ndarray | None) -> np.ndarray:
        if integers is None:
            integers = nearest_integers(
                self.layer.op_type, self._weights, np.asarray(self._factors.scale_w, np.float32)
            )
        quantized = integers * (self._scales() * np.float64(np.float32(self._factors.scale_d)))
        lost = [
            np.einsum("gi,gio->go", total / self._count, self._form.matrices(weights, self._groups))
            for total, weights in zip(self._sums, (self._weights.astype(np.float64), quantized), strict=True)
        ]
        return self._form.per_channel(self._node, lost[0] - lost[1], self._weights.shape, self._data)
