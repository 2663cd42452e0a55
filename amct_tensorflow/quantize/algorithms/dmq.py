"""Computes the factors that equalize the channels of an activation, and chooses the strength that gains most.

Each channel ``x`` of a tensor is divided by its factor ``f``, and the weights ``w`` of the layers that read it are
multiplied by ``f``. The channel is then rounded in steps of ``s = max|x / f| * f / 255``, with the maximum over all
channels, and the weights in steps of ``t = max|w * f| / f / 127``, with the maximum over the weights that share a
scale. Rounding in steps of ``s`` has the mean square error ``s^2 / 12``, but at most the mean square of the values. So
the relative mean square error of an output channel is, as if the input channels were independent,

    sum(w^2 * min(s^2 / 12, E[x^2]) + min(t^2 / 12, w^2) * E[x^2]) / sum(w^2 * E[x^2])

Strengths are compared by the geometric mean of this over the output channels. In it all channels weigh the same, since
a later layer may scale a small one up, and a few channels that are nearly 0 do not decide.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
    limited = np.clip(factors, _SMALLEST, 1 / _SMALLEST)
    return tuple(limited.astype(np.float32).tolist())


# By what the error must fall, while that of no reader rises. It is an estimate that knows nothing of refined ranges and
# of rounding by second moments, which gain the same where channels differ little: Xception, whose streams promise 4 to
# 10 dB, loses 2 dB if they are balanced. Where one scale really loses channels, 40 dB and more are promised.
_LEAST_GAIN = 100.0
_STRENGTHS = np.linspace(*STRENGTHS, 13)


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer that reads the tensor.

    Attributes:
        op: its op type.
        weights: float32, in the layout of the op.
        channel_wise: whether every output channel has a scale of its own.
    """

    op: Quantizable
    weights: np.ndarray
    channel_wise: bool

    @property
    def largest_weights(self) -> np.ndarray:
        """The largest absolute weight per input channel, float64 [Cin]."""
        others = tuple(axis for axis in range(self.weights.ndim) if axis != self.op.input_axis)
        return np.asarray(np.abs(self.weights.astype(np.float64)).max(axis=others))

    def errors(self, mean_squares: np.ndarray, highest: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """Returns the mean square errors of its output channels, relative to their mean squares.

        Channels that are always 0 are left out.

        Args:
            mean_squares: mean squares of its input channels, float64 [Cin].
            highest: largest absolute values of its input channels, likewise.
            factors: the factors of its input channels, likewise.
        """
        squares, axes = self.weights.astype(np.float64) ** 2, self.op.channel_axes
        summed = tuple(axis for axis in range(squares.ndim) if axis not in axes)
        shape = [-1 if axis == self.op.input_axis else 1 for axis in range(squares.ndim)]
        power, divided = mean_squares.reshape(shape), factors.reshape(shape)
        step = (highest / factors).max() / 255 * divided
        scaled = np.sqrt(squares) * divided
        of_weights = scaled.max(axis=summed if self.channel_wise else None, keepdims=True) / 127 / divided
        lost = squares * np.minimum(step**2 / 12, power) + np.minimum(of_weights**2 / 12, squares) * power
        signal = (squares * power).sum(axis=summed).reshape(-1)
        return np.asarray(lost.sum(axis=summed).reshape(-1)[signal > 0] / signal[signal > 0])


def choose_factors(
    readers: Sequence[Reader], mean_squares: np.ndarray, highest: np.ndarray
) -> tuple[float, ...] | None:
    """Returns the factors of the channels of a tensor; None if they gain too little.

    Args:
        readers: the layers.
        mean_squares: of the channels, float64 [Cin].
        highest: the largest absolute values of the channels, likewise.
    """

    def errors(factors: Sequence[float] | np.ndarray) -> list[np.ndarray]:
        """Logarithms, per reader."""
        values = np.asarray(factors, np.float64)
        found = [np.log(reader.errors(mean_squares, highest, values)) for reader in readers]
        return [each for each in found if each.size]

    before = errors(np.ones_like(highest))
    if not before:
        return None
    weights = np.max([reader.largest_weights for reader in readers], axis=0)
    candidates = [balance_factors(highest, weights, float(strength)) for strength in _STRENGTHS]
    best = min(candidates, key=lambda factors: float(np.concatenate(errors(factors)).mean()))
    after = errors(best)
    gain = np.concatenate(before).mean() - np.concatenate(after).mean()
    gets_worse = any(one.mean() < other.mean() for one, other in zip(before, after, strict=True))
    return best if gain > np.log(_LEAST_GAIN) and not gets_worse else None
