"""Ranges are observed whatever TensorFlow's optimizer makes of what reads them."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import batch_norm, build, calibrate_and_save, normal, run, tf1
from test_every_format import OneBatch

from amct_tensorflow.export.export_plan import plan_export
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

X = normal((8, 6, 6, 3), 1)


def transposed_twice(y):
    return tf.transpose(tf.transpose(y, [0, 3, 1, 2]), [0, 2, 3, 1])


BEHIND = {
    "FusedBatchNorm": lambda y: batch_norm(y, 4, "behind"),
    "Transposes": transposed_twice,
    "Transposes and Relu": lambda y: tf.nn.relu(transposed_twice(y)),
    "Cast": lambda y: tf.raw_ops.Cast(x=y, DstT=tf.float32) + 1.0,
    "Casts": lambda y: tf.cast(tf.cast(y, tf.float64), tf.float32),
    "Mul and Add": lambda y: y * normal((4,), 5) + normal((4,), 6),
    "Identities": lambda y: tf.stop_gradient(tf.identity(y)) - 1.0,
    "Reshapes": lambda y: tf.reshape(tf.reshape(y, [-1, 36, 4]), [-1, 6, 6, 4]),
    "Squeeze": lambda y: tf.squeeze(tf.expand_dims(y, 1), 1),
    "Pad": lambda y: tf.pad(y, [[0, 0], [1, 1], [1, 1], [0, 0]]),
    "nothing": lambda y: y,
}  # fmt: skip


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("behind", BEHIND)
def test_what_stands_behind_a_layer_does_not_hide_its_range(behind, relu):
    def make():
        y = tf.nn.conv2d(tf1.placeholder(tf.float32, [None, 6, 6, 3], name="x"), normal((3, 3, 3, 4), 2), 1, "SAME")
        y = BEHIND[behind](tf.nn.relu(y) if relu else y)
        tf.reduce_mean(tf.nn.conv2d(y, normal((3, 3, 4, 5), 3), 1, "SAME"), [1, 2], name="out")

    quantized = calibrate_and_save(build(make), X)
    plan = plan_export(Path("results/net_quantized.pb"), ["out"], CheckedEvaluator(OneBatch(X)))
    np.testing.assert_array_equal(plan.images["x"], X)
    (first,) = [each for each in plan.layer_outputs.values() if not each.is_final]
    (values,) = run(quantized, [first.end], {"x": X})
    grid = next(iter(plan.output_grids.values()))
    if first.is_observed:
        assert grid.scale * 255 == pytest.approx(np.ptp(np.append(values, 0)), rel=1e-3)
