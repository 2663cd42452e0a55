#!/usr/bin/env bash
# tensorflow-cpu 2.21.0 on x86-64 with AVX-512 VNNI
#
# A convolution whose filter has gaps may meet nothing but padding along an axis: with two taps in a row, two pixels apart,
# around the one pixel of a row. All sums are 0 then. Conv2D yields that, and so does QuantizedConv2DWithBias of unsigned
# bytes. Of signed bytes oneDNN's kernel makes something that depends on the weights alone: no error, and another result.
# With a third tap, which meets the pixel, all are right.
#
# Image of 3 x 1, filter of 3 rows, SAME, dilation 2, all weights 1, 4 channels of 3. Seen:
#   taps in a row                    2               3
#   Conv2D                   [0, 0, 0]    [24, 12, 24]
#   with bytes, quint8       [0, 0, 0]    [24, 12, 24]
#   with bytes, qint8    [2048, 1024, 2048]    [24, 12, 24]
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q tensorflow-cpu==2.21.0
export TF_CPP_MIN_LOG_LEVEL=3 TF_ENABLE_ONEDNN_OPTS=1

venv/bin/python - 2>log <<'PYTHON'
import sys

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1
TAPS, CHANNELS, VALUE = (2, 3), 4, 3
NOTHING, RIGHT = [0, 0, 0], [24, 12, 24]


def plain(data, weights):
    return tf.cast(
        tf.nn.conv2d(tf.cast(data, tf.float32), weights.astype(np.float32), 1, "SAME", dilations=2), tf.int32
    )


def quantized(dtype, least, most):
    def make(data, weights):
        result, _, _ = tf.raw_ops.QuantizedConv2DWithBias(
            input=tf.bitcast(data, dtype), filter=tf.bitcast(weights, tf.qint8), bias=[0.0], min_input=least,
            max_input=most, min_filter=-127.0, max_filter=127.0,
            out_type=tf.qint32, strides=[1, 1, 1, 1], dilations=[1, 2, 2, 1], padding="SAME",
        )  # fmt: skip
        return tf.bitcast(result, tf.int32)

    return make


def sums(make, dtype, taps):
    """Returns what a convolution of three pixels, one above the other, yields."""
    with tf.Graph().as_default():
        data = tf1.placeholder(dtype, [1, 3, 1, CHANNELS])
        result = make(data, np.ones((3, taps, CHANNELS, 1), np.int8))
        with tf1.Session() as session:
            return session.run(result, {data: np.full((1, 3, 1, CHANNELS), VALUE)}).ravel().tolist()


OPS = {
    "Conv2D": (plain, tf.uint8),
    "with bytes, quint8": (quantized(tf.quint8, 0.0, 255.0), tf.uint8),
    "with bytes, qint8": (quantized(tf.qint8, -127.0, 127.0), tf.int8),
}
found = {name: [sums(make, dtype, taps) for taps in TAPS] for name, (make, dtype) in OPS.items()}
for name, row in {"taps in a row": TAPS, **found}.items():
    print(f"{name:20}" + "".join(f"{each!s:>28}" for each in row))
sys.exit(0 if list(found.values()) == [[NOTHING, RIGHT], [NOTHING, RIGHT], [[2048, 1024, 2048], RIGHT]] else 1)
PYTHON
