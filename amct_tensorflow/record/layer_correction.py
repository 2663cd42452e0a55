"""What a calibration found for a layer beyond its factors."""

import hashlib
from dataclasses import dataclass, fields

import numpy as np

from amct_tensorflow.graph.fusion import FusedLayer


@dataclass(frozen=True, eq=False)
class LayerCorrection:
    """How a quantized layer is brought closer to the float one, with the factors that it has.

    With ``y`` the layer's dequantized output, its own bias included, the layer yields ``gain * y + bias``.

    Attributes:
        bias: float64 [Cout], in units of the layer's output; None for 0.
        gain: float64 [Cout], above 0; None for 1.
        weights: the integers that its weights become, int8 in their own layout; None if each is the nearest one.
    """

    bias: np.ndarray | None = None
    gain: np.ndarray | None = None
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
        per_channel = (values for values in (self.bias, self.gain) if values is not None)
        fits_channels = all(values.shape == (layer.channels,) for values in per_channel)
        return fits_channels and (
            self.weights is None or (layer.weights is not None and self.weights.shape == layer.weights.shape)
        )

    @property
    def weights_digest(self) -> str | None:
        """Tells the integers from any others; None if each is the nearest one."""
        if self.weights is None:
            return None
        return hashlib.sha256(f"{self.weights.shape}".encode() + self.weights.tobytes()).hexdigest()[:16]
