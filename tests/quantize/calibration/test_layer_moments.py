"""Moments of layers: shared where rows are the same, collected in bounded memory, and trusted as far as rows allow."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, node_of, normal, run, signal_to_noise, tf1

from amct_tensorflow.graph import batch_splitter
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.quantize.algorithms.second_moments import SecondMoments
from amct_tensorflow.quantize.calibration import layer_moments
from amct_tensorflow.quantize.quantized.quantized_layer import read_layers


@pytest.fixture(autouse=True)
def sixteen_images_at_a_time(monkeypatch):
    monkeypatch.setattr(batch_splitter, "IMAGES_AT_A_TIME", 16)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def attention():
    """Three layers that read one tensor, and one that reads what they yield."""
    x = tf1.placeholder(tf.float32, [None, 24], name="x")
    query, key, value = (tf.matmul(x, normal((24, 12), seed), name=name) for seed, name in enumerate("qkv", 1))
    tf.matmul(tf.nn.relu(query * key) + value, normal((12, 5), 4), name="out")


X = normal((64, 24), 9) @ normal((24, 24), 10)
# The rows of a part of the batch, which is split into four.
QKV, LAST = (1, 16, 24), (1, 16, 12)


def added(monkeypatch):
    """Notes the rows that second moments are made of."""
    shapes = []
    original = SecondMoments.add

    def add(self, rows):
        shapes.append(rows.shape)
        original(self, rows)

    monkeypatch.setattr(SecondMoments, "add", add)
    return shapes


def files():
    names = ("record.txt", "record_weights.npz", "record_bias_correction.json", "results/net_quantized.pb")
    return {name: Path(name).read_bytes() for name in names}


def test_layers_that_read_the_same_rows_share_their_moments(monkeypatch):
    shapes = added(monkeypatch)
    calibrate_and_save(build(attention), X)
    assert sorted(shapes) == sorted([QKV, LAST] * 4)
    shared = files()
    monkeypatch.setattr(layer_moments._Layer, "rows_key", property(lambda self: (self.name,)))
    calibrate_and_save(build(attention), X)
    assert sorted(shapes[8:]) == sorted([QKV, QKV, QKV, LAST] * 4)
    assert files() == shared


@pytest.mark.parametrize("chains", [1, 2, 3])
def test_chains_of_observers_change_nothing(monkeypatch, chains):
    """Layers with equal weights sum up one covariance, one after the other."""
    weights = normal((24, 24), 1)

    def make():
        x = tf1.placeholder(tf.float32, [None, 24], name="x")
        for number in range(6):
            x = tf.nn.relu(tf.matmul(x, weights if number % 2 else normal((24, 24), number + 2), name=f"layer{number}"))
        tf.identity(x, name="out")

    calibrate_and_save(build(make), X)
    expected = files()
    monkeypatch.setattr(layer_moments, "_CHAINS", chains)
    for _ in range(3):
        calibrate_and_save(build(make), X)
        assert files() == expected


def test_memory_is_bounded_by_running_again(monkeypatch):
    calibrate_and_save(build(attention), X)
    whole = files()
    monkeypatch.setattr(layer_moments, "_MOST_BYTES", 1)
    shapes = added(monkeypatch)
    calibrate_and_save(build(attention), X)
    assert shapes == [QKV] * 4 + [LAST] * 4 and files() == whole


def test_time_is_bounded_by_looking_at_fewer_rows(monkeypatch):
    monkeypatch.setattr(layer_moments, "_MOST_ROWS", 20)
    shapes = added(monkeypatch)
    calibrate_and_save(build(attention), X)
    assert [rows for _, rows, _ in shapes] == [4] * 8  # of 16 in each of four parts, at most 5


def test_more_parts_than_rows_give_one_each(monkeypatch):
    monkeypatch.setattr(layer_moments, "_MOST_ROWS", 3)
    shapes = added(monkeypatch)
    calibrate_and_save(build(attention), X)
    assert [rows for _, rows, _ in shapes] == [1] * 8


def pointwise():
    """A layer that reads the input at one place at a time."""
    x = tf1.placeholder(tf.float32, [None, 10, 10, 2], name="x")
    tf.nn.conv2d(x, normal((1, 1, 2, 3), 1), 1, "SAME", name="out")


def placed(images):
    """Images whose values tell the place: the rows and the columns, from -1 to 1."""
    place = np.linspace(-1, 1, 10, dtype=np.float32)
    return np.tile(np.stack(np.meshgrid(place, place, indexing="ij"), -1), (images, 1, 1, 1)) + np.zeros(
        (images, 1, 1, 2), np.float32
    )


def seen(monkeypatch):
    """Notes the rows of second moments."""
    found = []
    original = SecondMoments.add

    def add(self, rows):
        found.append(np.array(rows))
        original(self, rows)

    monkeypatch.setattr(SecondMoments, "add", add)
    return found


@pytest.mark.parametrize("rows_of_each", [1, 2, 3])
def test_few_rows_of_many_parts_lie_all_over_the_images(monkeypatch, rows_of_each):
    """Not in the same corner of each, where windows see little but the padding."""
    monkeypatch.setattr(batch_splitter, "IMAGES_AT_A_TIME", 1)
    monkeypatch.setattr(layer_moments, "_MOST_ROWS", 60 * rows_of_each)
    found = seen(monkeypatch)
    images = placed(60)
    images[1:, 0, 0] += np.float32(1e-3)  # images that do not differ cannot tell whether they are independent
    calibrate_and_save(build(pointwise), images)
    assert len(found) == 60 and all(rows.shape[1] <= rows_of_each for rows in found)
    rows = np.concatenate(found, axis=1)[0]
    steps = placed(1).reshape(-1, 2).std(axis=0) * 127.5
    assert np.all(np.abs(rows.mean(axis=0)) < 0.1 * steps)
    np.testing.assert_allclose(rows.std(axis=0), steps, rtol=0.1)


def test_images_count_alike_whatever_parts_they_come_in(monkeypatch):
    """A batch of 33 images comes in parts of 16, 16 and 1."""
    shapes = added(monkeypatch)
    images = normal((33, 8, 8, 3), 3)

    def make():
        x = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
        tf.nn.depthwise_conv2d(x, normal((3, 3, 3, 1), 1), [1, 1, 1, 1], "SAME", name="out")

    calibrate_and_save(build(make), images)
    rows = [number for _, number, _ in shapes]
    assert len(rows) == 3 and abs(rows[0] - rows[1]) <= 1 and abs(rows[2] - rows[0] / 16) <= 2


def test_a_layer_with_more_inputs_than_rows_tells_how_far_it_is_trusted(messages):
    calibrate_and_save(build(attention), X)
    assert not any("second moments" in line for line in messages)
    calibrate_and_save(build(attention), X[:16])
    (told,) = [line for line in messages if line.startswith("INFO") and "second moments" in line]
    assert told.startswith("INFO 3 layers have more inputs than the data has rows; weights are rounded by")
    each = [line for line in messages if line.startswith("DEBUG") and "its second moments count for" in line]
    assert len(each) == 3
    shares = {int(line.split()[-2]) for line in each}
    assert len(shares) == 1 and 0 < shares.pop() < 91


def test_threads_change_nothing(monkeypatch):
    """Not a byte of any file: each input of layers is worked on as if it were alone."""
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(layer_moments, "_THREADS", threads)
        calibrate_and_save(build(attention), X)
        found.append(files())
    assert found[0] == found[1]


STEPS, WIDTH = 6, 12


def recurrent():
    """A recurrent network of six steps, written out, whose steps read the same weights, with other data each."""
    x = tf1.placeholder(tf.float32, [None, STEPS, WIDTH], name="x")
    weights = tf.constant(normal((WIDTH, WIDTH), 1), name="weights")
    state = tf.zeros_like(x[:, 0])
    for step in range(STEPS):
        state = tf.tanh(tf.matmul(state * 0.3 + x[:, step] * (step + 1.0), weights, name=f"step{step}"))
    tf.identity(state, name="out")


SERIES = normal((64, STEPS, WIDTH), 2)


def test_layers_with_the_same_weights_are_rounded_to_the_same_integers_which_stand_once():
    graph_def = build(recurrent)
    quantized = calibrate_and_save(graph_def, SERIES)
    layers = read_layers(GraphView(quantized))
    assert len(layers) == STEPS
    assert len({layer.weights.tobytes() for layer in layers}) == 1
    assert len({node_of(quantized, layer.node.input[1]).input[0] for layer in layers}) == 1
    assert len({float(layer.input_grid.scale) for layer in layers}) > 1  # each has a range of its own
    bytes_of = [tf.make_ndarray(node.attr["value"].tensor) for node in quantized.node if node.op == "Const"]
    assert sum(each.size for each in bytes_of if each.dtype == np.int8) == WIDTH * WIDTH + 1  # and one offset
    expected, actual = (run(each, ["out"], {"x": SERIES})[0] for each in (graph_def, quantized))
    assert signal_to_noise(expected, actual) > 30


def test_rounding_together_is_better_than_to_the_nearest():
    """For each of two layers whose inputs vary along the same lines, but lie elsewhere and are larger or smaller."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 16], name="x")
        weights = tf.constant(normal((16, 8), 6), name="weights")
        one, other = tf.matmul(x, weights, name="one"), tf.matmul(x * 7.0 - 3.0, weights, name="other")
        tf.concat([one, other], 1, name="out")

    data = normal((256, 3), 7) @ normal((3, 16), 5) + np.float32(0.05) * normal((256, 16), 8)
    graph_def = build(make)
    (expected,) = run(graph_def, ["out"], {"x": data})
    errors = {}
    for rounding in ("SECOND_MOMENTS", "NEAREST"):
        quantized = calibrate_and_save(graph_def, data, simplified=f"weight_rounding: {rounding}")
        (actual,) = run(quantized, ["out"], {"x": data})
        errors[rounding] = [signal_to_noise(expected[:, part], actual[:, part]) for part in (slice(8), slice(8, 16))]
    assert all(ours > nearest + 0.3 for ours, nearest in zip(*errors.values(), strict=True)), errors


def test_equal_filters_of_other_groups_are_no_equal_layers():
    """A filter of 2 channels sees all of 2 channels, or each half of 4: there the rows come in two groups."""
    filters = normal((3, 3, 2, 4), 1)

    def make():
        x = tf1.placeholder(tf.float32, [None, 8, 8, 4], name="x")
        one = tf.nn.conv2d(x[..., :2], filters, 1, "SAME", name="one")
        tf.concat([one, tf.nn.conv2d(x, filters, 1, "SAME", name="two")], 3, name="out")

    quantized = calibrate_and_save(build(make), normal((16, 8, 8, 4), 2))
    assert len(read_layers(GraphView(quantized))) == 2
