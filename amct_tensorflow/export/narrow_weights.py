"""Narrows the range of weights: without -128, or to 7 bits.

TensorFlow Lite does not allow -128. Its int8 specification says [-127, 127]: kernels for ARM add two products of
weights and activations in 16 bits, and two of -128 by -128 are one too many. Our range is that of the NPU, with -128.
Clipping to -127 is not enough: rounding chose -128 to make up for errors of other weights (on MobileNet V2, 0.2 % of
the weights; the divergence grows ninefold). So channels with -128 get a step that is wider by 128 / 127, and their
layers are rounded again by the second moments of their inputs. The average error goes into the bias, as in calibration.

Weights in 7 bits are made in the same way, with a step about twice as wide; ``saturation`` explains their purpose.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from amct_tensorflow.errors import CalibrationError
from amct_tensorflow.export.export_plan import ExportPlan
from amct_tensorflow.export.observing import observe
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for
from amct_tensorflow.ops.matrix_form import Sample
from amct_tensorflow.quantize.algorithms.rounding import round_to_second_moments
from amct_tensorflow.quantize.algorithms.second_moments import SecondMoments
from amct_tensorflow.quantize.calibration.layer_moments import ROWS_PER_IMAGE
from amct_tensorflow.quantize.quantized.quantized_layer import QuantizedLayer
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

# What TensorFlow Lite allows.
SYMMETRIC = (-127, 127)


def with_narrow_weights(plan: ExportPlan, evaluator: CheckedEvaluator, bounds: tuple[int, int]) -> ExportPlan:
    """Returns a plan whose layers have no weight beyond bounds.

    Args:
        plan: the plan.
        evaluator: its ``calibration`` runs the batches.
        bounds: the least and the greatest weight.

    Raises:
        CalibrationError: it ran no batch, or nothing through one of these layers.
    """
    wide = [layer for layer in plan.layers.values() if _has_beyond(layer, bounds)]
    if not wide:
        return plan
    log_for("export").info(
        "%s weights beyond [%d, %d]; they are rounded again.", plural(len(wide), "layer", "has", "have"), *bounds
    )
    seen = {layer.name: _Seen(layer, bounds) for layer in wide}
    by_quantizer: dict[str, list[_Seen]] = {}
    for each in seen.values():
        by_quantizer.setdefault(each.layer.quantizer.name, []).append(each)
    observers = {name: _Observers(each).observe for name, each in by_quantizer.items()}
    observe(plan.view, plan.outputs, observers, evaluator)
    narrow: Mapping[str, QuantizedLayer] = {name: each.narrow() for name, each in seen.items()}
    return replace(plan, layers={**plan.layers, **narrow})


def _has_beyond(layer: QuantizedLayer, bounds: tuple[int, int]) -> bool:
    return layer.weights is not None and bool(np.any((layer.weights < bounds[0]) | (layer.weights > bounds[1])))


class _Observers:
    """Passes the output of a quantizer to all layers that read it."""

    def __init__(self, seen: list["_Seen"]) -> None:
        self._seen = seen

    def observe(self, value: np.ndarray) -> None:
        for each in self._seen:
            each.observe(value)


class _Seen:
    """The input of a layer, in steps from the zero point."""

    def __init__(self, layer: QuantizedLayer, bounds: tuple[int, int]) -> None:
        assert layer.weights is not None and layer.op_type.matrix_form is not None
        self.layer = layer
        self._weights: np.ndarray = layer.weights
        self._form = layer.op_type.matrix_form
        self._node = layer.node
        self._bounds = bounds
        self._moments = SecondMoments()
        self._data: tuple[int, ...] = ()  # the shape of what was looked at last

    def observe(self, value: np.ndarray) -> None:
        if value.size:
            self._data = value.shape
            sample = Sample(ROWS_PER_IMAGE * len(value))
            self._moments.add(self._form.rows(self._node, value, self._weights.shape, sample))

    def narrow(self) -> QuantizedLayer:
        """Returns the layer with a wider step, and so smaller integers, where there are greater ones.

        Raises:
            CalibrationError: nothing was seen.
        """
        if not self._data:
            raise CalibrationError(
                f"calibration() of the evaluator ran nothing through the layer {self.layer.name!r}. Run all outputs."
            )
        factor = self._factor()
        spread = self.layer.op_type.along_channels(self._weights, factor)
        wanted = self._form.matrices(self._weights * spread, self._moments.groups)
        integers = np.zeros(wanted.shape, np.int8)
        for block, covariance, damping in self._moments.covariances():
            integers[:, block] = round_to_second_moments(
                wanted[:, block], np.ones((1, 1, 1)), covariance, damping, bounds=self._bounds
            )
        lost = np.einsum("gi,gio->go", self._moments.mean, wanted - integers)
        shift = self._form.per_channel(self._node, lost, self._weights.shape, self._data)
        bias = None if self.layer.bias is None else np.rint(self.layer.bias * factor + shift).astype(np.int32)
        return replace(
            self.layer,
            weights=self._form.weights(integers, self._weights.shape),
            bias=bias,
            deq_scale=(self.layer.deq_scale / factor).astype(np.float32),
        )

    def _factor(self) -> np.ndarray:
        """Returns the factor for the weights of each channel, or of all, that makes them fit the bounds."""
        channel_axes = self.layer.op_type.channel_axes
        others = tuple(axis for axis in range(self._weights.ndim) if axis not in channel_axes)
        lowest, highest = self._bounds
        least, greatest = self._weights.min(axis=others).ravel(), self._weights.max(axis=others).ravel()
        if self.layer.deq_scale.size == 1:
            least, greatest = least.min(keepdims=True), greatest.max(keepdims=True)
        return np.asarray(
            np.minimum(lowest / np.minimum(least, lowest).astype(float), highest / np.maximum(greatest, highest))
        )
