"""The bundled images are what data/README.md says, and the sample reads them."""

from collections import Counter

import tensorflow as tf
from conftest import ROOT
from test_images_to_tfrecords import sample

from amct_tensorflow.data import find_files, scan_records

FOLDER = ROOT / "data" / "fashion_mnist"


def test_bundled_images():
    files = find_files(FOLDER)
    assert sum((FOLDER / file).stat().st_size for file in files) < 2e6
    dataset = scan_records(files, sample.FEATURES)
    assert dataset.num_records == 2000 and dataset.largest[sample.LABEL_KEY] == 9
    labels = Counter()
    for images, batch in sample.MobileNetV2Evaluator(dataset, 500).batches(48, 48):
        labels.update(batch.numpy().tolist())
        assert images.shape == (500, 48, 48, 3)
        # Gray: the three channels are the same.
        assert bool(tf.reduce_all(images[..., 0] == images[..., 2]))
        assert -1 <= float(tf.reduce_min(images)) < -0.9 and 0.5 < float(tf.reduce_max(images)) <= 1
    assert labels == dict.fromkeys(range(10), 200)
