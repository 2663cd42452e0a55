"""The programs in the guide, one per kind of network, each on a small network made here."""

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from documents import ROOT, codes
from graphs import build, normal, save, tf1

LONGEST = 60  # lines


def program(page):
    (code,) = codes((ROOT / "docs" / "guide" / f"{page}.md").read_text(encoding="utf-8"))
    assert len(code.splitlines()) <= LONGEST
    return code


def conv(x, out, seed, stride=1):
    weights = normal((3, 3, x.shape[-1], out), seed, 0.4)
    return tf.nn.conv2d(x, weights, stride, "SAME") + normal((out,), seed + 50, 0.1)


def detector():
    """Four cells with a box each, scores from 0 to 1, and two classes."""
    images = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="images")
    cells = tf.reshape(conv(tf.nn.relu(conv(images, 8, 1, 2)), 6, 2, 2), [-1, 4, 6])
    corner = tf.constant(np.float32([[0, 0], [0, 4], [4, 0], [4, 4]])) + tf.tanh(cells[..., :2])
    boxes = tf.concat([corner, corner + 3 + tf.sigmoid(cells[..., 2:4])], 2)
    tf.concat([boxes, tf.sigmoid(cells[..., 4:5]), tf.cast(cells[..., 5:] > 0, tf.float32)], 2, name="detections")


def pose():
    """Two points, where a heat map is warmest on average, and a mask."""
    images = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="images")
    features = tf.nn.relu(conv(images, 8, 1))
    heat = tf.reshape(tf.nn.softmax(tf.reshape(conv(features, 2, 2), [-1, 64, 2]), 1), [-1, 8, 8, 2])
    places = tf.range(8.0)
    x, y = tf.einsum("bhwc,w->bc", heat, places), tf.einsum("bhwc,h->bc", heat, places)
    tf.stack([x, y, tf.ones_like(x)], 2, name="points")
    tf.identity(tf.sigmoid(conv(features, 1, 3))[..., 0], name="mask")


def listener():
    sound = tf1.placeholder(tf.float32, [None, 64, 1], name="sound")
    features = tf.nn.relu(tf.nn.conv1d(sound, normal((9, 1, 8), 1, 0.4), 4, "SAME"))
    tf.sigmoid(tf.nn.conv1d(features, normal((3, 8, 5), 2, 0.4), 1, "SAME"), name="heard")


def embedding():
    ids = tf1.placeholder(tf.int32, [None, 6], name="ids")
    mask = tf1.placeholder(tf.int32, [None, 6], name="mask")
    words = tf.gather(tf.constant(normal((512, 32), 1)), ids) * tf.cast(mask, tf.float32)[..., tf.newaxis]
    mean = tf.reduce_sum(words, 1) / tf.cast(tf.reduce_sum(mask, 1, keepdims=True), tf.float32)
    hidden = tf.nn.relu(tf.matmul(mean, normal((32, 24), 2, 0.3)))
    tf.math.l2_normalize(tf.matmul(hidden, normal((24, 16), 3, 0.3)), 1, name="embedding")


def sentences():
    ids = np.random.default_rng(5).integers(0, 512, (96, 6)).astype(np.int32)
    mask = np.ones((96, 6), np.int32)
    mask[::3, 4:] = 0
    np.savez("sentences.npz", ids=ids, mask=mask)


def sounds():
    loudness = np.geomspace(0.01, 3, 72)[:, None, None]
    np.save("sounds.npy", (normal((72, 64, 1), 6) * loudness).astype(np.float32))
    np.save("truth.npy", normal((72, 16, 5), 7) > 0.5)


PAGES = {
    "detection": ("detector.pb", detector, lambda: np.save("images.npy", normal((56, 8, 8, 3), 4)), 95),
    "pose": ("pose.pb", pose, lambda: np.save("images.npy", normal((56, 8, 8, 3), 4)), 95),
    "audio": ("notes.pb", listener, sounds, None),
    "text": ("embedding.pb", embedding, sentences, 90),
}


@pytest.mark.parametrize("page", PAGES)
def test_a_program_quantizes_and_judges_its_kind(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file, make, data, least = PAGES[page]
    save(build(make), Path(file))
    data()
    scope = {}
    exec(program(page), scope)
    result = scope["result"]
    assert result.target_met and Path("results/net_quantized.pb").exists()
    assert any(result.roll_back_config.values())
    printed = re.findall(r"[\d.]+", capsys.readouterr().out)
    assert f"{result.saved_metric:.1f}" in printed
    if least is not None:
        assert result.original_metric == 100 and result.saved_metric >= least
