"""Tables of text, as a console shows them."""

from collections.abc import Collection, Sequence

_GAP = "  "
_DOTS = "..."
_FEWEST = 20


def format_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = (), width: int | None = None
) -> list[str]:
    """Returns the lines of a table; the last column holds what may be long, such as names.

    Args:
        header: what stands above the columns.
        rows: the cells of each row.
        right: those of ``header`` whose columns are flush right, as numbers are.
        width: what of the last column would go beyond so many characters is cut out in the middle, as long as that
            leaves something to read; None for cells as they are.
    """
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header) - 1)]
    used = sum(widths) + len(_GAP) * len(widths)
    room = None if width is None else max(width - used, _FEWEST)
    return [
        _GAP.join([
            *(cell.rjust(size) if title in right else cell.ljust(size)
              for title, cell, size in zip(header[:-1], line[:-1], widths, strict=True)),
            shortened(line[-1], room),
        ])
        for line in lines
    ]  # fmt: skip


def shortened(text: str, length: int | None) -> str:
    """Returns text of no more than so many characters, of which the middle is left out; None for all of it."""
    if length is None or len(text) <= length:
        return text
    end = (length - len(_DOTS) + 1) // 2
    start = length - len(_DOTS) - end
    return text[:start] + _DOTS + text[len(text) - end :]


def abbreviated(number: int) -> str:
    """Returns a number with three digits: ``896``, ``35.8k``, ``1.28M``, ``3.86G``."""
    if number < 1000:
        return str(number)
    value, prefixes = number / 1000, "kMGTP"
    while value >= 999.5 and len(prefixes) > 1:
        value, prefixes = value / 1000, prefixes[1:]
    return f"{value:#.3g}".rstrip(".") + prefixes[0]
