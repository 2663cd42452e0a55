"""The sample on a network of a few layers, which learns the bundled images in a moment: for tests of whole programs."""

from functools import cache

import numpy as np
import tensorflow as tf
from conftest import ROOT, load_script
from graphs import batch_norm, build, normal, run, tf1

from amct_tensorflow.data import find_files, scan_records

SAMPLE = ROOT / "src" / "mobilenet_v2_accuracy_based_auto_calibration.py"
DATASET = ROOT / "data" / "fashion_mnist"
SYMMETRIC = ROOT / "model" / "symmetric_per_tensor.cfg"
IMAGES = 200  # on which it learns, and is evaluated
SIZE = 16
LAYERS = 7


def small_sample(folder, *more, images=IMAGES):
    """Writes the network into a folder; returns the arguments of a run on it, quantized coarsely.

    Its accuracy drops from 92 % to 86 % if all layers are quantized.
    """
    model = folder / "small.pb"
    model.write_bytes(small_network())
    return ["--dataset", str(DATASET), "--num_images", str(images), "--model", str(model),
            "--config_defination", str(SYMMETRIC), *more]  # fmt: skip


@cache
def small_network():
    """Returns the network: fixed convolutions, and classes that are fitted to what they make of the images."""
    sample = load_script(SAMPLE)
    dataset = scan_records(find_files(DATASET), sample.FEATURES, IMAGES)
    images, labels = next(iter(sample.MobileNetV2Evaluator(dataset, IMAGES).batches(SIZE, SIZE)))
    (features,) = run(build(_features), ["features"], {"input": images.numpy()})
    features = np.c_[features.astype(np.float64), np.ones(IMAGES)]
    wanted = 8.0 * np.eye(10)[labels.numpy()]
    fitted = np.linalg.solve(features.T @ features + 0.1 * np.eye(features.shape[1]), features.T @ wanted)

    def make():
        pooled = _features()
        logits = tf.matmul(pooled, tf.constant(fitted[:-1], tf.float32), name="classes")
        logits = tf.nn.bias_add(logits, tf.constant(fitted[-1], tf.float32))
        tf.reshape(tf.nn.softmax(logits), [-1, 10], name=sample.OUTPUT)

    return build(make).SerializeToString(deterministic=True)


def _features():
    y = tf1.placeholder(tf.float32, [None, SIZE, SIZE, 3], name="input")
    for number, (channels, stride) in enumerate([(12, 2), (24, 2), (48, 1)]):
        if number:
            before = int(y.shape[-1])
            y = tf.nn.depthwise_conv2d(y, normal((3, 3, before, 1), number, 0.4), [1] * 4, "SAME", name=f"dw{number}")
            y = tf.nn.relu6(batch_norm(y, before, f"dw{number}/norm", number))
        window = 1 if number else 3
        weights = normal((window, window, int(y.shape[-1]), channels), 10 + number, 0.4)
        y = tf.nn.conv2d(y, weights, stride, "SAME", name=f"conv{number}")
        y = tf.nn.relu6(batch_norm(y, channels, f"conv{number}/norm"))
    parts = tf.nn.avg_pool2d(y, 2, 2, "VALID", name="pool")
    return tf.reshape(parts, [-1, 4 * 48], name="features")
