"""Rounding the weights of every layer by the second moments of what it reads, quantized."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.algorithms.rounding import round_to_second_moments
from amct_tensorflow.algorithms.second_moments import SecondMoments
from amct_tensorflow.calibration.replay import Batch, Replay
from amct_tensorflow.graph.fusion import FusedGraph, FusedLayer
from amct_tensorflow.graph.view import full_tensor_name
from amct_tensorflow.record.layer_factors import LayerFactors

# Of each image so many positions of a feature map are looked at: 32 images give 8,192 rows, more than most layers have
# inputs.
_ROWS_PER_IMAGE = 256


class WeightRounding:
    """Collects the second moments of each layer's input, then rounds its weights."""

    def __init__(
        self, replay: Replay, fused: FusedGraph, layers: Sequence[FusedLayer], factors: Mapping[str, LayerFactors]
    ) -> None:
        """Adds what collects the moments to a replay.

        Args:
            replay: runs the float model.
            fused: the model.
            layers: the layers, in topological order; those that multiply no matrices are left out.
            factors: per layer name, its factors.
        """
        self._replay = replay
        self._factors = factors
        self._layers = [layer for layer in layers if layer.weights is not None and layer.op.matrix_form is not None]
        self._moments = {layer.name: SecondMoments() for layer in self._layers}
        self._last: list[tf.Operation] = []
        for layer in self._layers:  # one after the other, so that few tensors are alive at a time
            look = partial(self._observe, layer, fused.view.nodes[layer.name])
            tensor = replay.tensor(full_tensor_name(layer.input))
            self._last = [replay.look_at([tensor], look, after=self._last)]

    def observe(self, parts: Sequence[Batch]) -> None:
        """Runs parts of calibration batches."""
        for part in parts if self._last else ():
            self._replay.run(self._last, part)

    def integers(self) -> dict[str, np.ndarray]:
        """Returns per layer name the integers of its weights, int8 in their layout; frees the moments."""
        return {layer.name: self._round(layer, self._moments.pop(layer.name)) for layer in self._layers}

    def _observe(self, layer: FusedLayer, node: NodeDef, value: np.ndarray) -> None:
        assert layer.weights is not None and layer.op.matrix_form is not None
        if value.size:
            most = _ROWS_PER_IMAGE * len(value)
            rows = layer.op.matrix_form.rows(node, value, layer.weights.shape, most)
            self._moments[layer.name].add(_quantize(rows, self._factors[layer.name]))

    def _round(self, layer: FusedLayer, moments: SecondMoments) -> np.ndarray:
        assert layer.weights is not None and layer.op.matrix_form is not None
        form, shape = layer.op.matrix_form, layer.weights.shape
        scale_w = np.asarray(self._factors[layer.name].scale_w, np.float64)
        scales = np.broadcast_to(layer.op.along_channels(layer.weights, scale_w), shape)
        weights, scales = (form.matrices(values, moments.groups) for values in (layer.weights, scales))
        integers = np.empty(weights.shape, np.int8)
        for block, covariance in moments.covariances():
            integers[:, block] = round_to_second_moments(weights[:, block], scales[:, block], covariance)
        return form.weights(integers, shape)


def _quantize(values: np.ndarray, factors: LayerFactors) -> np.ndarray:
    """Returns the steps from the zero point, as the saved model's quantizer counts them; zeros stay zeros."""
    steps = np.rint(values * (np.float32(1) / np.float32(factors.scale_d)))
    return np.asarray(np.clip(steps, -128 - factors.offset_d, 127 - factors.offset_d), np.float32)
