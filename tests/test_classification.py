"""The evaluator that classifiers share, on graphs that TensorFlow does not run by itself on a CPU."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal, tf1

from amct_tensorflow.classification import ClassifierEvaluator
from amct_tensorflow.graph.model_file import import_graph

IMAGES = normal((6, 8, 8, 3), 1)


@dataclass
class Records:
    """Stands for scanned records."""

    labels: np.ndarray
    num_records: int = len(IMAGES)
    largest: dict = field(default_factory=dict)
    counts: dict = field(default_factory=dict)

    def batches(self, _load, batch_size):
        return tf.data.Dataset.from_tensor_slices((IMAGES, self.labels)).batch(batch_size)


def channels_first():
    x = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
    y = tf.nn.conv2d(tf.transpose(x, [0, 3, 1, 2]), normal((3, 3, 3, 4), 2), 1, "SAME", "NCHW")
    tf.matmul(tf.reduce_mean(tf.nn.relu(y), [2, 3]), normal((4, 5), 3), name="out")


def channels_last():
    x = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
    y = tf.nn.conv2d(x, normal((3, 3, 3, 4), 2), 1, "SAME")
    tf.matmul(tf.reduce_mean(tf.nn.relu(y), [1, 2]), normal((4, 5), 3), name="out")


@pytest.mark.parametrize("make", [channels_first, channels_last])
@pytest.mark.parametrize("device", ["", "/device:GPU:0"])
def test_any_data_format_and_device_is_evaluated(make, device):
    with tf1.Session(graph=import_graph(build(channels_last), "test")) as session:
        labels = session.run("out:0", {"x:0": IMAGES}).argmax(1)
    labels[0] = (labels[0] + 1) % 5
    graph_def = build(make)
    for node in graph_def.node:
        node.device = device
    evaluator = ClassifierEvaluator(Records(labels), batch_size=4)
    assert evaluator.evaluate(import_graph(graph_def, "test"), ["out"]) == pytest.approx(100 * 5 / 6)
    assert evaluator.image_results() == [0.0] + [100.0] * 5
