#!/usr/bin/env bash
# tensorflow-cpu 2.21.0
#
# TensorFlow's converter quantizes a convolution to a file that TensorFlow's interpreter does not load. XNNPACK, which it
# takes by default, refuses a convolution in which a step of the sums (that of the data times that of the weights) is
# many steps of the output: 1267 below. That is so where weights cancel each other, as of two channels that are nearly
# the same.
# The kernels that are built in load the file.
#
# Seen:
#   channels differ by 0.001: a step of the sums is 1 of the output
#     by default: loads; without XNNPACK: loads
#   channels differ by 1e-06: a step of the sums is 1267 of the output
#     by default: failed to create XNNPACK runtime; without XNNPACK: loads
# Exits with 1 if that changes.
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
KERNELS = tf.lite.experimental.OpResolverType


def converted(difference):
    """Returns a file of a convolution that subtracts one channel from another, which differ by so much."""
    generator = np.random.default_rng(0)
    first = generator.uniform(0, 1, (8, 1, 4, 4, 1))
    images = np.concatenate([first, first + generator.normal(size=first.shape) * difference], axis=4).astype(np.float32)
    with tf.Graph().as_default():
        x = tf1.placeholder(tf.float32, [1, 4, 4, 2], name="x")
        y = tf.nn.conv2d(x, np.float32([1, -1]).reshape(1, 1, 2, 1), 1, "VALID", name="y")
        with tf1.Session() as session:
            converter = tf1.lite.TFLiteConverter.from_session(session, [x], [y])
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([image] for image in images)
            return converter.convert()


def loaded(content, kernels):
    """Returns an interpreter, and what it says when it loads a file."""
    interpreter = tf.lite.Interpreter(model_content=content, experimental_op_resolver_type=kernels)
    try:
        interpreter.allocate_tensors()
    except RuntimeError as error:
        return interpreter, str(error).split("Node")[0]
    return interpreter, "loads"


def steps_per_step(interpreter):
    """Returns how many steps of the output a step of the sums is."""
    scales = {tuple(each["shape"]): each["quantization"][0] for each in interpreter.get_tensor_details()
              if each["dtype"] == np.int8}  # fmt: skip
    return scales[1, 4, 4, 2] * scales[1, 1, 1, 2] / scales[1, 4, 4, 1]


said = []
for difference in (1e-3, 1e-6):
    content = converted(difference)
    _, by_default = loaded(content, KERNELS.AUTO)
    interpreter, without = loaded(content, KERNELS.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    print(f"channels differ by {difference:g}: a step of the sums is {steps_per_step(interpreter):.0f} of the output")
    print(f"  by default: {by_default}; without XNNPACK: {without}")
    said.append((by_default, without))
sys.exit(0 if said == [("loads", "loads"), ("failed to create XNNPACK runtime", "loads")] else 1)
PYTHON
