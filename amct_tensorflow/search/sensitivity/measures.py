"""Sensitivities of layers to quantization (spec section 6.2)."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from amct_tensorflow.quantize.calibration.output_comparison import Comparison, OutputSums, compare
from amct_tensorflow.search.sensitivity.divergence import Divergence

# What of ``OutputDivergenceSensitivity`` compares outputs.
_COMPARING = "compare", "output_measure"


class SensitivityBase:
    """Base class of sensitivities, of which there are two kinds.

    One kind compares the float and the quantized output of each layer: calibration calls its ``compare``. The other
    compares the outputs of the model when one layer is quantized (``scores_outputs``): once layers are to be rolled
    back, the search passes these to the measure that ``output_measure`` returns.
    """

    scores_outputs = False

    def compare(self, data: np.ndarray, other: np.ndarray) -> float:
        """Returns the similarity of two outputs; the layers with the smallest values are rolled back first.

        Args:
            data: output of the float layer.
            other: output of the quantized layer, same shape.
        """
        raise NotImplementedError

    def layer_comparison(self) -> Comparison | None:
        """Returns the comparison that calibration uses for layers; None for the cosine similarity."""
        return self

    def output_measure(self, outputs: int) -> "OutputMeasure":
        """Returns a measure that takes that many outputs of the model, batch by batch."""
        raise NotImplementedError

    @property
    def similarity_of_divergence(self) -> Callable[[float], float] | None:
        """Turns a ``Divergence`` of the outputs into a similarity, if that is all that is asked for; else None.

        The search measures divergences anyway, and does not call ``output_measure`` then.
        """
        return None


class CosineSimilaritySensitivity(SensitivityBase):
    """``0.5 + 0.5 * cos(data, other)``: 1 for a layer that quantization leaves as it is, 0 for opposite outputs."""

    def compare(self, data: np.ndarray, other: np.ndarray) -> float:
        """Returns the similarity, in [0, 1]; 1 if ``data`` is all zero, 0 if only ``other`` is."""
        sums = OutputSums()
        sums.add(data, other)
        return sums.similarity

    def layer_comparison(self) -> Comparison | None:
        """Returns None, unless a subclass overrides ``compare``."""
        return None if type(self).compare is CosineSimilaritySensitivity.compare else self


class OutputDivergenceSensitivity(SensitivityBase):
    """``exp(-d)``, with ``d`` the divergence of the outputs of the *model* when one layer alone is quantized.

    ``Divergence`` describes ``d``. A subclass may override ``compare``: it is then called with each output and each
    calibration batch, and the mean counts.
    """

    scores_outputs = True

    def compare(self, data: np.ndarray, other: np.ndarray) -> float:
        """Returns 1 for equal outputs, and less for a larger divergence of ``other`` from ``data``."""
        divergence = Divergence(1)
        divergence.add([data], [other])
        return self.similarity(divergence.value)

    @staticmethod
    def similarity(divergence: float) -> float:
        """Turns a divergence, at least 0, into a similarity in [0, 1]."""
        return math.exp(-divergence)

    def layer_comparison(self) -> Comparison | None:
        """Returns None: until layers are rolled back, their cosine similarities rank them."""
        return None

    def output_measure(self, outputs: int) -> "OutputMeasure":
        """Returns a measure that calls ``compare``, that of a subclass."""
        return _ComparedOutputs(self)

    @property
    def similarity_of_divergence(self) -> Callable[[float], float] | None:
        """Returns ``similarity``, unless a subclass overrides how outputs are compared."""
        own = [getattr(type(self), name) is getattr(OutputDivergenceSensitivity, name) for name in _COMPARING]
        return self.similarity if all(own) else None


class OutputMeasure(Protocol):
    """Takes the outputs of the float model, and those of another, batch by batch."""

    def add(self, reference: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> None:
        """Adds the values of every output for some of the images."""

    @property
    def similarity(self) -> float:
        """The similarity of all outputs; NaN if there is nothing to compare."""


class _ComparedOutputs:
    """The mean of a user's ``compare`` over all outputs and batches, weighted by images."""

    def __init__(self, sensitivity: SensitivityBase) -> None:
        self._sensitivity = sensitivity
        self._sum = 0.0
        self._weight = 0

    def add(self, reference: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> None:
        for data, other in zip(reference, values, strict=True):
            images = len(data) if np.ndim(data) else 1
            self._sum += images * compare(self._sensitivity, data, other, "the outputs of the model")
            self._weight += images

    @property
    def similarity(self) -> float:
        return self._sum / self._weight if self._weight else math.nan
