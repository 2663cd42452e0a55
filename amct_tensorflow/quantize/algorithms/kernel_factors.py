"""Where TensorFlow's requantizing kernel yields the very bytes of the simulation.

``RequantizePerChannel`` takes sums of 32 bits to bytes in one pass. Per channel it is told a range ``r``, and
multiplies by ``255 * (r / requested / 2**31)`` in float32. Where ``requested`` is a power of two, all of it but the
product with 255 is exact: the kernel multiplies by a factor if some float32, called a quotient here, is rounded to it
when multiplied by 255. Three floats of a thousand have no quotient, all with a mantissa above 255 / 128.

The simulation multiplies by the same factor, and rounds once, where a quantizer reads a dequantizer. With a clip
between them it multiplies twice. Both ways are monotonic, so that they yield the same bytes if they do so for the sums
next to where a byte becomes the next one.
"""

import numpy as np

from amct_tensorflow.ops.clips import Clip
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.quantize.algorithms.scales import SMALLEST_SCALE

HIGHEST_BYTE = 255
# What AscendQuant calls the offset of unsigned bytes whose zero point is 0, as kernels yield them.
BYTE_OFFSET = -128
# Up to here float32 holds every integer.
EXACT_SUMS = 2**24
# A move or two nearly always lead to exact bytes. Where each leads two floats on, some fifty may have no quotient in
# turn. Where none ever has, as at the ends of float32, or if a byte takes millions of sums, the step stays as it is.
_MOST_MOVES = 128


def quotients(factors: np.ndarray) -> np.ndarray:
    """Returns per factor a quotient, float32; NaN where there is none.

    Args:
        factors: float32 above 0, of any shape.
    """
    nearest = (factors.astype(np.float64) / HIGHEST_BYTE).astype(np.float32)
    tried = np.stack([nearest, np.nextafter(nearest, np.float32(0)), np.nextafter(nearest, np.float32(np.inf))])
    with np.errstate(over="ignore"):
        fits = (tried * np.float32(HIGHEST_BYTE) == factors) & (tried >= SMALLEST_SCALE) & np.isfinite(factors)
    first = np.take_along_axis(tried, fits.argmax(axis=0)[np.newaxis], axis=0)[0]
    return np.where(fits.any(axis=0), first, np.float32(np.nan))


def limits_of(grid: ActivationFactors, clip: Clip) -> tuple[int, int]:
    """Returns the least and the greatest byte of clipped values."""
    lowest, highest = (grid.integer_of(bound) - BYTE_OFFSET for bound in clip)
    return lowest, highest


def has_exact_bytes(deq_scale: np.ndarray, grid: ActivationFactors, clip: Clip | None) -> np.ndarray:
    """Tells per channel whether the kernel yields the bytes of the simulation, bool [Cout].

    Args:
        deq_scale: what the dequantizer multiplies by, float32 [Cout].
        grid: scale and offset of the quantizer, in 8 bits.
        clip: how values are clipped between the two; None if the quantizer reads the dequantizer.
    """
    with np.errstate(over="ignore"):
        factors = deq_scale * grid.inverse
    exact = np.asarray(~np.isnan(quotients(factors)))
    if clip is not None and exact.any():
        exact[exact] = _round_alike(deq_scale[exact], factors[exact], grid, clip)
    return exact


def _round_alike(deq_scale: np.ndarray, factors: np.ndarray, grid: ActivationFactors, clip: Clip) -> np.ndarray:
    """Tells per channel whether bytes are the same where sums are multiplied once and where they are twice."""
    steps = (np.arange(HIGHEST_BYTE) + 0.5) / factors[:, np.newaxis].astype(np.float64)
    around = np.floor(steps)[..., np.newaxis] + np.arange(-1, 3)
    sums = np.minimum(around, EXACT_SUMS).astype(np.float32)
    once, first = (each[:, np.newaxis, np.newaxis] for each in (factors, deq_scale))
    values = np.clip(sums * first, np.float32(clip.lowest), np.float32(clip.highest))
    simulated = np.clip(np.rint(values * grid.inverse), 0, HIGHEST_BYTE)
    lowest, highest = limits_of(grid, clip)
    return np.asarray((simulated == np.clip(np.rint(sums * once), lowest, highest)).all(axis=(1, 2)))


def settled_steps(steps: np.ndarray, scale_d: float, grid: ActivationFactors, clip: Clip) -> np.ndarray:
    """Returns steps of weights, each the next one for which the kernel yields the bytes of the simulation.

    Steps only grow, so that whatever fitted still does, nearly always by some 1e-7 of themselves.

    Args:
        steps: float32 [Cout] or [1].
        scale_d: the step of what the layer reads.
        grid: scale and offset of the quantizer behind the layer.
        clip: how values are clipped between them; the quantized model has no clip that the quantizer repeats.
    """
    settled, between = steps.copy(), None if grid.repeats(clip) else clip
    unsettled = np.arange(steps.size)
    for _ in range(_MOST_MOVES):
        with np.errstate(over="ignore"):
            deq_scale = np.float32(scale_d) * settled[unsettled]
        unsettled = unsettled[~has_exact_bytes(deq_scale, grid, between)]
        if not unsettled.size:
            break
        settled[unsettled] = np.nextafter(settled[unsettled], np.float32(np.inf))
    settled[unsettled] = steps[unsettled]
    return settled
