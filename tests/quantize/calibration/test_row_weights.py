"""Rows of dense layers count in bias correction by the relative error of their outputs."""

import numpy as np
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, run, signal_to_noise, tf1

from amct_tensorflow.quantize.calibration.layer_moments import row_weights

WIDTH, LENGTH = 16, 20


def test_a_row_weighs_the_inverse_of_its_squared_output():
    rows = np.array([[[1, 0], [0, 3], [0, 0]]], np.float32)
    weights = np.array([[[2, 0], [0, 4]]], np.float32)
    # The squares are 4, 144 and 0; a step of 0.5 in both inputs comes to 0.25 * (4 + 16).
    np.testing.assert_allclose(row_weights(rows, weights, 0.5), [[1 / 9, 1 / 149, 1 / 5]])


def test_weights_of_zeros_weigh_nothing():
    assert not row_weights(np.ones((1, 3, 2), np.float32), np.zeros((1, 2, 4), np.float32), 0.5).any()


def test_rows_weigh_the_same_however_many_are_looked_at_together(monkeypatch):
    rows = normal((2, 7, 5), 2)
    whole = row_weights(rows, normal((2, 5, 3), 3), 0.1)
    monkeypatch.setattr("amct_tensorflow.quantize.calibration.layer_moments._ROWS_AT_A_TIME", 3)
    np.testing.assert_allclose(row_weights(rows, normal((2, 5, 3), 3), 0.1), whole, rtol=1e-6)


def sentences(seed):
    """Sentences whose first token is 50 times as large in one channel as the others in any."""
    found = np.abs(normal((32, LENGTH, WIDTH), seed))
    found[:, 0, 3] = 50 + normal((32,), seed + 1)
    return found


def dense():
    x = tf1.placeholder(tf.float32, [None, LENGTH, WIDTH], name="x")
    products = tf.matmul(tf.reshape(x, [-1, WIDTH]), normal((WIDTH, WIDTH), 1))
    tf.reshape(products, [-1, LENGTH, WIDTH], name="out")


def test_what_clipping_takes_from_a_few_large_rows_is_not_added_to_the_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph_def, seen, unseen = build(dense), sentences(2), sentences(5)
    clips = "common_config { ifmr_quantize { max_percentile: 0.99 } } range_refinement: false input_balancing: false"
    ratios = []
    for corrects in ("true", "false"):
        quantized = calibrate_and_save(graph_def, seen, simplified=f"{clips} bias_correction: {corrects}")
        (signal,), (noisy,) = (run(each, ["out"], {"x": unseen}) for each in (graph_def, quantized))
        ratios.append(signal_to_noise(signal[:, 1:], noisy[:, 1:]))
    # The plain mean error adds 47 / 20 of a row of weights to every row, which leaves 6 dB.
    assert ratios[0] > ratios[1]
