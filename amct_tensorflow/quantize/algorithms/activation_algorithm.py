"""The interface of algorithms that choose the factors of activations."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeAlias

from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.quantize.algorithms.distribution import Distribution

Parameter: TypeAlias = int | float | tuple[float, float]


@dataclass(frozen=True)
class ActivationAlgorithm(ABC):
    """An algorithm together with its parameters.

    A subclass is a frozen dataclass whose fields are the parameters: each an int, a float or a pair of floats, with a
    default. Both forms of the configuration use the names of the fields; the simplified one writes a pair as two
    fields, ``<name>_start`` and ``<name>_end``.

    Attributes:
        name: what ``act_algo`` of config.json calls it; in the simplified configuration it is ``<name>_quantize``.
        message: the message of that field.
    """

    name: ClassVar[str]
    message: ClassVar[str]

    @classmethod
    def parameters(cls) -> dict[str, Parameter]:
        """Returns the default of every parameter, in the order in which the message numbers them."""
        return asdict(cls())

    def content(self) -> dict[str, Any]:
        """Returns its entries in config.json, in the order in which they are written."""
        return {"act_algo": self.name, **asdict(self)}

    @abstractmethod
    def fault(self) -> str | None:
        """Returns which parameter is out of range, as a sentence; None if all are in range."""

    @abstractmethod
    def search(self, distribution: Distribution, asymmetric: bool) -> ActivationFactors:
        """Chooses the factors of an activation.

        Args:
            distribution: the values observed at the layer's input.
            asymmetric: with a zero point; else symmetric around 0.
        """
