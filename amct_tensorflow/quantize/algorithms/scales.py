"""ARQ: the scales of a layer's weights (spec section 7.3); and the limits of scales.

TensorFlow, like other runtimes with float32 kernels, flushes numbers below the smallest normal one to 0.
"""

import numpy as np

from amct_tensorflow.errors import CalibrationError
from amct_tensorflow.ops import OP_TYPES

SMALLEST_SCALE = 2.0**-126
LARGEST_SCALE = 2.0**126

# The step of an activation of which nothing but 0 was seen, unless its layer's bias needs a smaller one. Any serves its
# values; but the bias is rounded to this times the step of the weights, so it must not be coarse.
SCALE_OF_NOTHING = 2.0**-8


_STEPS_BELOW, _STEPS_ABOVE = 128, 127


def arq_scales(name: str, op_type: str, weights: np.ndarray, channel_wise: bool) -> np.ndarray:
    """Chooses symmetric int8 scales.

    The rule reproduces the original toolkit's record of MobileNet V2 (spec section 7.3): the larger side of the range
    gets all its steps, 128 below zero or 127 above, unless the other side would then clip.

    Args:
        name: the layer, for messages.
        op_type: TensorFlow op type; it tells which axes are output channels.
        weights: folded weights, float32.
        channel_wise: one scale per output channel instead of one for all.

    Returns:
        Scales, float32 of shape [Cout] or [1]; 1 where all weights are 0.

    Raises:
        CalibrationError: the weights hold NaN or Inf.
    """
    if not np.isfinite(weights).all():
        raise CalibrationError(
            f"The weights of layer {name!r} have invalid value inf or nan. Repair the model, or set the layer's "
            "quant_enable to false."
        )
    axes = None
    if channel_wise:
        axes = tuple(axis for axis in range(weights.ndim) if axis not in OP_TYPES[op_type].channel_axes)
    above = np.atleast_1d(weights.max(axis=axes)).astype(np.float64).reshape(-1)
    below = -np.atleast_1d(weights.min(axis=axes)).astype(np.float64).reshape(-1)
    return symmetric_scale(above, below).astype(np.float32)


def symmetric_scale(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Returns the scale for values in ``[-below, above]``, 1 where both are 0; float64, elementwise."""
    with np.errstate(divide="ignore", invalid="ignore"):
        negative = below / _STEPS_BELOW
        clips = np.rint(above / negative) > _STEPS_ABOVE
    scale = np.where(below > above, np.where(clips, below / _STEPS_ABOVE, negative), above / _STEPS_ABOVE)
    return np.where(scale == 0, 1.0, np.maximum(scale, SMALLEST_SCALE))
