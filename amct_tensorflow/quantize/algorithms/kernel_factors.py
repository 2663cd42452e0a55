"""Which factors TensorFlow's requantizing kernel multiplies by, to the bit.

``RequantizePerChannel`` takes sums of 32 bits to bytes in one pass. Per channel it is told a range ``r``, and
multiplies by ``255 * (r / requested / 2**31)`` in float32. Where ``requested`` is a power of two, all of it but the
product with 255 is exact: the kernel multiplies by a factor if some float32, called a quotient here, is rounded to it
when multiplied by 255. Three floats of a thousand have no quotient, all with a mantissa above 255 / 128.
"""

import numpy as np

from amct_tensorflow.quantize.algorithms.scales import SMALLEST_SCALE

HIGHEST_BYTE = 255
# A move or two nearly always reach a factor with a quotient. Where each leads two floats on, some fifty may have none
# in turn; where none ever does, as at the ends of float32, steps stay as they are.
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


def settled_steps(steps: np.ndarray, scale_d: float, inverse: np.float32) -> np.ndarray:
    """Returns steps of weights, each the next one for which the kernel multiplies by the layer's whole factor.

    The factor is ``scale_d * step * inverse``, rounded after each product. Steps only grow, so that whatever fitted
    still does, nearly always by some 1e-7 of themselves.

    Args:
        steps: float32 [Cout] or [1].
        scale_d: the step of what the layer reads.
        inverse: what the quantizer behind the layer multiplies by.
    """
    settled = steps
    for _ in range(_MOST_MOVES):
        with np.errstate(over="ignore"):
            factors = np.float32(scale_d) * settled * inverse
        unsettled = np.isnan(quotients(factors))
        if not unsettled.any():
            return settled
        settled = np.where(unsettled, np.nextafter(settled, np.float32(np.inf)), settled)
    return steps
