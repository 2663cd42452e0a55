"""What the outputs of a file have lost, where their mean divergence is small."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, tf1
from test_every_format import OneBatch

from amct_tensorflow.export.export_model import export_model
from amct_tensorflow.export.tflite.tflite_target import TFLITE
from amct_tensorflow.export.verification import OutputErrors
from amct_tensorflow.results.comparison.tensor_error import TensorError
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator


def enlarging():
    """Adds details to an image: what the layers yield is a small part of the output.

    Between them stands a float op, and the range that it reads is that of a single channel.
    """
    x = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
    spread = np.ones(8, np.float32)
    spread[0] = 100.0
    y = tf.nn.conv2d(x, normal((3, 3, 3, 8), 1, 0.2) * spread, 1, "SAME", name="conv1")
    y = tf.nn.conv2d(tf.tanh(y), normal((3, 3, 8, 3), 2, 0.02), 1, "SAME", name="conv2")
    tf.add(x, y, name="out")


def test_a_warning_tells_where_an_output_has_lost_much(messages):
    x = normal((4, 8, 8, 3), 9, 0.5)
    calibrate_and_save(build(enlarging), x)
    checked = CheckedEvaluator(OneBatch(x))
    document = export_model(Path("results/net_quantized.pb"), [], TFLITE, checked, Path("results/net"), 0.01)
    (output,) = document["outputs"]
    assert output["name"] == "out" and document["within_limit"]
    assert output["simulation_db"] > 40 and output["exported_db"] < 26 and output["lost_db"] > 14
    (told,) = [message for message in messages if "Output 'out' of results/net.tflite has" in message]
    assert "rounded to 8 bits once more" in told


def errors(signal_to_noise):
    error = TensorError()
    expected = np.ones(4)
    error.add(expected, expected * (1 + 10 ** (-signal_to_noise / 20)))
    return error


@pytest.mark.parametrize(
    ("simulated", "exported", "lost"),
    [(44.9, 21.1, 18.9), (30, 25, 5), (70, 45, 0), (np.inf, 35, 5), (20, -5, 20), (-np.inf, -np.inf, 0)],
)
def test_what_is_lost_counts_below_what_is_noticed(simulated, exported, lost):
    found = OutputErrors(errors(simulated), errors(exported)).lost
    assert found == pytest.approx(lost, abs=0.05)
