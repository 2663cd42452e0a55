#!/usr/bin/env bash
# tensorflow-cpu 2.21.0 on x86-64 with AVX-512 VNNI
#
# A convolution may meet padding left and right of its data, and none above or below: a filter of 2 x 7 does with strides
# of 2 and an even height. Of one channel of signed bytes oneDNN's kernel (brg_conv_fwd) makes something of that padding
# which depends on the weights alone: no error, and another result. Of two channels it is right, as is that of unsigned
# bytes.
#
# Image of 2 x 12, filter of 2 x 7, SAME, strides of 2, all weights 1, all data 1. Seen, less what Conv2D yields:
#   channels                                    1                         2
#   with bytes, quint8         [0, 0, 0, 0, 0, 0]        [0, 0, 0, 0, 0, 0]
#   with bytes, qint8    [512, 0, 0, 0, 256, 768]        [0, 0, 0, 0, 0, 0]
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
SHAPE, STRIDES = (2, 12), [1, 2, 2, 1]
RIGHT, WRONG = [0] * 6, [512, 0, 0, 0, 256, 768]


def plain(data, weights):
    return tf.cast(tf.nn.conv2d(tf.cast(data, tf.float32), weights.astype(np.float32), STRIDES, "SAME"), tf.int32)


def quantized(data, weights, dtype, least, most):
    result, _, _ = tf.raw_ops.QuantizedConv2DWithBias(
        input=tf.bitcast(data, dtype), filter=tf.bitcast(weights, tf.qint8), bias=[0.0], min_input=least,
        max_input=most, min_filter=-127.0, max_filter=127.0, out_type=tf.qint32, strides=STRIDES, padding="SAME",
    )  # fmt: skip
    return tf.bitcast(result, tf.int32)


def excess(channels, plain_type, *of_bytes):
    """Returns by how much the sums of a convolution of bytes are too large."""
    with tf.Graph().as_default():
        data = tf1.placeholder(plain_type, [1, *SHAPE, channels])
        weights = np.ones((2, 7, channels, 1), np.int8)
        results = plain(data, weights), quantized(data, weights, *of_bytes)
        with tf1.Session() as session:
            right, found = session.run(results, {data: np.ones((1, *SHAPE, channels))})
    return (found - right).ravel().tolist()


KINDS = {"quint8": (tf.uint8, tf.quint8, 0.0, 255.0), "qint8": (tf.int8, tf.qint8, -127.0, 127.0)}
found = {name: [excess(channels, *kind) for channels in (1, 2)] for name, kind in KINDS.items()}
for name, row in found.items():
    print(f"with bytes, {name:8}" + "".join(f"{each!s:>26}" for each in row))
sys.exit(0 if found == {"quint8": [RIGHT, RIGHT], "qint8": [WRONG, RIGHT]} else 1)
PYTHON
