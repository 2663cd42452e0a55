#!/bin/bash
# TensorFlow 2.21.0: FusedPadConv2D computes the first image of a batch for all of them.
#
#   FusedPadConv2D(x, paddings, filter, mode=REFLECT)      against      Conv2D(MirrorPad(x, paddings, REFLECT), filter)
#
# The op is documented as the padding and the convolution in one. On a CPU each image of the result is that of the first
# image. Batches of one image are right.
#
# Output seen (x86-64):
#   greatest difference per image, batch of 3: [0.0, 23.4, 20.4]; one by one: [0.0, 0.0, 0.0]
#   greatest difference from the result of the first image: [0.0, 0.0, 0.0]
# Exits with 1 if the images of a batch differ as they should.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow==2.21.0 numpy==2.4.6
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys

import numpy as np
import tensorflow as tf

generator = np.random.RandomState(0)
images = generator.randn(3, 6, 6, 4).astype(np.float32)
filters = np.random.RandomState(1).randn(3, 3, 4, 8).astype(np.float32)
paddings = [[0, 0], [2, 1], [1, 0], [0, 0]]


def fused(x):
    return tf.raw_ops.FusedPadConv2D(
        input=x, paddings=paddings, filter=filters, mode="REFLECT", strides=[1, 1, 1, 1], padding="VALID"
    ).numpy()


def differences(first, second):
    return [round(float(np.abs(a - b).max()), 1) for a, b in zip(first, second)]


separate = tf.nn.conv2d(tf.pad(images, paddings, "REFLECT"), filters, 1, "VALID").numpy()
together = fused(images)
one_by_one = np.concatenate([fused(images[k : k + 1]) for k in range(3)])
print(f"greatest difference per image, batch of 3: {differences(together, separate)}; one by one: "
      f"{differences(one_by_one, separate)}")
print("greatest difference from the result of the first image:", differences(together, together[[0, 0, 0]]))
sys.exit(0 if np.array_equal(together, together[[0, 0, 0]]) and not np.allclose(one_by_one, together) else 1)
PYTHON
