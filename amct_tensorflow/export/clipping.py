"""Which activations a quantizer makes superfluous, because it clips as much itself."""

from amct_tensorflow.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.export.output_grids import limits
from amct_tensorflow.graph.clips import Clip

# Rounding a scale to float32 may take the end of a range beyond that of a clip by so much, relatively; it is far below
# a step.
_TOLERANCE = 1e-6


def is_clipped_by(clip: Clip, grid: ActivationFactors) -> bool:
    """Tells whether the 256 values of a grid all lie in the range of a clip."""
    lowest, highest = limits(grid)
    slack = _TOLERANCE * (highest - lowest)
    return lowest >= clip.lowest - slack and highest <= clip.highest + slack
