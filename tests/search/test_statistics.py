"""Confidence intervals of a loss, and how the target is found."""

import math

import numpy as np
import pytest
from amct_tensorflow.common.auto_calibration import AutoCalibrationEvaluatorBase
from hypothesis import given
from hypothesis import strategies as st

from amct_tensorflow.search.checked_evaluator import CheckedEvaluator
from amct_tensorflow.search.statistics import paired_interval


def results(correct, images):
    return 100.0 * (np.arange(images) < correct)


def test_interval_of_agresti_and_min():
    """Of 100 images 10 get worse and 4 better: (b - c) / (n + 2) and its adjusted variance, by hand."""
    original = np.repeat([100.0, 0.0, 100.0], [10, 4, 86])
    other = np.repeat([0.0, 100.0, 100.0], [10, 4, 86])
    interval = paired_interval(original, other, loss=6.0)
    n, b, c = 102, 10.5, 4.5
    centre = (b - c) / n
    half_width = 1.959964 * math.sqrt((b + c) / n - centre**2) / math.sqrt(n)
    assert (interval.lower, interval.upper) == pytest.approx((100 * (centre - half_width), 100 * (centre + half_width)))
    assert interval.images == 100


def test_no_change_at_all_is_not_certainty():
    original = results(80, 100)
    interval = paired_interval(original, original, loss=0.0)
    assert interval.lower < -1 and interval.upper > 1


def test_only_images_that_change_count():
    """The same loss from fewer changes is known better."""
    few = paired_interval(results(90, 100), results(88, 100), 2.0)
    shuffled = np.roll(results(88, 100), 20)
    many = paired_interval(results(90, 100), shuffled, 2.0)
    assert few.half_width < many.half_width


def test_an_error_that_grows_is_a_loss_too():
    interval = paired_interval(np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.0, 5.0]), loss=4 / 3)
    assert interval.lower < 4 / 3 < interval.upper


@pytest.mark.parametrize(
    ("original", "other", "loss"),
    [(results(9, 10), results(8, 9), 1.0), (results(9, 10), results(8, 10), 3.0), (np.zeros(0), np.zeros(0), 0.0)],
)
def test_results_that_do_not_belong_together_give_none(original, other, loss):
    assert paired_interval(original, other, loss) is None


def test_covers_the_true_loss_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        change = generator.choice([1.0, -1.0, 0.0], p=[0.03, 0.02, 0.95], size=600)
        original = np.where(change > 0, 1.0, 0.0)
        other = np.where(change < 0, 1.0, 0.0)
        interval = paired_interval(original, other, float(np.mean(change)))
        covered += interval.lower <= 0.01 <= interval.upper
    assert 0.92 <= covered / 400 <= 0.98


def test_number_of_images_that_would_do():
    interval = paired_interval(results(90, 100), results(88, 100), 2.0)
    assert interval.images_to_resolve(interval.half_width / 2) == 400


def evaluator(judge):
    class Evaluator(AutoCalibrationEvaluatorBase):
        def metric_eval(self, original_metric, new_metric):
            return judge(original_metric, new_metric)

    return CheckedEvaluator(Evaluator())


@given(
    original=st.floats(-100, 100),
    target=st.floats(0.001, 50),
    sign=st.sampled_from([1, -1]),
    strict=st.booleans(),
)
def test_target_is_found_from_metric_eval(original, target, sign, strict):
    def judge(first, second):
        loss = sign * (first - second)
        return loss < target if strict else loss <= target, loss

    assert evaluator(judge).find_target(original) == pytest.approx(target, rel=1e-4, abs=1e-6)


def test_relative_losses_and_a_target_of_zero():
    relative = evaluator(lambda first, second: ((first - second) / first < 0.01, (first - second) / first))
    assert relative.find_target(80.0) == pytest.approx(0.01, rel=1e-4)
    assert evaluator(lambda first, second: (first - second <= 0, first - second)).find_target(80.0) == 0


@pytest.mark.parametrize("metric", [None, "good", {"top1": 80.0}, [1.0, 2.0], True])
def test_the_target_of_other_metrics_is_not_known(metric):
    assert evaluator(lambda first, second: (False, 1.0)).find_target(metric) is None


def test_metric_eval_that_refuses_other_metrics_or_accepts_all():
    def refuses(first, second):
        if first != second:
            raise ValueError("no model has this metric")
        return True, 0.0

    assert evaluator(refuses).find_target(80.0) is None
    assert evaluator(lambda first, second: (True, abs(first - second))).find_target(80.0) is None
