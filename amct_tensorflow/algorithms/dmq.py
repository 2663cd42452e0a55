"""DMQ balancing: by what to divide each channel of an activation (spec section 7.6)."""

import numpy as np

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
        Float32 values that can be divided by, [Cin].
    """
    both = (activations > 0) & (weights > 0)
    factors = np.ones_like(activations, np.float64)
    factors[both] = activations[both] ** strength / weights[both] ** (1 - strength)
    if both.any():
        only_activations = (activations > 0) & ~both
        only_weights = (weights > 0) & ~both
        factors[only_activations] = activations[only_activations] / np.max(activations[both] / factors[both])
        factors[only_weights] = np.max(weights[both] * factors[both]) / weights[only_weights]
    limited = np.clip(factors, _SMALLEST, 1 / _SMALLEST)
    return tuple(limited.astype(np.float32).tolist())
