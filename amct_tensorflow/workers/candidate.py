"""A model that is evaluated in shares."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from amct_tensorflow.workers.share import Share

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
