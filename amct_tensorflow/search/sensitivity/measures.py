"""How strongly a layer reacts to quantization (spec section 6.2)."""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from amct_tensorflow.quantize.calibration.output_comparison import Comparison, OutputSums, compare
from amct_tensorflow.search.sensitivity.divergence import Divergence


class SensitivityBase:
    """Base class of sensitivities, of which there are two kinds.

    One compares the two outputs of each layer, float and quantized: calibration asks its ``compare``. The other looks
    at the outputs of the model when one layer is quantized (``scores_outputs``): the search gives them to what its
    ``output_measure`` makes, once layers are to be rolled back.
    """

    scores_outputs = False

    def compare(self, data: np.ndarray, other: np.ndarray) -> float:
        """Tells how alike two outputs are; the layers with the smallest values are rolled back first.

        Args:
            data: output of the float layer.
            other: output of the quantized layer, same shape.
        """
        raise NotImplementedError

    def layer_comparison(self) -> Comparison | None:
        """Returns what calibration is to ask about each layer; None for the cosine similarity."""
        return self

    def output_measure(self, outputs: int) -> "OutputMeasure":
        """Returns what takes the outputs of the model, so many, batch by batch."""
        raise NotImplementedError


class CosineSimilaritySensitivity(SensitivityBase):
    """``0.5 + 0.5 * cos(data, other)``: 1 for a layer that quantization leaves as it is, 0 for opposite outputs."""

    def compare(self, data: np.ndarray, other: np.ndarray) -> float:
        """Returns the similarity, in [0, 1]; 1 if ``data`` is all zero, 0 if only ``other`` is."""
        sums = OutputSums()
        sums.add(data, other)
        return sums.similarity

    def layer_comparison(self) -> Comparison | None:
        """Returns None, unless a subclass compares in its own way."""
        return None if type(self).compare is CosineSimilaritySensitivity.compare else self


class OutputDivergenceSensitivity(SensitivityBase):
    """``exp(-d)``, where ``d`` is how far the outputs of the *model* move when one layer alone is quantized.

    The engine gives it the model's outputs instead of the layer's; ``d`` is described at ``Divergence``. A subclass may
    override ``compare``: it is then asked about each output and each calibration batch, and the mean counts.
    """

    scores_outputs = True

    def compare(self, data: np.ndarray, other: np.ndarray) -> float:
        """Returns 1 for equal outputs, less the further ``other`` lies from ``data``."""
        divergence = Divergence(1)
        divergence.add([data], [other])
        return self.similarity(divergence.value)

    @staticmethod
    def similarity(divergence: float) -> float:
        """Turns a divergence, at least 0, into a similarity in [0, 1]."""
        return math.exp(-divergence)

    def layer_comparison(self) -> Comparison | None:
        """Returns None: until layers are rolled back, the cosine similarity of each ranks them."""
        return None

    def output_measure(self, outputs: int) -> "OutputMeasure":
        """Returns what accumulates the divergence, or asks a subclass that compares in its own way."""
        if type(self).compare is OutputDivergenceSensitivity.compare:
            return _DivergedOutputs(self, outputs)
        return _ComparedOutputs(self)


class OutputMeasure(Protocol):
    """Takes the outputs of the float model, and those of another, batch by batch.

    One that has an attribute ``takes_parts`` which is true takes parts of batches, too, which need less memory.
    """

    def add(self, reference: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> None:
        """Adds the values of every output for some of the images."""

    @property
    def similarity(self) -> float:
        """How alike all of them are; NaN if there is nothing to compare."""


class _DivergedOutputs(Divergence):
    """The divergence of all parts, which does not depend on how they are cut."""

    def __init__(self, sensitivity: OutputDivergenceSensitivity, outputs: int) -> None:
        super().__init__(outputs)
        self._sensitivity = sensitivity

    @property
    def similarity(self) -> float:
        return self._sensitivity.similarity(self.value)


class _ComparedOutputs:
    """Asks a user's ``compare`` about every output of every batch; a batch counts by its images."""

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
