"""Which images are shown, and what an evaluator may do wrong."""

import base64

import numpy as np
import pytest

from amct_tensorflow.results.report.changed_images import find_changed_images
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase, Evaluation, MetricEval, Picture
from amct_tensorflow.search.trials import Trial

JPEG = b"\xff\xd8\xff a picture"


class Shows(AutoCalibrationEvaluatorBase):
    def __init__(self, data=JPEG, missing=0):
        self.data, self.missing, self.asked = data, missing, None

    def pictures(self, images):
        self.asked = list(images)
        return [Picture(self.data, f"label {number}") for number in images[self.missing :]]


def find(before, after, results=(None, None), loss=1.0, evaluator=None):
    first, other = (None if each is None else np.array(each, np.float64) for each in results)
    original = Evaluation(0.0, 1.0, first, image_predictions=None if before is None else np.array(before))
    evaluation = Evaluation(0.0, 1.0, other, image_predictions=None if after is None else np.array(after))
    saved = Trial({}, evaluation, MetricEval(True, loss))
    return find_changed_images(CheckedEvaluator(evaluator or Shows()), original, saved)


def test_those_that_were_right_come_first():
    """Image 0 stays right, 1 was wrong and is right, 2 was wrong and still is, 3 was right and is wrong."""
    evaluator = Shows()
    found = find([1, 2, 3, 4], [1, 1, 9, 9], ([100, 0, 0, 100], [100, 100, 0, 0]), 0.0, evaluator)
    assert (found.images, found.changed, found.lost, found.won) == (4, 3, 1, 1)
    assert [each.number for each in found.shown] == [3, 1, 2]
    assert evaluator.asked == [1, 2, 3]  # in their order, as a dataset has them
    assert (found.shown[0].before, found.shown[0].after, found.shown[0].label) == ("4", "9", "label 3")
    assert found.shown[0].picture == "data:image/jpeg;base64," + base64.b64encode(JPEG).decode()


def test_results_may_be_errors():
    """Where a small result is good, the loss grows with it."""
    found = find([1, 2], [3, 2], ([0, 5], [4, 5]), loss=2.0)
    assert (found.lost, found.won) == (1, 0)


def test_at_most_24_are_shown():
    evaluator = Shows()
    found = find(list(range(100)), [-1] * 100, evaluator=evaluator)
    assert len(found.shown) == len(evaluator.asked) == 24 and found.changed == 100


@pytest.mark.parametrize(("before", "after"), [(None, [1]), ([1], None), ([1, 2], [1])])
def test_predictions_may_be_missing(before, after):
    found = find(before, after)
    assert found.images == 0 and "image_predictions" in found.note


def test_nothing_may_have_changed():
    assert find([1, 2], [1, 2]).note == "No image changed its prediction."


@pytest.mark.parametrize(
    ("evaluator", "said"),
    [
        (AutoCalibrationEvaluatorBase(), "shows no pictures"),
        (Shows(data=b"<svg onload=alert(1)>"), "neither JPEG nor PNG"),
        (Shows(data=JPEG + bytes(32_000)), "at most 32000 bytes"),
        (Shows(missing=1), "returned 0 of 1 pictures"),
        (Shows(data=None), "pictures failed"),
    ],
    ids=["none", "kind", "size", "number", "type"],
)
def test_what_an_evaluator_does_wrong_is_said(evaluator, said):
    found = find([1], [2], evaluator=evaluator)
    assert found.shown == () and said in found.note and found.changed == 1
