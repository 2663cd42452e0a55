"""Shares of a dataset, and models that are evaluated in shares."""

import hashlib
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Share:
    """One of ``count`` parts of the data; by default, the whole data.

    Attributes:
        index: its number, from 0.
        count: number of shares.
    """

    index: int = 0
    count: int = 1

    def of(self, total: int, unit: int = 1) -> range:
        """Returns the indices, out of ``range(total)``, that belong to it: a block, perhaps empty.

        The blocks of all shares, one behind the other, are ``range(total)``. Their sizes differ by at most one unit.

        Args:
            total: number of images, or of whatever is counted.
            unit: the length that is not divided, such as a batch: each block begins at a multiple of it. The last
                digits of a result may depend on the other images of the batch, so that batches must be those of a
                single process.
        """
        units = -(-total // unit)
        begin, end = (min(units * index // self.count * unit, total) for index in (self.index, self.index + 1))
        return range(begin, end)

    def __str__(self) -> str:
        return f"share {self.index + 1} of {self.count}"


WHOLE = Share()


# So many models a worker keeps; a strategy names no more than two at a time.
MODELS_KEPT = 2


@dataclass(frozen=True)
class Candidate:
    """A model to evaluate.

    Attributes:
        model: the bytes of its file.
        outputs: names of its output operators, without ``:0``.
        title: what it is called in messages.
    """

    model: bytes
    outputs: tuple[str, ...]
    title: str

    @cached_property
    def identity(self) -> str:
        """Digest of the model."""
        return hashlib.sha256(self.model).hexdigest()


@dataclass(frozen=True)
class Task:
    """A share of the evaluation of a model.

    Attributes:
        candidate: the identity of the model.
        share: the share of the data.
    """

    candidate: str
    share: Share
