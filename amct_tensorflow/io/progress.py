"""Progress: a bar for passes over a data set, and lines for work that no evaluator shows."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO

from tqdm import tqdm

from amct_tensorflow.log import log_for

_PLAIN_SECONDS = 5.0
_BAR_SECONDS = 0.1

# Takes the title, the plural of what is counted, how many are done, and how many there are, if that is known.
Show = Callable[[str, str, float, float | None], None]


class _Redirection:
    """Where progress is shown while this process works for another one, and how often."""

    show: Show | None = None
    seconds: float = 0.0


class ProgressBar(tqdm):  # type: ignore[type-arg]  # it takes none at run time
    """A bar with an estimate of the time left; in a file or a pipe, which a bar would fill with fragments, lines.

    Args:
        title: what is being done.
        total: number of units there are, or None if that is not known.
        unit: plural of what is counted; "B" counts bytes, with prefixes.
    """

    def __init__(self, title: str, total: int | None, unit: str = "images") -> None:
        self._show = _Redirection.show
        self._units = unit
        self._plain = self._show is not None or not sys.stderr.isatty()
        seconds = _PLAIN_SECONDS if self._plain else _BAR_SECONDS
        super().__init__(
            desc=title,
            total=total,
            unit=unit if unit == "B" else f" {unit}",
            unit_scale=unit == "B",
            file=StringIO() if self._plain else sys.stderr,  # a sink for the control characters of a bar
            mininterval=_Redirection.seconds if self._show else seconds,
            miniters=1,
            dynamic_ncols=True,
            bar_format="{desc}: {n_fmt} of {total_fmt}{unit}, {rate_fmt}, {remaining} left" if self._plain else None,
        )

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Shows the present state."""
        if self._show is not None:
            self._show(str(self.desc).removesuffix(": "), self._units, self.n, self.total)
        elif not self._plain:
            super().display(msg, pos)
        elif self.n:
            print(self, file=sys.stderr)


@contextmanager
def redirected_progress(show: Show, seconds: float) -> Iterator[None]:
    """Inside the block, passes progress to a function instead of showing it.

    Args:
        show: called when a bar begins, at intervals, and when it ends.
        seconds: the interval.
    """
    _Redirection.show, _Redirection.seconds = show, seconds
    try:
        yield
    finally:
        _Redirection.show = None


_SECONDS_BETWEEN_LINES = 2.0


class Progress:
    """Logs at intervals how much is done, and how long the rest will take."""

    def __init__(self, title: str, total: int, module: str = "search") -> None:
        self._title = title
        self._total = total
        self._module = module
        self._done = 0
        self._start = self._last = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        """Counts steps that have been done."""
        self._done += steps
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES or self._done >= self._total:
            return
        self._last = now
        left = (now - self._start) / self._done * (self._total - self._done)
        log_for(self._module).info("%s: %d of %d, about %s left", self._title, self._done, self._total, duration(left))


def duration(seconds: float) -> str:
    """Returns a duration in readable form."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
