"""Chooses by which factors to divide the channels of tensors, or that none pay.

The error of a layer's output has two parts, both less its mean, which bias correction takes. The activations are
rounded in one step and clipped to one range; channel ``c`` then differs by ``e_c``, as measured. The weights are
rounded in steps ``t`` per output channel, on average by ``t^2 / 12``. With the factors ``f``, an output loses

    sum_c |w_c|^2 * E[e_c^2]  +  t^2 / 12 * sum_c n * D_c / f_c^2        t = max|w_c * f_c| / 127

where ``n`` weights of an output read each channel, and ``D_c`` is what is left of the channel's variance when the
others are known: rounding by second moments makes up for the rest (``rounding``). Errors of several channels, and at
several places of a window, count as independent.

Factors and range are those of one half of the rows, and ``e`` is measured on the other; then the other way round. Rows
are in the order of the images, so that each half judges what the other half's images do not show. It matters more than
all the rest: factors make every channel as large as the range, so that what exceeds the observed values of its channel
is clipped. Without them most channels have room. Few images promise gains of 10 dB that others turn into losses.

A gain is the ratio of errors without and with factors. Each reader counts on its own, in each half, and in two ways:
by the sum of its output channels' errors, as if the channels met as they are, and by their geometric mean, as if later
layers scaled them to one size. The least of these gains must be enough, and the strength is that of the greatest least
gain.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from amct_tensorflow.ops import Quantizable
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.quantize.algorithms.distribution import Distribution
from amct_tensorflow.quantize.algorithms.dmq import balance_factors, largest_weights
from amct_tensorflow.quantize.algorithms.rounding import SINGLE_FROM, cholesky_by_blocks

# At 0 the weights of all channels would be of one size; at 1 the channels themselves, with no room for later values.
_STRENGTHS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Where the search among them begins.
_FIRST = 3
# What a range is chosen by; its error is a mean over these values.
_VALUES = 1 << 14
# As in the rounding of weights: what of a variance others are not trusted to make up for.
_DAMPING = 0.1
_WEIGHT_STEPS = 127
# Fewer show nothing of others.
_LEAST_ROWS = 2


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

    @cached_property
    def largest(self) -> np.ndarray:
        """The largest absolute weight per input channel and output that reads it, float32 [Cin, outputs]."""
        return self._per_channel(np.abs(self.weights).max(axis=self._places, initial=0))

    @cached_property
    def squares(self) -> np.ndarray:
        """The sum of the squared weights, likewise."""
        return self._per_channel(np.square(self.weights).sum(axis=self._places))

    def errors(self, of_inputs: np.ndarray, variances: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """Returns the mean square errors of its outputs.

        Args:
            of_inputs: mean squares of the errors of its input channels, float64 [Cin].
            variances: of its input channels, as far as rounding does not make up for them, likewise.
            factors: likewise.
        """
        places = self.weights.size // self.largest.size
        scaled = self.largest * factors.astype(np.float32)[:, np.newaxis]
        shared = places * variances / factors**2
        if self._is_depthwise:
            steps = np.asarray(scaled if self.channel_wise else scaled.max(), np.float64) / _WEIGHT_STEPS
            return np.ravel(self.squares * of_inputs[:, np.newaxis] + steps**2 / 12 * shared[:, np.newaxis])
        steps = scaled.max(axis=0 if self.channel_wise else None).astype(np.float64) / _WEIGHT_STEPS
        return np.asarray(of_inputs.astype(np.float32) @ self.squares + steps**2 / 12 * shared.sum())

    @property
    def _is_depthwise(self) -> bool:
        """Whether an output reads one channel."""
        return self.op.input_axis in self.op.channel_axes

    @property
    def _places(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(self.weights.ndim) if axis not in self._kept)

    @property
    def _kept(self) -> list[int]:
        assert self.op.input_axis is not None
        return sorted({self.op.input_axis, *self.op.channel_axes})

    def _per_channel(self, values: np.ndarray) -> np.ndarray:
        first = np.moveaxis(values, self._kept.index(self.op.input_axis or 0), 0)
        return first.reshape(len(first), -1)


class Rows(NamedTuple):
    """What was seen of the channels of a tensor.

    Attributes:
        sample: the channels at some places, float32 [rows, C].
        highest: the largest absolute value of each at all places, float32 [C].
    """

    sample: np.ndarray
    highest: np.ndarray


@dataclass(frozen=True, eq=False)
class ReadTensor:
    """A tensor, and the layers that read it.

    Attributes:
        halves: what the first images show, and what the others do.
        readers: the layers.
        search: returns the factors that calibration would choose for a distribution of its values.
        makes_up: whether weights are rounded by second moments.
    """

    halves: tuple[Rows, Rows]
    readers: Sequence[Reader]
    search: Callable[[Distribution], ActivationFactors]
    makes_up: bool = True

    @cached_property
    def variances(self) -> np.ndarray:
        """The variances of the channels, as far as rounding does not make up for them, float64 [C]."""
        rows = np.concatenate([half.sample for half in self.halves])
        rows -= rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        if not self.makes_up:
            return np.asarray(np.einsum("rc,rc->c", rows, rows), np.float64) / len(rows)
        return _unexplained(rows.T @ rows / np.float32(len(rows)))

    def errors(self, fitted: int, factors: np.ndarray) -> list[np.ndarray]:
        """Returns per reader the mean square errors of its outputs.

        Args:
            fitted: which half the range is chosen by; the errors are those of the other.
            factors: by what the channels are divided, float64 [C].
        """
        inverse = (1 / factors).astype(np.float32)
        values, others = (self.halves[half].sample * inverse for half in (fitted, 1 - fitted))
        activation = self.search(_distribution(values))
        shift = _rounding_errors(values, activation).mean(axis=0, dtype=np.float64).astype(np.float32)
        lost = _rounding_errors(others, activation)
        lost -= shift
        of_inputs = np.einsum("rc,rc->c", lost, lost).astype(np.float64) / len(lost) * factors**2
        return [reader.errors(of_inputs, self.variances, factors) for reader in self.readers]


def choose_factors(tensors: Sequence[ReadTensor], least_gain: float) -> tuple[float, ...] | None:
    """Returns the factors of the channels of tensors; None if they gain too little.

    Args:
        tensors: those that share their factors.
        least_gain: the least ratio of errors without factors and with them that is enough, for every reader.
    """
    if any(len(half.sample) < _LEAST_ROWS for tensor in tensors for half in tensor.halves):
        return None
    weights = np.max([largest_weights(each.op, each.weights) for tensor in tensors for each in tensor.readers], axis=0)
    halves = [np.max([tensor.halves[half].highest for tensor in tensors], axis=0).astype(np.float64) for half in (0, 1)]

    def errors(strength: float | None) -> Iterator[np.ndarray]:
        """Per half and reader."""
        for half, highest in enumerate(halves):
            factors = np.ones(len(highest)) if strength is None else balance_factors(highest, weights, strength)
            for tensor in tensors:
                yield from tensor.errors(half, np.asarray(factors, np.float64))

    without = list(errors(None))
    if not all(each.any() for each in without):
        return None

    def gain(index: int, least: float) -> float:
        """Of a strength, as far as it is above the least."""
        return _least_gain(without, errors(_STRENGTHS[index]), least) if 0 <= index < len(_STRENGTHS) else 0.0

    best, most = _FIRST, gain(_FIRST, 0.0)
    for step in (1, -1):
        while (other := gain(best + step, most)) > most:
            best, most = best + step, other
        if best != _FIRST:
            break
    if most < least_gain:
        return None
    return balance_factors(np.maximum(*halves), weights, _STRENGTHS[best])


def _least_gain(without: Sequence[np.ndarray], errors: Iterable[np.ndarray], least: float) -> float:
    """Returns the least ratio of errors, by their sums over outputs and by their geometric means.

    What is not above ``least`` is of no use, so that nothing more is measured then.
    """
    found = math.inf
    for before, after in zip(without, errors, strict=False):
        some = before > 0
        ratios = before[some] / np.maximum(after[some], np.finfo(np.float64).tiny)
        of_sums = float(before.sum() / max(after.sum(), np.finfo(np.float64).tiny))
        found = min(found, of_sums, float(np.exp(np.log(ratios).mean())))
        if found <= least:
            break
    return found


def _distribution(values: np.ndarray) -> Distribution:
    """Returns the distribution of some of the values, and their ends."""
    stride = max(1, values.size // _VALUES)
    while math.gcd(stride, values.shape[1]) > 1:
        stride += 1
    lowest, highest = float(values.min()), float(values.max())
    seen = np.sort(np.append(values.ravel()[::stride], np.array([lowest, highest], np.float32))).astype(np.float64)
    return Distribution(seen, np.ones(seen.size), lowest, highest, 0.0)


def _rounding_errors(values: np.ndarray, activation: ActivationFactors) -> np.ndarray:
    """Returns by what the values of integers differ from the values themselves, float32."""
    lowest, highest = (limit / activation.scale for limit in activation.limits)
    errors = np.asarray(values * activation.inverse)
    np.rint(errors, out=errors)
    np.clip(errors, np.float32(lowest), np.float32(highest), out=errors)
    errors *= np.float32(activation.scale)
    errors -= values
    return errors


def _unexplained(covariance: np.ndarray) -> np.ndarray:
    """Returns what is left of each channel's variance when those of smaller variance are known.

    Rounding goes through the channels by falling variance, so that those that follow make up for the errors. Every
    variance is enlarged in proportion, so that float32 factorizes whatever the sizes of the channels.
    """
    order = np.argsort(-np.diagonal(covariance), kind="stable")[::-1]
    damped = covariance[np.ix_(order, order)]
    damped[np.diag_indices_from(damped)] = np.diagonal(damped) * (1 + _DAMPING) + np.finfo(np.float32).tiny
    found = np.empty(len(order))
    factor = cholesky_by_blocks(damped) if len(damped) >= SINGLE_FROM else np.linalg.cholesky(damped)
    found[order] = np.diagonal(factor).astype(np.float64) ** 2
    return np.where(np.diagonal(covariance) > 0, found, 0.0)
