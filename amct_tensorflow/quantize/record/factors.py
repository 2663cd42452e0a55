"""The factors of a layer, and its corrections."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.model.fusion import FusedLayer
from amct_tensorflow.ops import Quantizable
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS, ActivationFactors


@dataclass(frozen=True)
class LayerFactors:
    """The factors of one layer.

    Attributes:
        scale_d: step of the quantized input; a float32 value.
        offset_d: zero point of the input, in [-128, 127]; 0 in 16 bits.
        scale_w: steps of the quantized weights, float32 values: one, or one per output channel; that of the second
            operand of a product of two computed ones; empty for AvgPool.
        skip_fusion: whether a BatchNorm behind the layer is kept instead of folded.
        num_bits: bits of the quantized input, 8 or 16.
    """

    scale_d: float
    offset_d: int
    scale_w: tuple[float, ...] = ()
    skip_fusion: bool = False
    num_bits: int = INT8_BITS

    def operands(self, op: Quantizable) -> tuple[ActivationFactors, ...]:
        """Returns scale and zero point of each operand that an op quantizes as activations; a second one has none."""
        second = () if op.second_input is None else (ActivationFactors(self.scale_w[0], 0),)
        return (ActivationFactors(self.scale_d, self.offset_d, self.num_bits), *second)


def unfused_layers(factors: Mapping[LayerName, LayerFactors]) -> list[LayerName]:
    """Returns the layers behind which a BatchNorm is kept, since factors are those of the fused layers (spec 4)."""
    return [name for name, layer in factors.items() if layer.skip_fusion]


def wide_layers(factors: Mapping[LayerName, LayerFactors]) -> list[LayerName]:
    """Returns the layers and inputs whose activations have 16 bits."""
    return [name for name, layer in factors.items() if layer.num_bits != INT8_BITS]


@dataclass(frozen=True, eq=False)
class LayerCorrection:
    """Corrections that bring a quantized layer closer to the float one, with the same factors.

    Attributes:
        bias: added to its bias, float64 [Cout], in units of the layer's output; None for nothing.
        weights: the integers that its weights become, int8 in their own layout; None if each is the nearest one.
    """

    bias: np.ndarray | None = None
    weights: np.ndarray | None = None

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Returns the names of its parts."""
        return tuple(part.name for part in fields(cls))

    def parts(self) -> dict[str, np.ndarray]:
        """Returns the parts that it has, by name."""
        found = {name: getattr(self, name) for name in self.names()}
        return {name: values for name, values in found.items() if values is not None}

    def fits(self, layer: FusedLayer) -> bool:
        """Tells whether it has the shapes that a layer asks for."""
        fits_channels = self.bias is None or self.bias.shape == (layer.channels,)
        shape = None if layer.weights is None else layer.weights.shape
        return fits_channels and (self.weights is None or self.weights.shape == shape)

    @property
    def weights_digest(self) -> str | None:
        """Digest of the integers; None if each is the nearest one."""
        if self.weights is None:
            return None
        return hashlib.sha256(f"{self.weights.shape}".encode() + self.weights.tobytes()).hexdigest()[:16]
