"""A format that models are exported to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from amct_tensorflow.export.export_plan import ExportPlan
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

Values = Mapping[str, np.ndarray]


class Runtime(Protocol):
    """The runtime of an exported model."""

    def run(self, inputs: Values) -> Sequence[np.ndarray]:
        """Returns the outputs of the model, in the order of the plan, for the values of its placeholders."""
        ...

    def layers(self, inputs: Values) -> dict[str, np.ndarray]:
        """Returns the outputs of layers, float32 in the layout of the plan's model; some may be left out."""
        ...


@dataclass(frozen=True)
class Saturating:
    """An exported model as its runtime computes it on this processor, where pairs of products of bytes saturate.

    Attributes:
        runtime: executes it so.
        name: of the runtime.
        remedy: what a program can do so that the runtime computes it exactly, as an imperative; None if it can't.
    """

    runtime: Runtime
    name: str
    remedy: str | None


@dataclass(frozen=True)
class Exported:
    """An exported model.

    Attributes:
        files: per suffix, the content of that file; the first is the one to open.
        in_float: per quantized layer, and per sum of the plan, that stays in float, why.
        notes: further remarks.
        runtime: executes it, with kernels that do not saturate.
        saturating: how this processor executes it otherwise; None if no other kernels are chosen by default.
        wide: per quantized layer that an integer kernel of 16 bits computes, why.
    """

    files: Mapping[str, bytes]
    in_float: Mapping[str, str]
    notes: Sequence[str]
    runtime: Runtime
    saturating: Saturating | None = None
    wide: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """A format.

    Attributes:
        name: what users call it.
        suffixes: of its files.
        export: makes the exported model of a plan; the evaluator runs calibration data once more if that is needed.
        no_int8_sums: why sums between layers are never computed in int8; None if they can be.
        never_saturates: why its runtime is exact on every processor, whatever the weights; None if it is not.
    """

    name: str
    suffixes: Sequence[str]
    export: Callable[[ExportPlan, CheckedEvaluator], Exported]
    no_int8_sums: str | None = None
    never_saturates: str | None = None
