#!/usr/bin/env bash
# tensorflow-cpu 2.21.0
#
# TensorFlow Lite's converter takes any Conv2D between SpaceToBatchND and BatchToSpaceND for a dilated convolution. It
# drops both even where a BiasAdd stands in front of BatchToSpaceND, with which it then fails; with a bias behind it, or
# with an Add in place of the BiasAdd, the same convolution converts. It also does so where no dilation computes the
# same: with strides of 2, or with crops larger than the pads.
#
# Seen:
#   BiasAdd behind BatchToSpaceND: converted, difference below 1e-4
#   BiasAdd before BatchToSpaceND: type of return operand 0 ('tensor<4x5x5x4xf32>') doesn't match function result type
#   Add before BatchToSpaceND: converted, difference below 1e-4
#   strides of 2, no bias: 'tfl.conv_2d' op inferred type(s) ... are incompatible with return type(s) of operation
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q tensorflow-cpu==2.21.0
export TF_CPP_MIN_LOG_LEVEL=3

venv/bin/python - 2>log <<'PYTHON'
import sys

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1
generator = np.random.default_rng(0)
FILTERS = generator.normal(size=(3, 3, 3, 4)).astype(np.float32)
BIAS = generator.normal(size=4).astype(np.float32)
IMAGE = generator.normal(size=(1, 10, 10, 3)).astype(np.float32)


def phases(x, between, strides=1):
    parts = tf.space_to_batch(x, [2, 2], [[2, 2], [2, 2]])
    return tf.batch_to_space(between(tf.nn.conv2d(parts, FILTERS, strides, "VALID")), [2, 2], [[0, 0], [0, 0]])


def said(model):
    """Converts a model and compares the results; returns what the converter said if it failed."""
    with tf.Graph().as_default():
        x = tf1.placeholder(tf.float32, IMAGE.shape)
        y = model(x)
        with tf1.Session() as session:
            expected = session.run(y, {x: IMAGE})
            try:
                content = tf1.lite.TFLiteConverter.from_session(session, [x], [y]).convert()
            except Exception as error:
                return str(error).split("\n")[0]
    interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], IMAGE)
    interpreter.invoke()
    difference = np.abs(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]) - expected).max()
    return f"converted, difference {'below' if difference < 1e-4 else 'above'} 1e-4"


found = {
    "BiasAdd behind BatchToSpaceND": said(lambda x: tf.nn.bias_add(phases(x, tf.identity), BIAS)),
    "BiasAdd before BatchToSpaceND": said(lambda x: phases(x, lambda y: tf.nn.bias_add(y, BIAS))),
    "Add before BatchToSpaceND": said(lambda x: phases(x, lambda y: y + BIAS)),
    "strides of 2, no bias": said(lambda x: phases(x, tf.identity, 2)),
}
for name, text in found.items():
    print(f"{name}: {text}")
behind, before, added, strided = found.values()
good = "converted, difference below 1e-4"
as_seen = behind == added == good and "doesn't match function result type" in before and "inferred type" in strided
sys.exit(0 if as_seen else 1)
PYTHON
