"""The factors of a layer: what calibration finds, and all that quantization needs to know."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class LayerFactors:
    """The factors of one layer.

    Attributes:
        scale_d: step of the quantized input; a float32 value.
        offset_d: zero point of the input, in [-128, 127].
        scale_w: steps of the quantized weights, float32 values: one, or one per output channel; empty for AvgPool.
        skip_fusion: whether a BatchNorm behind the layer is kept instead of folded.
    """

    scale_d: float
    offset_d: int
    scale_w: tuple[float, ...] = ()
    skip_fusion: bool = False


def unfused_layers(factors: Mapping[str, LayerFactors]) -> list[str]:
    """Returns the layers behind which a BatchNorm is kept, since factors are those of the fused layers (spec 4)."""
    return [name for name, layer in factors.items() if layer.skip_fusion]
