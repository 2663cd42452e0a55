"""Where TensorFlow's integer convolutions yield the very bytes of the simulation.

``_FusedQuantizedConv2D`` adds products of bytes to sums of 32 bits, and makes them bytes in the same pass. Per channel
it is told the range ``r`` of the weights, and a bias ``b`` in float32. With data and bytes in steps of 1 it computes,
in float32, product and sum rounded each:

    clip(rint(products * (r / 127) + b), lowest, highest)

(As found by trying, with no difference in 40 million values: oneDNN of TensorFlow 2.16 to 2.21, on AVX-512 VNNI and on
AVX-VNNI, pointwise, 3 x 3 and depthwise; ``tests/search/integers/test_kernel_formula.py``.) The simulation multiplies
the sum of products and bias by one factor, and rounds once, where a quantizer reads a dequantizer. With a clip between
them it multiplies twice.

All of these err by little. So only sums close to where a byte becomes the next one can have another byte, as far as the
sums of a channel reach, and all of them are tried. In a fifth of the channels of usual layers some byte differs, and in
most of those that add up a thousand products or more. Most of them are served by a range or a bias that is one of the
next floats, and the others by a step of the weights that is. The two are compared with each other, and not with an
exact product: both round alike more often than right.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np

from amct_tensorflow.ops.clips import Clip
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS, ActivationFactors
from amct_tensorflow.quantize.algorithms.scales import SMALLEST_SCALE

HIGHEST_WEIGHT = 127
# Up to here float32 holds every integer.
EXACT_SUMS = 2**24
# With more, a byte would take less than a sixtieth of a sum. Scaled sums stay within 32 bits.
_LARGEST_FACTOR = 64.0
# Steps grow by fewer floats than this; in real networks by up to 54, which is less than 1e-5 of a step.
_MOST_MOVES = 127
# By how many floats range and bias are moved in turn, until the kernel yields the bytes of the simulation.
_MOVES = sorted(product((0, 1, -1), (0, 1, -1, 2, -2)), key=lambda moves: abs(moves[0]) + abs(moves[1]))
# So many are tried at once, each with hundreds of sums, which takes 20 MB.
_MOST_TRIED = 1 << 12
# Sixteen times what rounding to float32 takes from a number, which is more than all roundings of a byte and these moves
# add up to: twelve times 256, and eleven times the bias, of which twice as much is added.
_ROUNDING = 2.0**-20


@dataclass(frozen=True)
class ByteForm:
    """How the integers of a quantizer are held as bytes.

    Attributes:
        signed: whether they are signed.
        zero_point: the byte that stands for 0.
    """

    signed: bool
    zero_point: int

    @classmethod
    def of(cls, grid: ActivationFactors) -> "ByteForm":
        """Returns the form with the smaller zero point.

        Args:
            grid: scale and offset of the quantizer, in 8 bits.
        """
        unsigned = grid.offset - grid.lowest
        return cls(True, grid.offset) if abs(grid.offset) < unsigned else cls(False, unsigned)

    @property
    def lowest(self) -> int:
        """The least byte."""
        return -128 if self.signed else 0

    @property
    def highest(self) -> int:
        """The greatest one."""
        return 127 if self.signed else 255

    def limits(self, grid: ActivationFactors, clip: Clip | None) -> tuple[int, int]:
        """Returns the least and the greatest byte of values that are clipped in front of the quantizer, or not."""
        if clip is None:
            return self.lowest, self.highest
        lowest, highest = (grid.integer_of(bound) - grid.offset + self.zero_point for bound in clip)
        return lowest, highest


@dataclass(frozen=True, eq=False)
class KernelSums:
    """The sums of a layer, per output channel.

    Attributes:
        grid: scale and offset of its data, in 8 bits.
        positive: the sum of its weights above 0, int64 [Cout].
        negative: that of the magnitudes of those below 0, likewise.
        added: its bias, likewise.
    """

    grid: ActivationFactors
    positive: np.ndarray
    negative: np.ndarray
    added: np.ndarray

    @classmethod
    def of(cls, grid: ActivationFactors, weights: np.ndarray, bias: np.ndarray | None) -> "KernelSums":
        """Returns the sums of a layer.

        Args:
            grid: scale and offset of its data, in 8 bits.
            weights: int8, a row per output channel, [Cout, weights of a channel].
            bias: integers of any type, [Cout]; None without.
        """
        positive, total = (part.sum(axis=1, dtype=np.int64) for part in (np.maximum(weights, 0), weights))
        added = np.zeros(len(weights), np.int64) if bias is None else bias.astype(np.int64)
        return cls(grid, positive, positive - total, added)

    def of_channels(self, channels: np.ndarray, bias: np.ndarray | None) -> "KernelSums":
        """Returns the sums of some channels, with another bias; None for the same."""
        added = self.added[channels] if bias is None else bias.astype(np.int64)
        return KernelSums(self.grid, self.positive[channels], self.negative[channels], added)

    @property
    def form(self) -> ByteForm:
        """How its data is held."""
        return ByteForm.of(self.grid)

    @property
    def bias(self) -> np.ndarray:
        """What the kernel adds to products of bytes: the bias, less what the zero point adds; int64 [Cout]."""
        return np.asarray(self.added - self.form.zero_point * (self.positive - self.negative))

    @property
    def lowest(self) -> np.ndarray:
        """The least sum of whatever data, bias included, int64 [Cout]."""
        return np.asarray(self.added + self._least)

    @property
    def highest(self) -> np.ndarray:
        """The greatest one."""
        return np.asarray(self.added + self._greatest)

    @property
    def largest(self) -> np.ndarray:
        """A bound of the magnitude of sums of some of the products, in whatever order they are added, int64 [Cout]."""
        above, below = np.maximum(self.added, 0) + self._greatest, np.minimum(self.added, 0) + self._least
        return np.asarray(np.maximum(above, -below))

    @property
    def _least(self) -> np.ndarray:
        return np.asarray(self.positive * self._low - self.negative * self._high)

    @property
    def _greatest(self) -> np.ndarray:
        return np.asarray(self.positive * self._high - self.negative * self._low)

    @property
    def _low(self) -> int:
        return self.grid.lowest - self.grid.offset

    @property
    def _high(self) -> int:
        return self.grid.highest - self.grid.offset


def weight_ranges(factors: np.ndarray) -> np.ndarray:
    """Returns per factor the range of weights by which the kernel multiplies by it, or by a float next to it.

    Args:
        factors: from sums to bytes, float32 [Cout].
    """
    nearest = factors * np.float32(HIGHEST_WEIGHT)
    tried = np.stack([nearest, np.nextafter(nearest, np.float32(0)), np.nextafter(nearest, np.float32(np.inf))])
    fits = tried / np.float32(HIGHEST_WEIGHT) == factors
    return np.asarray(np.take_along_axis(tried, fits.argmax(axis=0)[np.newaxis], axis=0)[0])


def float_biases(factors: np.ndarray, bias: np.ndarray, zero_point: int) -> np.ndarray:
    """Returns what the kernel adds to scaled products, float32 [Cout].

    Args:
        factors: from sums to bytes, float32 [Cout].
        bias: what it would add to the products themselves, int64 [Cout].
        zero_point: that of the bytes that it yields.
    """
    return np.asarray(bias * factors.astype(np.float64) + zero_point, np.float32)


def kernel_bytes(products: np.ndarray, ranges: np.ndarray, biases: np.ndarray, form: ByteForm) -> np.ndarray:
    """Returns the bytes that the kernel makes of sums of products, as float32 of any shape.

    Args:
        products: integers of any type.
        ranges: the ranges of the weights that it is told, float32 that broadcasts against the products.
        biases: the biases, likewise.
        form: of the bytes.
    """
    values = products.astype(np.float32) * (ranges / np.float32(HIGHEST_WEIGHT)) + biases
    return np.asarray(np.clip(np.rint(values), form.lowest, form.highest))


@dataclass(frozen=True, eq=False)
class KernelNumbers:
    """What the kernel is told of a layer that yields bytes.

    Attributes:
        ranges: the ranges of the weights, float32 [Cout].
        biases: the biases, likewise.
        exact: whether it yields the bytes of the simulation, bool [Cout].
    """

    ranges: np.ndarray
    biases: np.ndarray
    exact: np.ndarray


def kernel_numbers(
    deq_scale: np.ndarray, sums: KernelSums, grid: ActivationFactors, clip: Clip | None
) -> KernelNumbers:
    """Returns what the kernel is to be told, so that it yields the bytes of the simulation if it can.

    Args:
        deq_scale: what the dequantizer multiplies by, float32 [Cout].
        sums: those that it takes to bytes.
        grid: scale and offset of the quantizer behind the layer, in 8 bits.
        clip: how values are clipped between the two; None if the quantizer reads the dequantizer.
    """
    form = ByteForm.of(grid)
    with np.errstate(over="ignore"):
        factors = deq_scale * grid.inverse
    usual = (factors >= SMALLEST_SCALE) & (factors <= _LARGEST_FACTOR)
    factors, deq_scale = (np.where(usual, each, np.float32(1)) for each in (factors, deq_scale))
    channels, tried = _sums_to_try(factors, sums, form)
    lowest, highest = form.limits(grid, clip)
    values = tried.astype(np.float32)
    if clip is None:
        values = values * factors[channels]
    else:
        values = values * deq_scale[channels]
        values = np.clip(values, np.float32(clip.lowest), np.float32(clip.highest)) * grid.inverse
    simulated = np.clip(np.rint(values) + form.zero_point, lowest, highest)
    products = tried - sums.bias[channels]
    ranges, biases = weight_ranges(factors), float_biases(factors, sums.bias, form.zero_point)
    found = KernelNumbers(ranges.copy(), biases.copy(), np.zeros(usual.shape, bool))
    for of_ranges, of_biases in _MOVES:
        left = usual & ~found.exact
        some = left[channels]
        if not some.any():
            break
        channels, products, simulated = channels[some], products[some], simulated[some]
        moved_ranges, moved_biases = _moved(ranges, of_ranges), _moved(biases, of_biases)
        bytes_ = kernel_bytes(products, moved_ranges[channels], moved_biases[channels], form)
        left[channels[np.clip(bytes_, lowest, highest) != simulated]] = False
        for values, moved in ((found.ranges, moved_ranges), (found.biases, moved_biases), (found.exact, left)):
            values[left] = moved[left]
    return found


def _moved(values: np.ndarray, floats: int) -> np.ndarray:
    """Returns values, each moved by so many floats."""
    for _ in range(abs(floats)):
        values = np.nextafter(values, np.float32(np.copysign(np.inf, floats)))
    return values


def _sums_to_try(factors: np.ndarray, sums: KernelSums, form: ByteForm) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sums of which rounding might make another byte than an exact product does.

    They are the least and the greatest of each channel, and those that are close to where a byte becomes the next one.

    Args:
        factors: from sums to bytes, float32 [Cout].
        sums: those of the channels.
        form: of the bytes.

    Returns:
        The number of a channel, and one of its sums, float64; both [sums].
    """
    steps = factors.astype(np.float64)[:, np.newaxis]
    lowest, highest = (each.astype(np.float64) for each in (sums.lowest, sums.highest))
    error = _ROUNDING * (2.0**INT8_BITS / steps + 2 * np.abs(sums.bias)[:, np.newaxis])
    edges = (np.arange(form.lowest, form.highest) + 0.5 - form.zero_point) / steps
    first = np.ceil(np.maximum(edges - error, lowest[:, np.newaxis]))
    counts = np.floor(np.minimum(edges + error, highest[:, np.newaxis])) - first + 1
    channels, places = np.nonzero(counts > 0)
    counts = counts[channels, places].astype(np.int64)
    behind = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    near = np.repeat(first[channels, places], counts) + behind
    every = np.arange(len(factors))
    return np.concatenate([every, every, np.repeat(channels, counts)]), np.concatenate([lowest, highest, near])


def settled_steps(steps: np.ndarray, is_exact: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Returns steps of weights, each moved to the next float that is exact.

    Steps only grow, so that whatever fitted still does. One for which none of the next floats is exact stays.

    Args:
        steps: float32 above 0, [Cout].
        is_exact: tells of steps, and of their indices, for each whether the kernel yields the bytes of the simulation.
    """
    settled, unsettled = steps.copy(), np.arange(steps.size)
    moves, number = 0, 1  # how many floats were tried of each, and how many are tried next
    while unsettled.size and moves < _MOST_MOVES:
        bits = steps[unsettled].view(np.int32)[:, np.newaxis]
        tried = (bits + np.arange(moves, moves + number, dtype=np.int32)).view(np.float32)
        exact = is_exact(tried.ravel(), np.repeat(unsettled, number)).reshape(tried.shape)
        found = exact.any(axis=1)
        settled[unsettled[found]] = tried[found, exact.argmax(axis=1)[found]]
        unsettled, moves = unsettled[~found], moves + number
        number = min(max(min(2 * number, _MOST_TRIED // max(unsettled.size, 1)), 1), _MOST_MOVES - moves)
    return settled
