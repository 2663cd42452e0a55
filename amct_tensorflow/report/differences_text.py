"""Two runs side by side, as text for a console and as JSON."""

import msgspec

from amct_tensorflow.console.table import format_table
from amct_tensorflow.log import printable
from amct_tensorflow.report.differences import Differences, LayerState
from amct_tensorflow.report.wording import UNKNOWN, number

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
    blocks.append([f"{len(rows)} layers differ, {differences.equal_layers} do not."])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _cell(value: str | None) -> str:
    """Returns a setting, of a digest no more than tells it from others."""
    if value is None:
        return "none"
    return f"{value[:12]}..." if len(value) == 64 and " " not in value else printable(value)


def _kinds(*states: LayerState | None) -> list[str]:
    return ["none" if state is None else "int8" if state.int8 else "float" for state in states]


def _numbers(*states: LayerState | None) -> list[str]:
    return [
        UNKNOWN if state is None else number(getattr(state, key))
        for key in ("scale", "damage", "sqnr_db")
        for state in states
    ]
