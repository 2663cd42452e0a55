"""TFRecord files of small images, for tests that read them."""

import numpy as np
import tensorflow as tf

LEVELS = 8  # grey levels, and so classes, of the images that the level model tells apart


def pixels(height, width, channels=3, seed=0):
    """Smooth colours with some noise, so that JPEG keeps and blurs something."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [128 + 90 * np.sin(rows / (3 + k) + seed) * np.cos(columns / (5 - k)) for k in range(channels)]
    noise = np.random.default_rng(seed).normal(0, 12, (height, width, channels))
    return np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)


def png(image):
    return tf.io.encode_png(image).numpy()


def jpeg(image, **options):
    kind = "grayscale" if image.shape[2] == 1 else "rgb"
    return tf.io.encode_jpeg(image, format=kind, quality=90, **options).numpy()


def level_png(level, size=(9, 9)):
    return png(np.full((*size, 3), level * 255 // (LEVELS - 1), np.uint8))


def example(encoded=None, label=None, **others):
    """A serialized record; ``others`` are further features, as tf.train.Feature."""
    feature = dict(others)
    if encoded is not None:
        feature["image/encoded"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))
    if label is not None:
        feature["image/class/label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def write(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def write_labels(folder, **files):
    """Writes files of records whose label is their identity; returns the file names."""
    image = level_png(0)
    return [write(folder / name, [example(image, label) for label in labels]) for name, labels in files.items()]


def assert_names(error, *parts):
    """The message is one line that holds these."""
    for part in parts:
        assert str(part) in str(error.value)
    assert "\n" not in str(error.value)
