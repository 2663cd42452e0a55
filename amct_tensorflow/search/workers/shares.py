"""A share of a data set, and a model that is evaluated in shares."""

import hashlib
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Share:
    """One of several parts of the data, which together are the whole; without arguments, the whole.

    Attributes:
        index: which one, from 0.
        count: how many there are.
    """

    index: int = 0
    count: int = 1

    def of(self, total: int, unit: int = 1) -> range:
        """Returns the indices, out of ``range(total)``, that belong to it: a block, perhaps empty.

        The blocks of all shares, one behind the other, are ``range(total)``. Their sizes differ by at most one unit.

        Args:
            total: number of images, or of whatever is counted.
            unit: what is not divided, such as the images of a batch: each block begins at a multiple of it. What a
                model computes for an image may depend, in its last digits, on what else is in the batch; so batches
                stay as they are in one process.
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
        model: what stands in its file.
        outputs: names of its output operators, without ``:0``.
        title: what it is called in messages.
    """

    model: bytes
    outputs: tuple[str, ...]
    title: str

    @cached_property
    def identity(self) -> str:
        """What tells it from other models."""
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
