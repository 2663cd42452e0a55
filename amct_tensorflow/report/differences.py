"""Two runs side by side: how they ended, with what they ran, and the layers that differ."""

from collections.abc import Mapping
from dataclasses import dataclass

from amct_tensorflow.report.document import Layer, Report
from amct_tensorflow.report.wording import number, percent, size

# To be raised when a key of the JSON changes its meaning or goes; new ones may come.
VERSION = 1


@dataclass(frozen=True)
class Row:
    """Something that both runs have, in words; None where one has it not."""

    name: str
    a: str | None
    b: str | None


@dataclass(frozen=True)
class LayerState:
    """What became of a layer in a run; see ``Layer`` and ``Activation``."""

    int8: bool
    scale: float | None
    offset: int | None
    damage: float | None
    sqnr_db: float | None

    @classmethod
    def of(cls, layer: Layer) -> "LayerState":
        """Returns that of a layer."""
        activation = layer.activation
        return cls(
            layer.int8,
            activation.scale if activation else None,
            activation.offset if activation else None,
            layer.damage,
            layer.sqnr_db,
        )


@dataclass(frozen=True)
class LayerDifference:
    """A layer that differs; None where a run has no such layer."""

    name: str
    a: LayerState | None
    b: LayerState | None

    @property
    def in_kind(self) -> bool:
        """Whether one run has it in int8, and the other has not."""
        return self.a is None or self.b is None or self.a.int8 != self.b.int8


@dataclass(frozen=True)
class Differences:
    """Two runs side by side.

    Attributes:
        version: of the format.
        a: path of the one report.
        b: path of the other.
        outcome: how they ended.
        settings: settings, versions and hashes that differ.
        layers: layers that differ, first those that only one run has in int8.
        equal_layers: number of layers that do not.
    """

    version: int
    a: str
    b: str
    outcome: tuple[Row, ...]
    settings: tuple[Row, ...]
    layers: tuple[LayerDifference, ...]
    equal_layers: int


def find_differences(a: Report, b: Report, names: tuple[str, str]) -> Differences:
    """Compares two runs.

    Args:
        a: the one.
        b: the other.
        names: their paths.
    """
    one, other = _outcome(a), _outcome(b)
    layers = _layers(a, b)
    differing = sorted((each for each in layers if each.a != each.b), key=lambda each: not each.in_kind)
    return Differences(
        version=VERSION,
        a=names[0],
        b=names[1],
        outcome=tuple(Row(name, one[name], other[name]) for name in one),
        settings=tuple(row for row in _rows(_asked(a), _asked(b)) if row.a != row.b),
        layers=tuple(differing),
        equal_layers=len(layers) - len(differing),
    )


def _outcome(report: Report) -> dict[str, str]:
    outcome, sizes = report.outcome, report.size
    interval = outcome.interval
    in_int8 = sizes.int8_multiply_accumulates
    return {
        "target met": "yes" if outcome.target_met else "no",
        "original model": number(outcome.original, 6),
        "all layers quantized": number(outcome.all_quantized, 6),
        "saved model": number(outcome.saved, 6),
        "loss": number(outcome.loss),
        "target": number(outcome.target),
        "confidence interval": f"{number(interval.lower, 3)} to {number(interval.upper, 3)}" if interval else "none",
        "images": number(interval.images if interval else None),
        "layers in float": f"{len(report.in_float)} of {len(report.layers)}",
        "multiply-accumulates in int8": percent(
            in_int8 / sizes.multiply_accumulates if sizes.multiply_accumulates and in_int8 is not None else None
        ),
        "size": size(sizes.quantized_bytes),
        "evaluations": str(len(report.evaluations) + 1),
    }


def _asked(report: Report) -> dict[str, str]:
    run = report.reproduction
    parts = {"setting": run.settings, "version": run.versions, "SHA-256": run.files, "digest": run.digests}
    found = {f"{kind} {name}": value for kind, values in parts.items() for name, value in values.items()}
    return {"command": run.command, **found, "machine": run.machine}


def _rows(a: Mapping[str, str], b: Mapping[str, str]) -> list[Row]:
    return [Row(name, a.get(name), b.get(name)) for name in dict.fromkeys([*a, *b])]


def _layers(a: Report, b: Report) -> list[LayerDifference]:
    one, other = ({layer.name: LayerState.of(layer) for layer in report.layers} for report in (a, b))
    return [LayerDifference(name, one.get(name), other.get(name)) for name in dict.fromkeys([*one, *other])]
