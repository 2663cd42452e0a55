"""Which activations a quantizer makes superfluous, because it clips as much itself."""

from amct_tensorflow.algorithms.activation_factors import ActivationFactors

# Rounding a scale to float32 may take the end of a range beyond 6 by so much, relatively; it is far below a step.
_TOLERANCE = 1e-6


def is_clipped_by(activation: str, grid: ActivationFactors) -> bool:
    """Tells whether the 256 values of a grid all lie in the range of ``Relu`` or ``Relu6``."""
    return grid.offset == -128 and (activation == "Relu" or 255 * grid.scale <= 6 * (1 + _TOLERANCE))
