"""One bar for all workers."""

from amct_tensorflow.console.progress_bar import ProgressBar
from amct_tensorflow.console.progress_lines import Progress
from amct_tensorflow.workers.events import Progressed


class SharesBar:
    """Shows how far the shares of an evaluation are, all together.

    If the evaluator shows progress, it is the sum of that, in the same units; if not, shares are counted.
    """

    def __init__(self, title: str, shares: int) -> None:
        self._shares = shares
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
        self._done[share] = news.done
        if news.total is not None:
            self._totals[share] = news.total
        if self._totals:  # until all have begun, the others are taken to be as large
            self._bar.total = round(sum(self._totals.values()) * self._shares / len(self._totals))
        self._bar.update(sum(self._done.values()) - self._bar.n)

    def finish(self, share: int) -> None:
        """Takes that a share is done."""
        if self._bar is None:
            self._lines.advance()
        elif share in self._totals:
            self._done[share] = self._totals[share]
            self._bar.update(sum(self._done.values()) - self._bar.n)
