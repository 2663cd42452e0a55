"""One bar for all workers."""

from amct_tensorflow.console.progress_bar import ProgressBar
from amct_tensorflow.console.progress_lines import Progress
from amct_tensorflow.workers.events import Progressed


class SharesBar:
    """Shows how far the shares of an evaluation are, all together.

    If the evaluator shows progress, it is the sum of that, in the same units; if not, shares are counted.
    """

    def __init__(self, title: str, shares: int, seconds: float = 0.0) -> None:
        """Begins a bar for so many shares, whose work began so many seconds ago."""
        self._shares = shares
        self._seconds = seconds
        self._done: dict[int, float] = {}
        self._totals: dict[int, float] = {}
        self._bar: ProgressBar | None = None
        self._lines = Progress(f"Shares of {title}", shares, "workers")

    def __enter__(self) -> "SharesBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, share: int, news: Progressed) -> None:
        """Takes how far a share is; one that is done again is less far than it was."""
        if self._bar is None:
            self._bar = ProgressBar(news.title, None, news.unit)
            self._bar.start_t -= self._seconds
        self._done[share] = news.done
        if news.total is not None:
            self._totals[share] = news.total
        self._update(self._bar)

    def finish(self, share: int) -> None:
        """Takes that a share is done."""
        if self._bar is None:
            self._lines.advance()
            return
        self._done[share] = self._totals.setdefault(share, self._done.get(share, 0))
        self._update(self._bar)

    def _update(self, bar: ProgressBar) -> None:
        if self._totals:  # until all have begun, the others are taken to be as large
            bar.total = round(sum(self._totals.values()) * self._shares / len(self._totals))
        bar.update(sum(self._done.values()) - bar.n)
