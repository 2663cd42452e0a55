"""By what to divide each channel of an activation, whether to, and how strongly.

A tensor of channels ``x`` is rounded in steps of ``s = max|x / f| * f / 255`` if each is divided by its ``f``, and the
weights ``w`` of a layer that reads it, which are multiplied by ``f``, in steps of ``t = max|w * f| / f / 127``, where
the second maximum is over what shares a scale. Rounding in steps of ``s`` errs by ``s^2 / 12`` in the mean square, but
never by more than all there is. So an output channel errs, in terms of its own mean square and as if the channels were
independent, by

    sum(w^2 * min(s^2 / 12, E[x^2]) + min(t^2 / 12, w^2) * E[x^2]) / sum(w^2 * E[x^2])

What counts is the geometric mean of this over the output channels: all of them count alike, since a layer behind may
make anything of a small one, and a few that are next to nothing decide nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from amct_tensorflow.ops import OpType

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

    op: OpType
    weights: np.ndarray
    channel_wise: bool

    @property
    def largest_weights(self) -> np.ndarray:
        """The largest absolute weight per input channel, float64 [Cin]."""
        others = tuple(axis for axis in range(self.weights.ndim) if axis != self.op.input_axis)
        return np.asarray(np.abs(self.weights.astype(np.float64)).max(axis=others))

    def errors(self, mean_squares: np.ndarray, highest: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """Returns the mean square errors of its output channels, in terms of their mean squares.

        Channels that are always 0 are left out.

        Args:
            mean_squares: of what it reads, float64 [Cin].
            highest: the largest absolute values of that, likewise.
            factors: by what that is divided, likewise.
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
    """Returns by what to divide each channel of a tensor that layers read; None if that gains too little.

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
