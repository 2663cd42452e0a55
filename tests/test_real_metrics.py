"""What the benchmark of real networks measures, on outputs whose result is counted by hand."""

import numpy as np
import pytest
from conftest import load_script

metrics = load_script("benchmarks/real_metrics.py")


def test_classes():
    first, second = np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([[0.4, 0.6], [0.1, 0.9]])
    assert metrics.same_class()([first], [second]) == 50
    assert metrics.same_class()([np.array([[0.4], [0.6]])], [np.array([[0.1], [0.7]])]) == 100


def test_nearest_examples():
    rows = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]])
    assert metrics.same_nearest()([rows], [7 * rows]) == 100
    moved = np.array([[1, 0], [0, 1], [1, 0.1], [0.1, 1.2]])  # the first finds the third, the others each other
    assert metrics.same_nearest()([rows], [moved]) == 0


def test_values_within_a_distance():
    assert metrics.within(2)([np.array([1.0, 2, 3, 4])], [np.array([1.0, 4, 6, 7])]) == 50


def test_points_of_which_the_network_is_sure():
    points = np.array([[[0, 0, 0.9], [5, 5, 0.9], [9, 9, 0.1]]])
    moved = points + np.array([[[3, 4, 0], [0, 6, 0], [50, 50, 0]]])
    metric = metrics.points_within(5, lambda each: each[..., :2], lambda each: each[..., 2] > 0.3)
    assert metric([points], [moved]) == 50


def test_peaks_of_heat_maps():
    maps = np.zeros((1, 4, 5, 2))
    maps[0, 1, 2, 0], maps[0, 3, 4, 1] = 1, 1
    other = np.zeros((1, 4, 5, 2))
    other[0, 2, 2, 0], other[0, 0, 4, 1] = 1, 1  # one cell away, and three
    assert metrics.peaks_within(1)([maps], [other]) == 50


def test_overlap_of_masks_where_there_is_one():
    first, second = np.zeros((2, 2, 3, 1)), np.zeros((2, 2, 3, 1))
    first[0, 0], second[0, :, 0] = 1, 1  # three and two, of which one is the same: 1 / 4
    assert metrics.overlap()([first], [second]) == 25


def test_f1_of_what_is_found():
    first, second = np.array([0.9, 0.9, 0.1, 0.1]), np.array([0.9, 0.1, 0.9, 0.9])
    assert metrics.f1([0.5])([first], [second]) == pytest.approx(100 * 2 / 5)


def test_peak_signal_to_noise():
    assert metrics.peak_signal()([np.zeros(4)], [np.full(4, 0.1)]) == pytest.approx(20)


def test_boxes_found_again():
    found = np.array([[0, 0, 10, 10, 0.9, 1], [20, 20, 30, 30, 0.8, 2], [0, 0, 10, 10, 0.1, 1]], float)
    again = np.array([[0, 0, 10, 9, 0.7, 1], [20, 20, 30, 30, 0.9, 3], [50, 50, 60, 60, 0.9, 1]], float)
    metric = metrics.boxes_again(lambda outputs: outputs[0][0])
    assert metric([found[None]], [again[None]]) == pytest.approx(100 * 2 / 5)  # one of two, and of three
    assert metric([found[None]], [found[None]]) == 100


def test_a_box_is_found_again_once():
    found = np.array([[0, 0, 10, 10, 0.9, 1], [0, 0, 10, 9, 0.8, 1]], float)
    metric = metrics.boxes_again(lambda outputs: outputs[0][0])
    assert metric([found[None]], [found[None, :1]]) == pytest.approx(100 * 2 / 3)


def test_overlap_of_boxes():
    box, others = np.array([0, 0, 2, 2.0]), np.array([[1, 1, 3, 3.0], [2, 2, 3, 3], [0, 0, 2, 2]])
    np.testing.assert_allclose(metrics.intersection_over_union(box, others), [1 / 7, 0, 1])


def test_signal_to_noise():
    assert metrics.signal_to_noise(np.ones(4), np.full(4, 0.9)) == pytest.approx(20)
