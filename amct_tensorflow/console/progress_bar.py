"""Progress of a pass over a data set: a bar on a terminal, plain lines elsewhere."""

import sys
from io import StringIO

from tqdm import tqdm

_PLAIN_SECONDS = 5.0
_BAR_SECONDS = 0.1


class ProgressBar(tqdm):  # type: ignore[type-arg]  # it takes none at run time
    """A bar with an estimate of the time left; in a file or a pipe, which a bar would fill with fragments, lines.

    Args:
        title: what is being done.
        total: number of units there are, or None if that is not known.
        unit: plural of what is counted; "B" counts bytes, with prefixes.
    """

    def __init__(self, title: str, total: int | None, unit: str = "images") -> None:
        self._plain = not sys.stderr.isatty()
        super().__init__(
            desc=title,
            total=total,
            unit=unit if unit == "B" else f" {unit}",
            unit_scale=unit == "B",
            file=StringIO() if self._plain else sys.stderr,  # a sink for the control characters of a bar
            mininterval=_PLAIN_SECONDS if self._plain else _BAR_SECONDS,
            miniters=1,
            dynamic_ncols=True,
            bar_format="{desc}: {n_fmt} of {total_fmt}{unit}, {rate_fmt}, {remaining} left" if self._plain else None,
        )

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Shows the present state."""
        if not self._plain:
            super().display(msg, pos)
        elif self.n:
            print(self, file=sys.stderr)
