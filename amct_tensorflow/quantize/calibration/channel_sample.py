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
# So many values of a row are looked at together.
_WIDE = 1024


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
        indices = np.append(self._indices, np.arange(self._seen, self._seen + len(rows)))
        self._seen += len(rows)
        self._add_highest(rows, self._seen - len(rows))
        places = np.modf(indices * GOLDEN)[0]
        while np.count_nonzero(places < self._share) > self._most:
            self._share /= 2
        kept = np.flatnonzero(places < self._share)
        before = np.searchsorted(kept, len(self._indices))
        self._rows = np.concatenate([self._rows[kept[:before]], rows[kept[before:] - len(self._indices)]])
        self._indices = indices[kept]

    def halves(self) -> tuple[Rows, Rows]:
        """Returns what was seen first, and what was seen then."""
        middle = len(self._highest) // 2
        first = int(np.searchsorted(self._indices, middle * self._block))
        parts = ((slice(0, first), slice(0, middle)), (slice(first, None), slice(middle, None)))
        halves = [Rows(self._rows[rows], self._highest[blocks].max(axis=0, initial=0)) for rows, blocks in parts]
        return halves[0], halves[1]

    def _add_highest(self, rows: np.ndarray, first: int) -> None:
        """Takes the last rows, of which the first is the ``first`` of all, into the largest values of the blocks."""
        while self._seen > _MOST_BLOCKS * self._block:
            self._block *= 2
            self._highest = np.maximum.reduceat(self._highest, np.arange(0, len(self._highest), 2), axis=0)
        for block in range(first // self._block, -(-self._seen // self._block)):
            start, end = (max(index * self._block - first, 0) for index in (block, block + 1))
            highest = _largest_magnitudes(rows[start:end])
            if block < len(self._highest):
                self._highest[block] = np.maximum(self._highest[block], highest)
            else:
                self._highest = np.concatenate([self._highest, highest[np.newaxis]])


def _largest_magnitudes(rows: np.ndarray) -> np.ndarray:
    """Returns the largest absolute value of each column; of short rows several at a time, which NumPy is faster at."""
    together = max(1, _WIDE // rows.shape[1])
    whole = len(rows) // together * together
    if together > 1 and whole:
        wide = rows[:whole].reshape(-1, together * rows.shape[1])
        ends = np.stack([wide.max(axis=0), wide.min(axis=0)]).reshape(-1, rows.shape[1])
        rows = np.concatenate([ends, rows[whole:]])
    return np.asarray(np.maximum(rows.max(axis=0), -rows.min(axis=0)))
