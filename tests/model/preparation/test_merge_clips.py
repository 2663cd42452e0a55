"""However a graph clips at 0 and above it, it is brought into one form."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, ops_of, prepared, run, signal_to_noise, tf1

from amct_tensorflow.model.preparation.merge_clips import merge_clips

raw = tf.raw_ops
X = normal((8, 5, 5, 3), 1, 6.0)


def low(x, bound=0.0, first=False):
    return raw.Maximum(x=bound, y=x) if first else raw.Maximum(x=x, y=bound)


def high(x, bound=6.0, first=False):
    return raw.Minimum(x=bound, y=x) if first else raw.Minimum(x=x, y=bound)


def clip(x, lowest=0.0, highest=6.0):
    return raw.ClipByValue(t=x, clip_value_min=lowest, clip_value_max=highest)


CLIPS = {
    "older Keras": (lambda x: low(high(tf.nn.relu(x))), ["Relu6"]),
    "older Keras, operands swapped": (lambda x: low(high(tf.nn.relu(x), first=True), first=True), ["Relu6"]),
    "Minimum, Relu": (lambda x: tf.nn.relu(high(x)), ["Relu6"]),
    "Relu, Minimum": (lambda x: high(tf.nn.relu(x)), ["Relu6"]),
    "Maximum, Minimum": (lambda x: high(low(x)), ["Relu6"]),
    "Minimum, Maximum": (lambda x: low(high(x)), ["Relu6"]),
    "of one element": (lambda x: high(low(x, [0.0]), [[[[6.0]]]]), ["Relu6"]),
    "ClipByValue": (clip, ["Relu6"]),
    "clip_by_value": (lambda x: tf.clip_by_value(x, 0.0, 6.0), ["Relu6"]),
    "Relu6 twice": (lambda x: tf.nn.relu6(tf.nn.relu6(x)), ["Relu6"]),
    "Relu6, Relu": (lambda x: tf.nn.relu(tf.nn.relu6(x)), ["Relu6"]),
    "wider than it must be": (lambda x: high(low(clip(x, -2.0, 7.0))), ["Relu6"]),
    "Maximum": (low, ["Relu"]),
    "another bound": (lambda x: low(high(x, 4.0)), ["Minimum", "Relu"]),
    "another bound than Relu6": (lambda x: high(tf.nn.relu6(x), 4.0), ["Minimum", "Relu"]),
}  # fmt: skip


def graph_of(make_clip):
    def make():
        x = tf1.placeholder(tf.float32, [None, 5, 5, 3], name="x")
        y = make_clip(tf.nn.conv2d(x, normal((1, 1, 3, 4), 2), 1, "SAME", name="first"))
        tf.identity(tf.nn.conv2d(y, normal((1, 1, 4, 2), 4), 1, "SAME", name="second"), name="out")

    return build(make)


@pytest.mark.parametrize("name", CLIPS)
def test_it_becomes_one_form(name):
    make_clip, ops = CLIPS[name]
    graph_def = graph_of(make_clip)
    rewritten, added = prepared(graph_def, merge_clips)
    assert ops_of(rewritten, "Conv2D", "Identity") == ops
    clips = {node.name for node in graph_def.node if node.op in ("Relu", "Relu6", "Minimum", "Maximum", "ClipByValue")}
    assert all(set(stands_for) == clips for stands_for in added.values()) and added
    np.testing.assert_array_equal(*(run(each, ["out"], {"x": X})[0] for each in (graph_def, rewritten)))
    again, nothing = prepared(rewritten, merge_clips)
    assert again == rewritten and nothing == {}


@pytest.mark.parametrize(
    "make_clip",
    [
        tf.nn.relu, tf.nn.relu6, high, lambda x: high(tf.nn.relu(x), 4.0),
        lambda x: low(high(x), -1.0), lambda x: low(high(x, -1.0)),
        lambda x: high(x, np.full(4, 6, np.float32)), lambda x: high(tf.nn.relu(x), tf.reduce_max(x)),
        lambda x: high(tf.nn.relu(x), np.nan),
    ],
    ids=["Relu", "Relu6", "no lower bound", "as it is to be", "below 0", "nothing but 0", "per channel", "computed",
         "not a number"],
)  # fmt: skip
def test_what_is_in_that_form_or_has_none_stays(make_clip):
    graph_def = graph_of(make_clip)
    rewritten, added = prepared(graph_def, merge_clips)
    assert added == {} and rewritten == graph_def


def test_what_is_asked_for_or_read_elsewhere_stays():
    def make():
        y = tf.nn.relu(tf1.placeholder(tf.float32, [None, 3], name="x"), name="relu")
        y = raw.Minimum(x=y, y=6.0, name="minimum")
        raw.Maximum(x=y, y=0.0, name="out")

    assert ops_of(prepared(build(make), merge_clips)[0]) == ["Relu6"]
    assert ops_of(prepared(build(make), merge_clips, ["out", "minimum"])[0]) == ["Relu", "Relu6"]
    assert ops_of(prepared(build(make), merge_clips, ["out", "relu"])[0]) == ["Relu", "Relu6"]


def test_a_bound_that_gives_the_result_more_axes_stays():
    def make():
        high(tf.nn.relu(tf1.placeholder(tf.float32, [None, 3], name="x")), [[[6.0]]])

    graph_def = build(make)
    assert prepared(graph_def, merge_clips, ["Minimum"])[0] == graph_def


@pytest.mark.parametrize("name", ["older Keras", "another bound", "clip_by_value"])
def test_quantizers_repeat_it(name):
    """What the clip yields is always below its bound, and so is the range that calibration finds."""
    graph_def = graph_of(CLIPS[name][0])
    quantized = calibrate_and_save(graph_def, X)
    expected, actual = (run(each, ["out"], {"x": X})[0] for each in (graph_def, quantized))
    assert signal_to_noise(expected, actual) > 30
