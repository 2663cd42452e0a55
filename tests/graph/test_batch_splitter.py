"""Batches are split into parts only where layers read the same values from parts as from the whole."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, build_v1, normal, tf1

from amct_tensorflow.graph import batch_splitter
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.calibration import replay
from amct_tensorflow.quantize.calibration.calibrator import Calibrator
from amct_tensorflow.quantize.config.defaults import default_config


@pytest.fixture(autouse=True)
def sixteen_images_at_a_time(monkeypatch):
    monkeypatch.setattr(batch_splitter, "IMAGES_AT_A_TIME", 16)


def placeholder(*shape, name="x", dtype=tf.float32):
    return tf1.placeholder(dtype, [None, *shape], name=name)


def dense(y, channels=4, seed=1):
    return tf.matmul(y, normal((int(y.shape[-1]), channels), seed), name=f"dense{seed}")


def conv(y, padding="SAME", seed=1):
    return tf.nn.conv2d(y, normal((3, 3, int(y.shape[-1]), 4), seed, 0.3), 1, padding)


def finish(y):
    tf.identity(dense(tf.nn.relu(y), seed=9), name="out")


def images():
    finish(tf.reduce_mean(tf.nn.relu(conv(placeholder(6, 6, 3))), [1, 2]))


def rows():
    finish(dense(placeholder(5)))


def sequences():
    """Keras flattens sequences in front of a dense layer, and shapes what comes out by what went in."""
    x = placeholder(7, 5)
    y = tf.reshape(dense(tf.reshape(x, [-1, 5])), tf.stack([tf.shape(x)[0], 7, 4]))
    finish(tf.reduce_mean(tf.nn.relu(y), 1))


def scaled_by_a_scalar():
    finish(dense(placeholder(5)) * tf1.placeholder(tf.float32, [], name="gain"))


def two_inputs():
    finish(dense(placeholder(5)) + dense(placeholder(6, name="other"), seed=2))


def reversed_images():
    finish(tf.reverse(dense(placeholder(5)), [0]))


def dilated():
    y = tf.space_to_batch(placeholder(8, 8, 3), [2, 2], [[2, 2], [2, 2]])
    y = tf.nn.relu(tf.batch_to_space(conv(y, "VALID"), [2, 2], [[0, 0], [0, 0]]))
    finish(tf.reduce_mean(tf.nn.relu(conv(y, seed=2)), [1, 2]))


def summed_up():
    finish(tf.cumsum(tf.abs(dense(placeholder(5)))))


def delayed_by(frames):
    def make():
        y = dense(placeholder(5))
        finish(y * tf.pad(y, [[frames, 0], [0, 0]])[:-frames])

    return make


def convolved_over_time():
    y = tf.expand_dims(dense(placeholder(5)), 0)
    finish(tf.nn.conv1d(y, normal((3, 4, 4), 2), 1, "SAME", dilations=8)[0])


def windows():
    finish(tf.reshape(dense(placeholder(5)), [-1, 40]))


def windows_that_fill_half_a_batch():
    """Halves of the batch can be run, but no parts of 16 frames."""
    finish(tf.reshape(dense(placeholder(5)), [-1, 36]))


def as_many_windows_as_there_are_images():
    """Parts can be run, but their windows hold other frames."""
    finish(tf.reshape(tf.transpose(tf.reshape(dense(placeholder(5)), [4, -1, 4]), [1, 0, 2]), [-1, 16]))


def framed():
    """Nothing but samples: a part is shorter than a frame."""
    y = tf.signal.frame(placeholder(), 32, 8)
    finish(dense(y))


def normalized_by_the_batch():
    y = dense(placeholder(5))
    finish((y - tf.reduce_mean(y, 0)) / tf.math.reduce_std(y, 0))


def sorted_over_time():
    y = dense(placeholder(5))
    finish(y + tf.sort(y, 0))


def attention():
    y = dense(placeholder(5))
    finish(tf.nn.softmax(y @ tf.transpose(y)) @ y)


def time_major():
    finish(tf.reduce_max(dense(placeholder(3, 5)), 0))


def recurrent():
    """A loop over the first axis."""
    y = dense(placeholder(5))
    _, y = tf1.while_loop(lambda i, _: i < tf.shape(y)[0], lambda i, h: (i + 1, tf.tanh(h + y[i])), [0, tf.zeros([4])])
    finish(y[None])


SAME = {
    images: {"x": normal((40, 6, 6, 3), 1)},
    rows: {"x": normal((40, 5), 1)},
    scaled_by_a_scalar: {"x": normal((40, 5), 1), "gain": np.float32(2)},
    two_inputs: {"x": normal((40, 5), 1), "other": normal((40, 6), 2)},
    reversed_images: {"x": normal((40, 5), 1)},
    sequences: {"x": normal((40, 7, 5), 1)},
}
OTHER = {
    dilated: {"x": np.cumsum(normal((40, 8, 8, 3), 1), 1)},
    summed_up: {"x": normal((40, 5), 1)},
    delayed_by(1): {"x": normal((40, 5), 1)},
    delayed_by(30): {"x": normal((40, 5), 1)},
    convolved_over_time: {"x": normal((64, 5), 1)},
    windows: {"x": normal((40, 5), 1)},
    windows_that_fill_half_a_batch: {"x": normal((18, 5), 1)},
    as_many_windows_as_there_are_images: {"x": np.cumsum(normal((48, 5), 1), 0)},
    framed: {"x": normal((200,), 1)},
    normalized_by_the_batch: {"x": normal((40, 5), 1) + np.arange(40)[:, None]},
    sorted_over_time: {"x": normal((40, 5), 1)},
    attention: {"x": normal((40, 5), 1)},
    time_major: {"x": normal((40, 3, 5), 1)},
    recurrent: {"x": normal((40, 5), 1)},
}
NAMES = [make.__name__ for make in (*SAME, *OTHER)]


def calibrate(graph_def, runs):
    """Returns what is found, and of how many images each part of the batches was."""
    model = FloatModel.of_graph(import_graph(graph_def, "test"), ["out"])
    config = default_config(model.layers, model.op_types, batch_num=len(runs))
    taps = Calibrator(model, config, lambda _: None, for_search=True)
    parts = taps._parts
    with tf1.Session(graph=model.graph) as session:
        for feeds in runs:
            session.run("out:0", {f"{name}:0": value for name, value in feeds.items()})
    lengths = [max(len(value) for value in part.values() if value.ndim) for part in parts]
    return taps.check_complete(), lengths


def same_factors(one, other):
    assert one.factors.keys() == other.factors.keys()
    for name, factors in one.factors.items():
        np.testing.assert_allclose(other.factors[name].scale_d, factors.scale_d, rtol=1e-5, err_msg=name)
        assert abs(other.factors[name].offset_d - factors.offset_d) <= 1


@pytest.mark.parametrize(("make", "feeds"), [*SAME.items(), *OTHER.items()], ids=NAMES)
def test_what_is_found_is_what_whole_batches_tell(make, feeds, monkeypatch):
    graph_def = (build_v1 if make is recurrent else build)(make)
    found, lengths = calibrate(graph_def, [feeds])
    assert (len(lengths) > 1) == (make in SAME)
    monkeypatch.setattr(batch_splitter, "IMAGES_AT_A_TIME", 1000)
    whole, lengths = calibrate(graph_def, [feeds])
    assert len(lengths) == 1
    same_factors(found, whole)
    assert found.images == whole.images == len(feeds["x"])


@pytest.mark.parametrize(("make", "feeds"), [*SAME.items(), *OTHER.items()], ids=NAMES)
def test_what_a_graph_tells_is_what_a_trial_finds(make, feeds, monkeypatch):
    graph_def = (build_v1 if make is recurrent else build)(make)
    _, known = calibrate(graph_def, [feeds])
    monkeypatch.setattr(replay, "computes_each_image_alone", lambda *_: False)
    assert calibrate(graph_def, [feeds])[1] == known


def test_nothing_is_tried_where_the_graph_tells(monkeypatch):
    monkeypatch.setattr(batch_splitter.BatchSplitter, "_try", lambda *_: None)
    assert calibrate(build(images), [SAME[images]])[1] == [16, 16, 8]
    assert calibrate(build(reversed_images), [SAME[reversed_images]])[1] == [40]


def test_batches_of_different_length():
    """The first that is long enough tells; the last may be short."""
    runs = [{"x": normal((length, 5), length)} for length in (10, 20, 40, 3)]
    found, lengths = calibrate(build(rows), runs)
    assert lengths == [10, 16, 4, 16, 16, 8, 3] and found.images == 73
    found, lengths = calibrate(build(summed_up), runs)
    assert lengths == [10, 20, 40, 3] and found.images == 73


def test_a_batch_that_is_the_same_all_over_tells_nothing():
    """Silence at the beginning of a recording must not make frames independent."""
    runs = [{"x": np.zeros((40, 5), np.float32)}, {"x": normal((40, 5), 1)}]
    assert calibrate(build(summed_up), runs)[1] == [40, 40]
    assert calibrate(build(reversed_images), runs)[1] == [40, 16, 16, 8]
    assert calibrate(build(rows), runs)[1] == [16, 16, 8, 16, 16, 8]  # where the graph tells


@pytest.mark.parametrize("shape", [(32, 5), (None, 5)])
def test_a_batch_that_is_fixed_in_the_graph_stays_whole(shape):
    def make():
        x = tf1.placeholder(tf.float32, shape, name="x")
        finish(tf.reshape(dense(x), [32, 4]))

    assert calibrate(build(make), [{"x": normal((32, 5), 1)}])[1] == [32]


def test_text_is_cut_like_images():
    def make():
        words = tf1.placeholder(tf.string, [None, 3], name="x")
        finish(dense(tf.reshape(tf.gather(normal((7, 2), 3), tf.strings.to_hash_bucket_fast(words, 7)), [-1, 6])))

    words = np.array([[f"{row}", "a", f"{row % 3}"] for row in range(20)], object)
    found, lengths = calibrate(build(make), [{"x": words}])
    assert lengths == [16, 4] and found.images == 20


def test_inputs_of_different_lengths_do_not_tell_the_number_of_images():
    def make():
        finish(dense(placeholder(5)) + tf.reduce_sum(dense(placeholder(5, name="other"), seed=2), 0))

    found, lengths = calibrate(build(make), [{"x": normal((20, 5), 1), "other": normal((30, 5), 2)}])
    assert len(lengths) == 1 and found.images is None


def test_a_whole_batch_is_told_once(messages):
    calibrate(build(summed_up), [{"x": normal((20, 5), seed)} for seed in range(3)])
    (told,) = [message for message in messages if "run as a whole" in message]
    assert "does not count images that are independent" in told
