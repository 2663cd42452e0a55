"""Measures of agreement between two models, by hand."""

import numpy as np
import pytest

from amct_tensorflow.errors import DatasetError, EvaluatorError
from amct_tensorflow.search.agreement import (
    BOXES,
    CLASSES,
    NEIGHBOURS,
    NOISE,
    accuracy,
    noise_of,
    suitable_agreement,
)


def measured(measure, *batches):
    found = measure.join([measure.compare(reference, values) for reference, values in batches])
    return found.metric, None if found.per_image is None else found.per_image.tolist()


def scores(*classes):
    return [np.eye(4, dtype=np.float32)[list(classes)]]


def test_the_same_class():
    assert measured(CLASSES, (scores(0, 1), scores(0, 2)), (scores(3, 3), scores(3, 3))) == (75, [100, 0, 100, 100])


def test_the_same_class_at_each_position():
    one = np.zeros((1, 2, 2, 3), np.float32)
    one[..., 1] = 1
    other = one.copy()
    other[0, 0, 0] = [1, 0, 0]
    assert measured(CLASSES, ([one], [other])) == (75, [75])


def test_the_nearest_neighbour_is_looked_for_among_all_batches():
    """Four directions; the fourth turns away from the third, to the second."""
    angles = np.radians([0, 10, 90, 95])
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    angles[3] = np.radians(20)
    other = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    batches = [([unit[:2]], [other[:2]]), ([unit[2:]], [5 * other[2:]])]
    # 0 -> 1, 1 -> 0, 2 -> 3, 3 -> 2, and then 0 -> 1, 1 -> 0 or 3 (both 10 degrees away), 2 -> 3, 3 -> 1.
    metric, same = measured(NEIGHBOURS, *batches)
    assert same[0] == 100 and same[2] == 100 and same[3] == 0 and metric == np.mean(same)


def test_two_embeddings_are_too_few():
    two = np.eye(2, dtype=np.float32)
    with pytest.raises(DatasetError, match="fewer than three"):
        measured(NEIGHBOURS, ([two], [two]))


def boxes(*rows):
    return [np.array([rows], np.float32).reshape(1, -1, 6)]


def test_detections_in_any_order_and_number():
    """Of three and two certain ones, one is the same, one has another class, and one overlaps by a third only."""
    expected = boxes((0, 0, 2, 2, 0.9, 1), (4, 4, 6, 6, 0.8, 2), (0, 4, 2, 6, 0.5, 1), (8, 8, 9, 9, 0.1, 1))
    actual = boxes((1, 4, 3, 6, 0.5, 1), (0, 0, 2, 2.2, 0.6, 1))
    assert measured(BOXES, (expected, actual)) == (pytest.approx(100 * 2 / 5), None)
    assert measured(BOXES, (expected, expected)) == (100, None)
    assert measured(BOXES, (boxes(), boxes())) == (100, None)


def test_the_noise_of_the_worst_output():
    reference = [np.array([[3.0, 4.0]], np.float32), np.array([[10.0]], np.float32)]
    values = [np.array([[3.0, 4.5]], np.float32), np.array([[10.5]], np.float32)]
    # 0.25 of 25, and 0.25 of 100.
    assert measured(NOISE, (reference, values), (reference, values)) == (pytest.approx(0.01), None)
    assert noise_of(20) == pytest.approx(0.01) and noise_of(30) == pytest.approx(0.001)


def test_noise_needs_outputs_of_one_shape():
    with pytest.raises(EvaluatorError, match="other shapes"):
        measured(NOISE, ([np.zeros((1, 3, 6))], [np.zeros((1, 2, 6))]))


@pytest.mark.parametrize(
    ("first", "expected"),
    [(scores(0, 1)[0], CLASSES), (np.array([[0.6, -0.8], [-0.8, 0.6]], np.float32), NEIGHBOURS),
     (np.random.default_rng(1).normal(size=(4, 10)).astype(np.float32), CLASSES),
     (boxes((0, 0, 2, 2, 0.9, 1))[0], BOXES), (np.zeros((1, 8, 8, 3), np.float32), CLASSES)],
)  # fmt: skip
def test_what_suits_an_output(first, expected):
    assert suitable_agreement([first]) is expected


@pytest.mark.parametrize("first", [np.zeros((4, 1), np.float32), np.zeros(4, np.float32), np.zeros((4, 3), np.int32)])
def test_outputs_without_agreement_are_named(first):
    with pytest.raises(EvaluatorError, match=r"The model's first output is (float32|int32) \[4.*--snr"):
        suitable_agreement([first])


def test_labels():
    correct = accuracy(np.array([9, 1, 2, 3]))
    assert correct(scores(1, 2, 0), range(1, 4)).tolist() == [100, 100, 0]
    with pytest.raises(DatasetError, match="labels go from 9 to 9, but the model has 4 classes"):
        correct(scores(1), range(1))
    with pytest.raises(DatasetError, match="There are 4 labels"):
        correct(scores(1), range(4, 5))


def test_a_reference_with_which_nothing_can_be_compared():
    """An infinity among scores is one that nothing reaches, but it has no difference to another."""
    good, infinite, nan = (np.array([[0.5, value]], np.float32) for value in (1.0, -np.inf, np.nan))
    assert [NOISE.incomparable(outputs) for outputs in ([good, good], [good, infinite], [nan])] == [None, 1, 0]
    assert [CLASSES.incomparable(outputs) for outputs in ([infinite], [good, nan], [nan])] == [None, None, 0]
    assert CLASSES.incomparable([np.array([[1, 2]])]) is None


@pytest.mark.parametrize(
    ("measure", "shape", "words"),
    [
        (CLASSES, (4,), r"\[images, \.\.\., classes\]"),
        (NEIGHBOURS, (4, 3, 5), r"\[images, values\]"),
        (BOXES, (4, 6), r"\[images, boxes, 6\]"),
        (BOXES, (4, 3, 5), r"\[images, boxes, 6\]"),
    ],
)
def test_a_measure_that_does_not_suit_the_output(measure, shape, words):
    outputs = [np.zeros(shape, np.float32)]
    with pytest.raises(EvaluatorError, match=words):
        measure.compare(outputs, outputs)
