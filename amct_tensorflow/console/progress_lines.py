"""Progress of work that no evaluator shows, as plain log lines."""

import time

from amct_tensorflow.log import log_for

_SECONDS_BETWEEN_LINES = 2.0


class Progress:
    """Logs now and then how far something is, and how long the rest will take."""

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
    """Returns a span of time as a person would say it."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
