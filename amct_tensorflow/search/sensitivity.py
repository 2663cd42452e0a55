"""How strongly a layer reacts to quantization (spec section 6.2)."""

import math

import numpy as np

from amct_tensorflow.calibration.channel_sums import ChannelSums
from amct_tensorflow.search.divergence import Divergence


class SensitivityBase:
    """Base class of sensitivities: compares the float output of a layer with the quantized one."""

    def compare(self, data: np.ndarray, other: np.ndarray) -> float:
        """Tells how alike two outputs are; the layers with the smallest values are rolled back first.

        Args:
            data: output of the float layer.
            other: output of the quantized layer, same shape.
        """
        raise NotImplementedError


class CosineSimilaritySensitivity(SensitivityBase):
    """``0.5 + 0.5 * cos(data, other)``: 1 for a layer that quantization leaves as it is, 0 for opposite outputs."""

    def compare(self, data: np.ndarray, other: np.ndarray) -> float:
        """Returns the similarity, in [0, 1]; 1 if ``data`` is all zero, 0 if only ``other`` is."""
        sums = ChannelSums(1)
        sums.add(data, other, 1.0)
        return sums.similarity(corrected=False)


class OutputDivergenceSensitivity(SensitivityBase):
    """``exp(-d)``, where ``d`` is how far the outputs of the *model* move when one layer alone is quantized.

    The engine gives it the model's outputs instead of the layer's; ``d`` is described at ``Divergence``.
    """

    def compare(self, data: np.ndarray, other: np.ndarray) -> float:
        """Returns 1 for equal outputs, less the further ``other`` lies from ``data``."""
        divergence = Divergence(1)
        divergence.add([data], [other])
        return self.similarity(divergence.value)

    @staticmethod
    def similarity(divergence: float) -> float:
        """Turns a divergence, at least 0, into a similarity in [0, 1]."""
        return math.exp(-divergence)
