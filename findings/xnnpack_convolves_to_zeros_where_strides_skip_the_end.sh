#!/usr/bin/env bash
# tensorflow-cpu 2.21.0
#
# TensorFlow Lite's interpreter computes a convolution wrongly whose stride is longer than its filter, if it pads "SAME"
# and the last stride skips the end of an axis: all zeros come out. XNNPACK, which it takes by default, does so, of
# plain and of depthwise convolutions. The kernels that are built in, and TensorFlow, read the data. Where the filter
# reaches the end, and where it is 1 x 1, XNNPACK is right, too.
#
# Seen (a filter of ones; sums of the first column):
#   length 10, filter 2, stride 3: TensorFlow [22.0, 142.0, 262.0, 181.0], built in and XNNPACK the same
#   length 9, filter 2, stride 3: TensorFlow [20.0, 128.0, 236.0], built in the same, XNNPACK [0.0, 0.0, 0.0]
#   length 9, filter 2, stride 3, depthwise: the same as without
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

KERNELS = tf.lite.experimental.OpResolverType


def run(content, image, kernels):
    """Returns what a file makes of an image with some kernels."""
    interpreter = tf.lite.Interpreter(model_content=content, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def first_columns(length, size, stride, depthwise):
    """Returns the first column of the sums in TensorFlow, with the kernels built in, and with XNNPACK."""
    ones = np.ones((size, size, 1, 1), np.float32)
    image = np.arange(length * length, dtype=np.float32).reshape(1, length, length, 1)

    @tf.function(input_signature=[tf.TensorSpec(image.shape)])
    def convolve(x):
        if depthwise:
            return tf.nn.depthwise_conv2d(x, ones, [1, stride, stride, 1], "SAME")
        return tf.nn.conv2d(x, ones, stride, "SAME")

    content = tf.lite.TFLiteConverter.from_concrete_functions([convolve.get_concrete_function()]).convert()
    found = [convolve(image).numpy()]
    found += [run(content, image, each) for each in (KERNELS.BUILTIN_WITHOUT_DEFAULT_DELEGATES, KERNELS.AUTO)]
    return [each[0, :, 0, 0].tolist() for each in found]


seen = []
for length, depthwise in ((10, False), (9, False), (9, True)):
    plain, built_in, xnnpack = first_columns(length, 2, 3, depthwise)
    kind = ", depthwise" if depthwise else ""
    print(f"length {length}, filter 2, stride 3{kind}: TensorFlow {plain}, built in {built_in}, XNNPACK {xnnpack}")
    seen.append((plain == built_in, plain == xnnpack, any(xnnpack)))
sys.exit(0 if seen == [(True, True, True), (True, False, False), (True, False, False)] else 1)
PYTHON
