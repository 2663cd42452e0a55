"""Computes the factors that equalize the channels of an activation (DMQ, spec section 7.6).

Each channel of the activation is divided by its factor, and the weights that read it are multiplied, which leaves the
product as it is. The strength says how far the sizes of channels migrate from the activation into the weights. Xiao et
al. 2023 ("SmoothQuant") use the same formula.
"""

import numpy as np

from amct_tensorflow.ops import Quantizable

DEFAULT_STRENGTH = 0.5
STRENGTHS = (0.2, 0.8)
_SMALLEST = float(np.finfo(np.float32).eps)


def balance_factors(activations: np.ndarray, weights: np.ndarray, strength: float) -> tuple[float, ...]:
    """Returns per channel ``max|x|^m / max|w|^(1-m)``; the activation is divided by it, weights are multiplied.

    A channel of zeros on both sides keeps its values. One of zeros on one side alone becomes as large on the other as
    the largest channel that is balanced.

    Args:
        activations: largest absolute value per channel, float64 [Cin].
        weights: largest absolute weight per channel, over all layers that read the activation, likewise.
        strength: the migration strength m.

    Returns:
        Float32 values above 0, [Cin].
    """
    both = (activations > 0) & (weights > 0)
    factors = np.ones_like(activations, np.float64)
    factors[both] = activations[both] ** strength / weights[both] ** (1 - strength)
    if both.any():
        only_activations = (activations > 0) & ~both
        only_weights = (weights > 0) & ~both
        factors[only_activations] = activations[only_activations] / np.max(activations[both] / factors[both])
        factors[only_weights] = np.max(weights[both] * factors[both]) / weights[only_weights]
    return tuple(_limited(factors).astype(np.float32).tolist())


def _limited(factors: np.ndarray) -> np.ndarray:
    """Returns the factors as they are or, if one is too small or too large, brought around 1 and limited.

    A multiple of all factors gives the same products. Small data and large weights make all factors small, so that
    limits alone would change their ratios.
    """
    if np.min(factors) >= _SMALLEST and np.max(factors) <= 1 / _SMALLEST:
        return factors
    middle = np.log2([np.min(factors), np.max(factors)]).mean()
    return np.asarray(np.clip(np.ldexp(factors, -int(np.rint(middle))), _SMALLEST, 1 / _SMALLEST))


def largest_weights(op: Quantizable, weights: np.ndarray) -> np.ndarray:
    """Returns the largest absolute weight per input channel, float64 [Cin].

    Args:
        op: the op type of a layer.
        weights: its weights, in the layout of the op.
    """
    others = tuple(axis for axis in range(weights.ndim) if axis != op.input_axis)
    return np.asarray(np.abs(weights.astype(np.float64)).max(axis=others))
