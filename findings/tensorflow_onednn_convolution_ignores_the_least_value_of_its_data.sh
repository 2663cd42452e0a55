#!/usr/bin/env bash
# tensorflow-cpu 2.21.0 on x86-64
#
# QuantizedConv2D takes the range that its bytes stand for: min_input for the byte 0, max_input for 255. TensorFlow's own
# kernel, for weights of type quint8, does so. With oneDNN there is one for weights of type qint8, which takes the byte 0
# for 0 whatever min_input is: no error, and another result. QuantizedMatMulWithBias, which oneDNN alone computes, goes by
# min_a, even where it is told that the data is SCALED.
#
# Bytes [10, 20] times weights [1, 2], one step being 1, which is 50 + 3 * min_input. Seen:
#   min_input                           0   -10  -128
#   right                              50    20  -334
#   QuantizedConv2D, quint8 weights    50    20  -334
#   QuantizedConv2D, qint8 weights     50    50    50
#   QuantizedMatMulWithBias            50    20  -334
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
LOWEST = (0, -10, -128)
DATA, WEIGHTS = np.uint8([10, 20]), np.int8([1, 2])


def value(make, lowest):
    """Returns what an op makes of the data, of 32 bits for a range that it yields."""
    with tf.Graph().as_default():
        data = tf1.placeholder(tf.uint8, [2])
        result, _, highest = make(tf.bitcast(data, tf.quint8), {"min": float(lowest), "max": lowest + 255.0})
        with tf1.Session() as session:
            integers, reach = session.run([tf.bitcast(result, tf.int32), highest], {data: DATA})
    return round(integers.item() * float(np.max(reach)) / 2**31)


def convolution(weights, dtype, least, most):
    def make(data, reach):
        return tf.raw_ops.QuantizedConv2D(
            input=tf.reshape(data, [1, 1, 1, 2]), filter=tf.bitcast(tf.reshape(weights, [1, 1, 2, 1]), dtype),
            min_input=reach["min"], max_input=reach["max"], min_filter=least, max_filter=most,
            strides=[1, 1, 1, 1], padding="VALID",
        )  # fmt: skip

    return make


def product(data, reach):
    return tf.raw_ops.QuantizedMatMulWithBias(
        a=tf.reshape(data, [1, 2]), b=tf.bitcast(WEIGHTS[:, None], tf.qint8), bias=np.zeros(1, np.float32),
        min_a=reach["min"], max_a=reach["max"], min_b=-127.0, max_b=127.0, Toutput=tf.qint32,
        input_quant_mode="SCALED",
    )  # fmt: skip


OPS = {
    "QuantizedConv2D, quint8 weights": convolution(WEIGHTS.astype(np.uint8), tf.quint8, 0.0, 255.0),
    "QuantizedConv2D, qint8 weights": convolution(WEIGHTS, tf.qint8, -127.0, 127.0),
    "QuantizedMatMulWithBias": product,
}
right = [50 + 3 * lowest for lowest in LOWEST]
found = {name: [value(make, lowest) for lowest in LOWEST] for name, make in OPS.items()}
for name, row in {"min_input": LOWEST, "right": right, **found}.items():
    print(f"{name:32}" + "".join(f"{each:6}" for each in row))
sys.exit(0 if list(found.values()) == [right, [50, 50, 50], right] else 1)
PYTHON
