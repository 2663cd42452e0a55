"""How strongly a layer reacts to quantization (spec section 6.2)."""

import math

import numpy as np

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

    # float32 products are summed in blocks, and the blocks in float64: as fast as BLAS, exact to about 1e-7.
    _BLOCK = 4096

    def compare(self, data: np.ndarray, other: np.ndarray) -> float:
        """Returns the similarity, in [0, 1]; 1 if ``data`` is all zero, 0 if only ``other`` is."""
        data, other = np.ravel(data), np.ravel(other)
        data_square, other_square = self._dot(data, data), self._dot(other, other)
        if data_square == 0:
            return 1.0
        if other_square == 0:
            return 0.0
        cosine = self._dot(data, other) / np.sqrt(data_square * other_square)
        return 0.5 + 0.5 * float(np.clip(cosine, -1.0, 1.0))

    def _dot(self, left: np.ndarray, right: np.ndarray) -> float:
        whole = left.size - left.size % self._BLOCK
        blocks = np.matmul(left[:whole].reshape(-1, 1, self._BLOCK), right[:whole].reshape(-1, self._BLOCK, 1))
        rest = np.dot(left[whole:].astype(np.float64), right[whole:].astype(np.float64))
        return float(np.sum(blocks, dtype=np.float64) + rest)


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
