"""Measures how far a model agrees with another one, or with labels, by what a user of its outputs would notice.

Results are taken batch by batch, also in other processes, and joined to one number.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from amct_tensorflow.errors import DatasetError, EvaluatorError

Outputs = Sequence[np.ndarray]

# Detections below this score do not count, and two are the same if their boxes overlap by this much.
_LEAST_SCORE = 0.3
_OVERLAP = 0.5
# Rows as long as this up to rounding are embeddings; rows of probabilities sum to 1.
_TOLERANCE = 1e-3
_BOX_VALUES = 6


class Found(NamedTuple):
    """A metric, and the number of each image of which it is the mean; None if it is no mean."""

    metric: float
    per_image: np.ndarray | None


@dataclass(frozen=True)
class Measure:
    """A measure of agreement.

    Attributes:
        name: what callers name it.
        summary: what it counts, as a part of a sentence.
        compare: takes the outputs of the reference and those of the other model for a batch, and returns what is
            joined; anything that can be pickled.
        join: takes what ``compare`` has returned for all batches.
        lower_is_better: whether the metric is an error.
        of_differences: whether it is of the differences of all outputs, so that infinities leave nothing of it.
            Others count on the first output, where an infinity is a score that nothing reaches.
    """

    name: str
    summary: str
    compare: Callable[[Outputs, Outputs], Any]
    join: Callable[[Sequence[Any]], Found]
    lower_is_better: bool = False
    of_differences: bool = False

    def incomparable(self, outputs: Outputs) -> int | None:
        """Returns which output of the reference is such that nothing can be compared with it; None if there is none."""
        for index, values in enumerate(outputs if self.of_differences else outputs[:1]):
            right = np.isfinite(values) if self.of_differences else ~np.isnan(values)
            if not right.all():
                return index
        return None


def _wrong_shape(reference: Outputs, expected: str) -> EvaluatorError:
    return EvaluatorError(
        f"The first output has the shape {list(reference[0].shape)}, not that of {expected}. Name another one first "
        "with --outputs, or choose another --measure."
    )


def _same_class(reference: Outputs, values: Outputs) -> np.ndarray:
    """Returns per image the percentage of positions at which the class with the highest score is the same."""
    if reference[0].ndim < 2:
        raise _wrong_shape(reference, "scores: [images, ..., classes]")
    same = reference[0].argmax(axis=-1) == values[0].argmax(axis=-1)
    return np.asarray(100.0 * same.reshape(len(same), -1).mean(axis=1))


def _both(reference: Outputs, values: Outputs) -> tuple[np.ndarray, np.ndarray]:
    if reference[0].ndim != 2:
        raise _wrong_shape(reference, "embeddings: [images, values]")
    return np.asarray(reference[0], np.float64), np.asarray(values[0], np.float64)


def _same_neighbour(batches: Sequence[tuple[np.ndarray, np.ndarray]]) -> Found:
    """Returns how often the embedding that is nearest by its cosine is the same, in percent."""
    expected, actual = (_nearest(np.concatenate(side)) for side in zip(*batches, strict=True))
    same = 100.0 * (expected == actual)
    return Found(float(same.mean()), same)


def _nearest(embeddings: np.ndarray) -> np.ndarray:
    if len(embeddings) < 3:
        raise DatasetError("Neighbours among fewer than three embeddings tell nothing. Give more data.")
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return np.asarray(cosines.argmax(axis=1))


def _same_boxes(reference: Outputs, values: Outputs) -> tuple[int, int]:
    """Returns twice the number of pairs of detections that are the same, and the number of all detections."""
    if reference[0].ndim != 3 or reference[0].shape[-1] != _BOX_VALUES:
        raise _wrong_shape(reference, "detections: [images, boxes, 6]")
    found = count = 0
    for expected, actual in zip(reference[0], values[0], strict=True):
        certain = expected[expected[:, 4] >= _LEAST_SCORE]
        left = list(actual[actual[:, 4] >= _LEAST_SCORE])
        count += len(certain) + len(left)
        for box in certain:
            match = next((index for index, other in enumerate(left) if _is_same(box, other)), None)
            if match is not None:
                found += 2
                del left[match]
    return found, count


def _is_same(one: np.ndarray, other: np.ndarray) -> bool:
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:4], other[2:4])
    common = float(np.prod(np.maximum(high - low, 0)))
    areas = sum(float(np.prod(box[2:4] - box[:2])) for box in (one, other))
    return bool(one[5] == other[5]) and common > _OVERLAP * (areas - common)


def _f1(batches: Sequence[tuple[int, int]]) -> Found:
    found, count = (sum(side) for side in zip(*batches, strict=True))
    return Found(100.0 * found / count if count else 100.0, None)


def _noise(reference: Outputs, values: Outputs) -> np.ndarray:
    """Returns per output the squared error and the squared reference, float64 [outputs, 2]."""
    pairs = [
        (np.asarray(one, np.float64), np.asarray(two, np.float64)) for one, two in zip(reference, values, strict=True)
    ]
    if any(one.shape != two.shape for one, two in pairs):
        raise EvaluatorError(
            "The outputs have other shapes than those of the float model, so that they have no ratio of signal to "
            "noise. Name other outputs with --outputs, or give --agreement."
        )
    return np.array([(np.sum((one - two) ** 2), np.sum(one**2)) for one, two in pairs])


def _largest_ratio(batches: Sequence[np.ndarray]) -> Found:
    error, signal = np.sum(batches, axis=0).T
    ratios = np.divide(error, signal, out=np.where(error > 0, np.inf, 0.0), where=signal > 0)
    return Found(float(ratios.max(initial=0.0)), None)


def _mean(batches: Sequence[np.ndarray]) -> Found:
    per_image = np.concatenate(batches)
    return Found(float(per_image.mean()), per_image)


CLASSES = Measure("classes", "on how many images the class with the highest score is the same", _same_class, _mean)
NEIGHBOURS = Measure(
    "neighbours", "of how many embeddings the nearest other one is the same, by cosines", _both, _same_neighbour
)
BOXES = Measure(
    "boxes", f"the F1 score of detections (score at least {_LEAST_SCORE}, overlap above {_OVERLAP}, the same class)",
    _same_boxes, _f1,
)  # fmt: skip
NOISE = Measure(
    "noise", "the squared error divided by the squared output, of the worst output", _noise, _largest_ratio,
    lower_is_better=True, of_differences=True,
)  # fmt: skip

# Those that count agreement in percent.
AGREEMENTS: Mapping[str, Measure] = {each.name: each for each in (CLASSES, NEIGHBOURS, BOXES)}


def suitable_agreement(outputs: Outputs) -> Measure:
    """Returns the measure of agreement that suits a model with such outputs.

    Args:
        outputs: the outputs of the float model for a batch.

    Raises:
        EvaluatorError: agreement cannot be counted on the first of them.
    """
    first = np.asarray(outputs[0])
    if first.ndim == 3 and first.shape[-1] == _BOX_VALUES and bool((first[..., 2:4] >= first[..., :2]).all()):
        return BOXES
    if first.ndim >= 2 and first.shape[-1] > 1 and np.issubdtype(first.dtype, np.floating):
        lengths = np.linalg.norm(first.astype(np.float64), axis=-1)
        if first.ndim == 2 and np.allclose(lengths, 1, atol=_TOLERANCE) and (first < 0).any():
            return NEIGHBOURS
        return CLASSES
    raise EvaluatorError(
        f"The model's first output is {first.dtype} {list(first.shape)}: neither scores of classes, nor embeddings, "
        "nor detections, so that agreement cannot be counted on it. Name another one first with --outputs, or say with "
        "--snr how large the outputs are to be beside their error."
    )


def noise_of(decibels: float) -> float:
    """Returns the ratio of error to signal that a ratio of signal to error in dB stands for."""
    return float(10 ** (-decibels / 10))


def accuracy(labels: np.ndarray) -> Callable[[Outputs, range], np.ndarray]:
    """Returns what tells, of the outputs for some images, which are classified as labels say: 100, or 0.

    Args:
        labels: per image, its class as the model counts them, from 0.
    """

    def correct(outputs: Outputs, images: range) -> np.ndarray:
        scores = outputs[0]
        if scores.ndim != 2 or images.stop > len(labels):
            raise DatasetError(
                f"There are {len(labels)} labels, but the first output for images {images.start} to {images.stop - 1} "
                f"has the shape {list(scores.shape)}. Give one label per image, of a model that classifies."
            )
        expected = labels[images.start : images.stop]
        if expected.size and (expected.min() < 0 or expected.max() >= scores.shape[1]):
            raise DatasetError(
                f"The labels go from {expected.min()} to {expected.max()}, but the model has {scores.shape[1]} "
                "classes, which it counts from 0. Give the classes as the model counts them."
            )
        return np.asarray(100.0 * (scores.argmax(axis=1) == expected))

    return correct
