"""Values that lie in the middle between two levels, as images of 8 bits scaled to a range around 0 all do.

Images divided by 127.5, less 1, are ``(k - 127.5) * 2 / 255``; with a range of [-1, 1] the scale is 2 / 255. Which
level such a tie becomes differs: AscendQuant and ONNX round it to even, TensorFlow's fake quantizers up, OpenVINO by
the parity of the zero point; and what float32 loses decides, too. To even, 129 of the 256 levels of the image are left.

There are no ties where the scale is a hair larger, or the values are.
"""

import numpy as np

from amct_tensorflow.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.algorithms.distribution import Distribution

# In terms of a step. Float32 loses 2**-16 of one at the ends of a range; values that are no ties hardly notice it.
HAIR = 2.0**-10
# A value stands for others on the grid of a histogram, which may be this far off.
_NEAR = 2.0**-6


def part_ties(distribution: Distribution, factors: ActivationFactors) -> ActivationFactors:
    """Returns the factors with a scale a hair larger if most values are ties; else as they are.

    Args:
        distribution: the values observed.
        factors: scale and zero point that were chosen for them.
    """
    steps = np.abs(distribution.values / factors.scale)
    ties = np.abs(steps - np.floor(steps) - 0.5) < _NEAR
    if 2 * distribution.counts[ties].sum() <= distribution.counts.sum():
        return factors
    return ActivationFactors(float(np.float32(factors.scale * (1 + HAIR))), factors.offset)
