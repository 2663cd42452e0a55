"""Moments of layers: shared where rows are the same, collected in bounded memory, and trusted as far as rows allow."""

from pathlib import Path

import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, tf1

from amct_tensorflow.quantize.algorithms.second_moments import SecondMoments
from amct_tensorflow.quantize.calibration import layer_moments


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
    assert shapes == [QKV, LAST] * 4
    shared = files()
    monkeypatch.setattr(layer_moments._Layer, "rows_key", property(lambda self: (self.name,)))
    calibrate_and_save(build(attention), X)
    assert shapes[8:] == [QKV, QKV, QKV, LAST] * 4
    assert files() == shared


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
