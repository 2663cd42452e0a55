"""Compares two runs, with output as text and as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from amct_tensorflow.io.table import format_table, plural
from amct_tensorflow.log import printable
from amct_tensorflow.results.report.document import Layer, Report
from amct_tensorflow.results.report.wording import UNKNOWN, number, percent, size

# To be raised when a key of the JSON changes its meaning or goes; new ones may come.
VERSION = 1


@dataclass(frozen=True)
class Row:
    """A value of both runs, in words; None in a run without it."""

    name: str
    a: str | None
    b: str | None


@dataclass(frozen=True)
class LayerState:
    """The state of a layer in a run; see ``Layer`` and ``Activation``."""

    int8: bool
    precision: str
    scale: float | None
    offset: int | None
    damage: float | None
    sqnr_db: float | None

    @classmethod
    def of(cls, layer: Layer) -> "LayerState":
        """Returns the state of a layer."""
        activation = layer.activation
        return cls(
            layer.int8,
            layer.precision,
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
        """Whether the runs have it in different precisions, or only one has it."""
        return self.a is None or self.b is None or self.a.precision != self.b.precision


@dataclass(frozen=True)
class Differences:
    """Two runs side by side.

    Attributes:
        version: of the format.
        a: path of the one report.
        b: path of the other.
        outcome: the outcomes.
        settings: settings, versions and hashes that differ.
        layers: layers that differ, first those whose precisions do.
        equal_layers: number of layers that do not differ.
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
        outcome=tuple(_rows(one, other)),
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
        **({"layers in 16 bits": str(len(report.in_16_bits))} if report.in_16_bits else {}),
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


_NUMBERS = ("scale A", "scale B", "damage A", "damage B", "dB A", "dB B")
_HEADER = ("A", "B", *_NUMBERS, "layer")


def dump_differences(differences: Differences) -> str:
    """Returns them as JSON."""
    return msgspec.json.format(msgspec.json.encode(differences), indent=1).decode()


def format_differences(differences: Differences, width: int | None = None) -> str:
    """Returns them as lines of text.

    Args:
        differences: the differences.
        width: names that would go beyond so many characters are shortened; None for whole names.
    """
    blocks = [
        [f"A: {printable(differences.a)}", f"B: {printable(differences.b)}"],
        format_table(("A", "B", "result"), [(row.a or "", row.b or "", row.name) for row in differences.outcome]),
    ]
    settings = [(_cell(row.a), _cell(row.b), printable(row.name)) for row in differences.settings]
    blocks.append(format_table(("A", "B", "differs"), settings) if settings else ["Settings do not differ."])
    rows = [(*_kinds(each.a, each.b), *_numbers(each.a, each.b), printable(each.name)) for each in differences.layers]
    blocks.append(format_table(_HEADER, rows, _NUMBERS, width) if rows else [])
    equal = differences.equal_layers
    blocks.append([f"{plural(len(rows), 'layer', 'differs', 'differ')}, {equal} {'does' if equal == 1 else 'do'} not."])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _cell(value: str | None) -> str:
    """Returns a setting; a digest is shortened."""
    if value is None:
        return "none"
    return f"{value[:12]}..." if len(value) == 64 and " " not in value else printable(value)


def _kinds(*states: LayerState | None) -> list[str]:
    return ["none" if state is None else state.precision for state in states]


def _numbers(*states: LayerState | None) -> list[str]:
    return [
        UNKNOWN if state is None else number(getattr(state, key))
        for key in ("scale", "damage", "sqnr_db")
        for state in states
    ]
