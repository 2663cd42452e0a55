"""All that a quantized model follows from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from amct_tensorflow.graph.fusion import FusedGraph
from amct_tensorflow.record.layer_correction import LayerCorrection
from amct_tensorflow.record.layer_factors import LayerFactors

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class QuantizationPlan:
    """How a model is to be quantized; everything that leaves the engine is made of one of these alone.

    Attributes:
        fused: the float graph after fusion.
        factors: per layer to quantize, its factors; per ``op:input`` of another op, those of that input.
        corrections: per layer, what brings it closer to the float one; layers without are left out.
        outputs: requested operators; they keep their names and, up to quantization error, their values.
    """

    fused: FusedGraph
    factors: Mapping[str, LayerFactors]
    corrections: Mapping[str, LayerCorrection]
    outputs: Sequence[str]

    def restrict(self, configuration: Mapping[str, bool]) -> "QuantizationPlan":
        """Returns the plan without the layers that a configuration rolls back to float."""
        return replace(
            self,
            factors=_kept(self.factors, configuration),
            corrections=_kept(self.corrections, configuration),
        )


def _kept(values: Mapping[str, _T], configuration: Mapping[str, bool]) -> dict[str, _T]:
    return {name: value for name, value in values.items() if configuration.get(name, True)}
