"""Second moments of what a layer's weights are multiplied with, summed up batch by batch.

What rounding does to a layer's output ``x @ W`` is ``x @ E`` with ``E`` the change of the weights. Its mean goes into
the bias (local bias correction), so that what is left is its variance, ``trace(E.T @ H @ E)`` with ``H`` the covariance
of ``x``: the *centred* second moments.

Memory is bounded: a matrix per group, none of more than ``LARGEST_BLOCK`` inputs. A layer with more is cut into blocks
of so many, whose covariances with one another are left out of account.
"""

import numpy as np

# A 3 x 3 window on 256 channels; the moments of so many inputs take 21 MB, and their factorization a fifth of a second.
LARGEST_BLOCK = 2304


class SecondMoments:
    """Accumulates the covariance of rows of data; it does not matter into which batches they are cut.

    Products of float32 lose digits where the mean is large against the deviation. The rows are therefore taken
    relative to the mean of the first batch, and only what the later ones differ by is corrected for at the end.
    """

    def __init__(self) -> None:
        self._count = 0
        self._origin = np.zeros((0, 1, 0), np.float32)
        self._sum = np.zeros((0, 1, 0))
        self._products: list[np.ndarray] = []

    def add(self, rows: np.ndarray) -> None:
        """Adds rows, float32 [groups, rows, inputs]; what is added later has the same groups and inputs."""
        if not self._products:
            self._origin = rows.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
            self._sum = np.zeros(self._origin.shape)
            blocks = [rows[:, :1, block] for block in self._blocks]
            self._products = [np.zeros((len(rows), one.shape[2], one.shape[2]), np.float32) for one in blocks]
        centred = rows - self._origin
        self._count += rows.shape[1]
        self._sum += centred.sum(axis=1, keepdims=True, dtype=np.float64)
        parts = [centred[:, :, block] for block in self._blocks]
        self._products = [
            products + part.transpose(0, 2, 1) @ part for products, part in zip(self._products, parts, strict=True)
        ]

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(self._origin)

    @property
    def mean(self) -> np.ndarray:
        """The mean of the rows, float64 [groups, inputs]."""
        return np.asarray(self._origin + self._sum / self._count)[:, 0]

    def covariances(self) -> list[tuple[slice, np.ndarray]]:
        """Returns per block which inputs it holds, and their covariance, float64 [groups, block, block]."""
        mean = self._sum / self._count
        return [
            (block, products / self._count - mean[:, :, block].transpose(0, 2, 1) * mean[:, :, block])
            for products, block in zip(self._products, self._blocks, strict=True)
        ]

    @property
    def _blocks(self) -> list[slice]:
        inputs = self._origin.shape[-1]
        return [slice(start, min(start + LARGEST_BLOCK, inputs)) for start in range(0, inputs, LARGEST_BLOCK)]
