"""Writes the bundled data: 2,000 of the 10,000 test images of Fashion-MNIST, 200 of each class, as TFRecords.

    python data/make_fashion_mnist.py --dataset DIR

DIR holds the gzipped IDX files of Fashion-MNIST (Debian: package dataset-fashion-mnist, in
/usr/share/datasets/fashion-mnist). Of each class the first 200 images are taken, in turn with the other classes.
"""

import argparse
import gzip
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from images_to_tfrecords import serialize_example

FOLDER = Path(__file__).resolve().parent / "fashion_mnist"
CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
IMAGES_PER_CLASS = 200
SHARDS = 4


def read_idx(folder: Path, name: str) -> np.ndarray:
    """Reads the images ([n, 28, 28]) or labels ([n]) of an IDX file."""
    data = gzip.decompress((folder / name).read_bytes())
    shape = [int.from_bytes(data[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def choose(labels: np.ndarray) -> list[int]:
    """Returns the indices of the images to take: the first of every class, the second of every class, and so on."""
    by_class = [np.flatnonzero(labels == label)[:IMAGES_PER_CLASS] for label in range(len(CLASSES))]
    return np.stack(by_class, axis=1).ravel().tolist()


def make_example(image: np.ndarray, label: int, index: int) -> bytes:
    """Returns the serialized example of a grayscale image, stored as PNG."""
    height, width = image.shape
    return serialize_example(
        {
            "image/encoded": tf.io.encode_png(image[..., np.newaxis], compression=9).numpy(),
            "image/format": b"PNG",
            "image/height": height,
            "image/width": width,
            "image/channels": 1,
            "image/filename": f"t10k-{index:05}.png".encode(),
            "image/class/label": label,
            "image/class/text": CLASSES[label].encode(),
        }
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the files."""
    parser = argparse.ArgumentParser(description="Write the bundled Fashion-MNIST images.")
    parser.add_argument("--dataset", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    arguments = parser.parse_args(argv)
    images = read_idx(arguments.dataset, "t10k-images-idx3-ubyte.gz")
    labels = read_idx(arguments.dataset, "t10k-labels-idx1-ubyte.gz")
    chosen = choose(labels)
    FOLDER.mkdir(exist_ok=True)
    for shard in range(SHARDS):
        file = FOLDER / f"validation-{shard:05}-of-{SHARDS:05}"
        with tf.io.TFRecordWriter(str(file)) as writer:
            for index in chosen[shard::SHARDS]:
                writer.write(make_example(images[index], int(labels[index]), index))
    size = sum(file.stat().st_size for file in FOLDER.iterdir())
    print(f"{len(chosen)} images, {size / 1e6:.2f} MB in {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
