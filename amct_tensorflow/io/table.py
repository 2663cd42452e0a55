"""Tables of text, as a console shows them, and numbers in words."""

from collections.abc import Collection, Sequence
from itertools import takewhile

_GAP = "  "
_DOTS = "..."
# What is left of a name tells it from others.
_FEWEST = 40


def format_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = (), width: int | None = None
) -> list[str]:
    """Returns the lines of a table whose last column holds names.

    Args:
        header: what stands above the columns.
        rows: the cells of each row.
        right: those of ``header`` whose columns are flush right, as numbers are.
        width: names are shortened where they would go beyond so many characters, as long as enough of them is left;
            None for whole names.
    """
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header) - 1)]
    room = None if width is None else max(width - sum(widths) - len(_GAP) * len(widths), _FEWEST)
    names = [header[-1], *shortened([row[-1] for row in rows], room)]
    return [
        _GAP.join([
            *(cell.rjust(size) if title in right else cell.ljust(size)
              for title, cell, size in zip(header[:-1], line[:-1], widths, strict=True)),
            name,
        ])
        for line, name in zip(lines, names, strict=True)
    ]  # fmt: skip


def shortened(names: Sequence[str], length: int | None) -> list[str]:
    """Returns names of no more than so many characters each; None for whole names.

    The scopes that all of them have in common go first, then what is in their middle.
    """
    if length is None or all(len(name) <= length for name in names):
        return list(names)
    parts = [name.split("/") for name in names]
    scopes = list(takewhile(lambda level: len(set(level)) == 1, zip(*(each[:-1] for each in parts), strict=False)))
    inner = [
        "/".join([_DOTS, *each[len(scopes) :]]) if scopes else name for each, name in zip(parts, names, strict=True)
    ]
    return [_cut(name, length) for name in inner]


def _cut(name: str, length: int) -> str:
    if len(name) <= length:
        return name
    end = (length - len(_DOTS) + 1) // 2
    return name[: length - len(_DOTS) - end] + _DOTS + name[len(name) - end :]


def abbreviated(number: int) -> str:
    """Returns a number with three digits: ``896``, ``35.8k``, ``1.28M``, ``3.86G``."""
    if number < 1000:
        return str(number)
    value, prefixes = number / 1000, "kMGTPE"
    while value >= 999.5 and len(prefixes) > 1:
        value, prefixes = value / 1000, prefixes[1:]
    return f"{value:#.3g}".rstrip(".") + prefixes[0]


def plural(number: int, noun: str, *verbs: str) -> str:
    """Returns a number with its noun, and with the verb behind it, in the singular or plural.

    Args:
        number: the number.
        noun: the noun in the singular, whose plural ends with ``s``.
        *verbs: none, or the verb in the singular and in the plural.
    """
    words = [str(number), noun if number == 1 else f"{noun}s"]
    if verbs:
        words.append(verbs[number != 1])
    return " ".join(words)
