"""Keeps a bounded sample of the channels of a tensor, whatever batches they come in.

A row holds the channels at one position. Row ``i``, counted over all batches, is kept if the fractional part of
``i * golden`` is below a share, with ``golden`` the golden ratio: multiples of it spread most evenly of all, so that
no grid of positions falls in step with them. When too many rows are kept the share is halved, and what is kept then is
a part of what was kept before.

The largest values of channels are those of all rows. They are kept per block of consecutive rows, and when there are
too many blocks each two become one.
"""

import numpy as np

from amct_tensorflow.quantize.algorithms.balance_choice import Rows

GOLDEN = (np.sqrt(5) - 1) / 2
# The rows of one tensor take 4 MB at most.
_LARGEST_SAMPLE = 1 << 20
_MOST_ROWS = 4096
_MOST_BLOCKS = 32


class ChannelSample:
    """Some rows of a tensor in their order, and the largest values of its channels."""

    def __init__(self, axis: int, channels: int) -> None:
        """Begins with nothing.

        Args:
            axis: which axis of the tensor counts the channels.
            channels: how many there are.
        """
        self._axis = axis
        self._most = max(2, min(_MOST_ROWS, _LARGEST_SAMPLE // channels))
        self._seen = 0
        self._share = 1.0
        self._indices = np.zeros(0, np.int64)
        self._rows = np.zeros((0, channels), np.float32)
        self._block = 1
        self._highest = np.zeros((0, channels), np.float32)

    def add(self, value: np.ndarray) -> None:
        """Takes the values of a batch."""
        channels_last = np.moveaxis(value, self._axis, -1)
        rows = channels_last.reshape(-1, channels_last.shape[-1])
        if not len(rows):
            return
        indices = np.arange(self._seen, self._seen + len(rows))
        self._seen += len(rows)
        self._add_highest(rows, indices)
        chosen = np.flatnonzero(_places(indices) < self._share)
        self._indices = np.append(self._indices, indices[chosen])
        self._rows = np.concatenate([self._rows, rows[chosen]])
        while len(self._rows) > self._most:
            self._share /= 2
            kept = _places(self._indices) < self._share
            self._indices, self._rows = self._indices[kept], self._rows[kept]

    def halves(self) -> tuple[Rows, Rows]:
        """Returns what was seen first, and what was seen then."""
        middle = len(self._highest) // 2
        first = int(np.searchsorted(self._indices, middle * self._block))
        parts = ((slice(0, first), slice(0, middle)), (slice(first, None), slice(middle, None)))
        halves = [Rows(self._rows[rows], self._highest[blocks].max(axis=0, initial=0)) for rows, blocks in parts]
        return halves[0], halves[1]

    def _add_highest(self, rows: np.ndarray, indices: np.ndarray) -> None:
        """Takes rows, which follow those of before, into the largest values of the blocks."""
        while self._seen > _MOST_BLOCKS * self._block:
            self._block *= 2
            self._highest = np.maximum.reduceat(self._highest, np.arange(0, len(self._highest), 2), axis=0)
        blocks, starts = np.unique(indices // self._block, return_index=True)
        for block, start, end in zip(blocks, starts, [*starts[1:], len(rows)], strict=True):
            highest = np.maximum(rows[start:end].max(axis=0), -rows[start:end].min(axis=0))
            if block < len(self._highest):
                self._highest[block] = np.maximum(self._highest[block], highest)
            else:
                self._highest = np.concatenate([self._highest, highest[np.newaxis]])


def _places(indices: np.ndarray) -> np.ndarray:
    return np.asarray(np.modf(indices * GOLDEN)[0])
