"""What a user of each kind of network would measure: the outputs of a quantized network against those of the float one.

A metric takes two lists of outputs, in the order in which the network names them, each of all examples, and returns a
number of which more is better: percent of what the float network finds, or decibels.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

Outputs: TypeAlias = Sequence[np.ndarray]
Metric: TypeAlias = Callable[[Outputs, Outputs], float]


def same_class(output: int = 0) -> Metric:
    """How often the likeliest class is the same; one value alone is a class above a half."""

    def metric(reference: Outputs, other: Outputs) -> float:
        first, second = (each[output].reshape(len(each[output]), -1) for each in (reference, other))
        if first.shape[1] == 1:
            return percent((first > 0.5) == (second > 0.5))
        return percent(first.argmax(axis=1) == second.argmax(axis=1))

    return metric


def same_nearest(output: int = 0) -> Metric:
    """How often the nearest other example, by cosine, is the same."""

    def nearest(outputs: Outputs) -> np.ndarray:
        rows = outputs[output].reshape(len(outputs[output]), -1).astype(np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        similar = rows @ rows.T
        np.fill_diagonal(similar, -np.inf)
        return np.asarray(similar.argmax(axis=1))

    return lambda reference, other: percent(nearest(reference) == nearest(other))


def within(distance: float, output: int = 0) -> Metric:
    """How many values differ by no more than a distance."""
    return lambda reference, other: percent(np.abs(reference[output] - other[output]) <= distance)


def points_within(
    distance: float,
    points: Callable[[np.ndarray], np.ndarray],
    sure: Callable[[np.ndarray], np.ndarray],
    output: int = 0,
) -> Metric:
    """How many of the points of which the float network is sure lie within a distance.

    Args:
        distance: in the units of the points.
        points: returns them of an output, [n, count, 2].
        sure: returns of which of them the network is sure, [n, count].
        output: which output.
    """

    def metric(reference: Outputs, other: Outputs) -> float:
        apart = np.linalg.norm(points(reference[output]) - points(other[output]), axis=-1)
        return percent(apart[sure(reference[output])] <= distance)

    return metric


def peaks_within(cells: float, least: float = -np.inf, output: int = 0) -> Metric:
    """How many peaks of heat maps, [n, height, width, count], lie within so many cells, if they reach ``least``."""

    def peaks(maps: np.ndarray) -> np.ndarray:
        at = maps.reshape(len(maps), -1, maps.shape[-1]).argmax(axis=1)
        return np.stack(np.divmod(at, maps.shape[2]), axis=-1).astype(np.float64)

    return points_within(cells, peaks, lambda maps: maps.max(axis=(1, 2)) >= least, output)


def overlap(threshold: float = 0.5, output: int = 0, channel: int = -1) -> Metric:
    """Intersection over union of masks, over the examples in which the float network marks anything."""

    def metric(reference: Outputs, other: Outputs) -> float:
        first, second = (each[output][..., channel] > threshold for each in (reference, other))
        both, either = ((op(first, second)).sum(axis=(1, 2)) for op in (np.logical_and, np.logical_or))
        marked = first.any(axis=(1, 2))
        return 100 * float(np.mean(both[marked] / either[marked]))

    return metric


def f1(thresholds: Sequence[float]) -> Metric:
    """Mean F1 of what lies above a threshold in each output."""

    def metric(reference: Outputs, other: Outputs) -> float:
        scores = []
        for first, second, threshold in zip(reference, other, thresholds, strict=True):
            found, again = first > threshold, second > threshold
            scores.append(2 * (found & again).sum() / max(1, found.sum() + again.sum()))
        return 100 * float(np.mean(scores))

    return metric


def peak_signal(output: int = 0, peak: float = 1.0) -> Metric:
    """Peak signal-to-noise ratio of pictures, in dB."""

    def metric(reference: Outputs, other: Outputs) -> float:
        noise = np.mean(np.square(reference[output].astype(np.float64) - other[output]))
        return float(10 * np.log10(peak**2 / noise))

    return metric


def boxes_again(boxes: Callable[[list[np.ndarray]], np.ndarray], least: float = 0.3, iou: float = 0.5) -> Metric:
    """F1 of boxes found again: of the same class, and with an intersection over union above ``iou``.

    Args:
        boxes: returns those of the outputs for one example, [n, 6]: left, top, right, bottom, score, class.
        least: the least score of a box.
        iou: the least intersection over union.
    """

    def metric(reference: Outputs, other: Outputs) -> float:
        hits = count = 0
        for index in range(len(reference[0])):
            first, second = ([each[index : index + 1] for each in outputs] for outputs in (reference, other))
            found, again = (each[each[:, 4] > least] for each in (boxes(first), boxes(second)))
            count += len(found) + len(again)
            hits += 2 * _matched(found, again, iou)
        return 100 * hits / max(1, count)

    return metric


def _matched(found: np.ndarray, again: np.ndarray, iou: float) -> int:
    """Returns how many boxes have a partner, each of which is that of one box alone; the likeliest choose first."""
    free = np.ones(len(again), bool)
    matched = 0
    for box in found[np.argsort(-found[:, 4])]:
        fits = free & (again[:, 5] == box[5]) & (intersection_over_union(box, again) > iou)
        if fits.any():
            free[np.argmax(np.where(fits, intersection_over_union(box, again), -1))] = False
            matched += 1
    return matched


def intersection_over_union(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns that of a box with others, [n]; boxes begin with left, top, right and bottom."""
    sides = np.minimum(box[2:4], others[:, 2:4]) - np.maximum(box[:2], others[:, :2])
    inner = np.prod(np.maximum(sides, 0), axis=1)
    areas = np.prod(others[:, 2:4] - others[:, :2], axis=1) + np.prod(box[2:4] - box[:2])
    return np.asarray(inner / np.maximum(areas - inner, 1e-12))


def percent(hits: np.ndarray) -> float:
    """Returns the share of what is true."""
    return 100 * float(np.mean(hits))


def signal_to_noise(reference: np.ndarray, other: np.ndarray) -> float:
    """Returns ``10 log10(sum(y^2) / sum((y - y')^2))``, in dB."""
    wide = reference.astype(np.float64)
    return float(10 * np.log10(np.sum(wide**2) / max(np.sum((wide - other) ** 2), 1e-30)))
