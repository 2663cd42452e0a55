"""What is said before a run about how much of a model will be in int8."""

from pathlib import Path

import pytest
import tensorflow as tf
from graphs import SMALL_NET_LAYERS, batch_norm, build, calibrate_and_save, normal, save, small_net, tf1

import amct_tensorflow as amct
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.inspection import inspect_model
from amct_tensorflow.results.coverage import log_coverage


def inspect(make):
    return inspect_model(FloatModel.load(save(build(make), Path("model.pb")), []))


def test_all_of_a_model(messages):
    log_coverage(inspect(small_net), SMALL_NET_LAYERS)
    assert messages[-1:] == [
        "INFO 5 of 5 layers will be in int8, 100.0 % of the multiply-accumulates. "
        "0 BatchNorms or other scalings of channels stay in float."
    ]


def test_layers_that_read_16_bits(messages):
    log_coverage(inspect(small_net), SMALL_NET_LAYERS, ["conv/Conv2D", "pool/AvgPool"])
    assert messages[-1:] == ["INFO 2 of these layers read activations in 16 bits, 51.6 % of the multiply-accumulates."]


def test_what_the_configuration_disables_counts_as_float(messages):
    log_coverage(inspect(small_net), ["conv/Conv2D", "pool/AvgPool"])
    assert messages[-2].startswith("INFO 2 of 5 layers will be in int8, 51.6 % of the multiply-accumulates.")
    assert messages[-1] == (
        "WARNING Only 51.6 % of the multiply-accumulates will be in int8. In float: 48.4 % in 3 layers, as "
        "'dw/depthwise': the configuration leaves it in float."
    )


def many_reasons():
    x = tf1.placeholder(tf.float32, [None, 4, 8], name="x")
    tf.matmul(x, x, transpose_b=True, name="scores")  # 128
    tf.matmul(tf.cast(x, tf.float64), tf.cast(normal((8, 8)), tf.float64), name="double")  # 256
    tf.matmul(x, normal((1, 8, 2)), name="stacked")  # 64
    tf.matmul(x, normal((4, 1)), transpose_a=True, name="columns")  # 32
    tf.matmul(x, normal((8, 1)), name="dense")  # 32


def test_the_largest_reasons_come_first(messages):
    log_coverage(inspect(many_reasons), ["dense"])
    assert messages[-1] == (
        "WARNING Only 6.2 % of the multiply-accumulates will be in int8. In float: 50.0 % in 'double': it computes "
        "float64, and only float32 can be quantized; 25.0 % in 'scores': the configuration leaves it in float; "
        "12.5 % in 'stacked': its weights have 3 axes, and only 2 can be quantized; 1 other reason."
    )


def test_without_shapes_parameters_tell(messages):
    def make():
        x = tf1.placeholder(tf.float32, [None, None, None, 4])
        y = tf.nn.conv2d(x, normal((1, 1, 4, 4)), 1, "SAME", name="a")
        tf.nn.conv2d(y, normal((1, 1, 4, 2)), 1, "SAME", name="b")

    log_coverage(inspect(make), ["a"])
    assert messages[-2].startswith(
        "INFO 1 of 2 layers will be in int8, 66.7 % of the parameters, as the shapes do not tell the "
        "multiply-accumulates."
    )
    assert messages[-1].startswith("WARNING Only 66.7 % of the parameters will be in int8.")


def test_loops_may_take_more_than_is_known(messages):
    def make():
        tf1.disable_control_flow_v2()
        x = tf1.placeholder(tf.float32, [None, 4])
        weights = tf.constant(normal((4, 4)))
        y = tf.while_loop(lambda i, _: i < 9, lambda i, y: (i + 1, tf.matmul(y, weights)), [0, x])[1]
        tf.matmul(y, normal((4, 96)), name="dense")

    log_coverage(inspect(make), ["dense"])
    assert messages[-1].startswith("WARNING Perhaps only at most 96.0 % of the multiply-accumulates will be in int8.")


def dropped(x):
    return tf.nn.dropout(x, 0.5, name="drop")


def dropped_in_training(x):
    return tf1.cond(tf1.placeholder_with_default(False, []), lambda: dropped(x), lambda: x)


@pytest.mark.parametrize(("dropout", "is_said"), [(dropped, True), (dropped_in_training, False)])
def test_a_dropout_that_was_left_on_is_told(messages, dropout, is_said):
    def make():
        tf1.disable_control_flow_v2()
        x = tf1.placeholder(tf.float32, [None, 4])
        tf.matmul(dropout(x), normal((4, 4)), name="dense")

    log_coverage(inspect(make), ["dense"])
    said = [line for line in messages if "random numbers" in line]
    assert bool(said) == is_said
    assert not said or said[0].startswith("WARNING 1 node draws random numbers: drop/random_uniform/RandomUniform. ")


def test_the_public_steps_say_it_once(workdir, messages):
    def make():
        x = tf1.placeholder(tf.float32, [None, 6, 6, 3], name="x")
        y = tf.nn.relu(batch_norm(tf.nn.relu(x), 3, "bn"))
        tf.nn.conv2d(y, normal((3, 3, 3, 4)), 1, "SAME", name="out")

    calibrate_and_save(build(make), normal((2, 6, 6, 3)))
    said = "INFO 1 of 1 layers will be in int8, 100.0 % of the multiply-accumulates. 1 BatchNorm or other scaling"
    assert sum(line.startswith(said) for line in messages) == 1
    amct.convert_model("float.pb", ["out"], "record.txt", "results/converted")
    assert sum(line.startswith(said) for line in messages) == 2


def test_products_of_unknown_size_beside_dense_layers_are_no_warning(messages):
    def make():
        x = tf1.placeholder(tf.float32, [None, None, 8])
        y = tf.matmul(x, normal((8, 8)), name="dense")
        tf.matmul(y, y, transpose_b=True, name="scores")

    log_coverage(inspect(make), ["dense"])
    assert messages[-1].startswith("INFO 1 of 2 layers will be in int8, at most 100.0 % of the parameters")
