#!/usr/bin/env bash
# tensorflow-cpu 2.21.0
#
# TensorFlow Lite's converter quantizes a division to int8. The interpreter refuses it where a divisor has the code 0, as
# if it were 0; but that code stands for `-zero_point * scale`, in the middle of the range. So a network that converts
# without a word fails on some images, and runs on others.
#
# Seen, for 1 / d with d from 1 to 10 in calibration:
#   scale 0.0392, zero point -128
#   d = 10.00, code 127: 0.10
#   d = 5.06, code 1: 0.20
#   d = 5.02, code 0: tensorflow/lite/kernels/div.cc:242 data[i] != 0 was not true.
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
SAMPLES = [[generator.uniform(0, 1, (1, 8)).astype(np.float32), np.linspace(1, 10, 8, dtype=np.float32)[None]]
           for _ in range(4)]  # fmt: skip

with tf.Graph().as_default():
    x, d = (tf1.placeholder(tf.float32, (1, 8), name=name) for name in "xd")
    y = tf.divide(x, d, name="y")
    with tf1.Session() as session:
        converter = tf1.lite.TFLiteConverter.from_session(session, [x, d], [y])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: iter(SAMPLES)
        content = converter.convert()

interpreter = tf.lite.Interpreter(model_content=content)
interpreter.allocate_tensors()
by_name = {each["name"].removesuffix(":0"): each["index"] for each in interpreter.get_input_details()}
# The converter has written Quantize ops; the scale of the divisor is the larger one.
divisor = max((each for each in interpreter.get_tensor_details() if each["dtype"] == np.int8),
              key=lambda each: each["quantization"][0])  # fmt: skip
scale, zero_point = divisor["quantization"]
print(f"scale {scale:.4f}, zero point {zero_point}")


def said(code):
    """Divides 1 by what a code stands for; returns the result, or what the interpreter says."""
    value = (code - zero_point) * scale
    interpreter.set_tensor(by_name["x"], np.ones((1, 8), np.float32))
    interpreter.set_tensor(by_name["d"], np.full((1, 8), value, np.float32))
    try:
        interpreter.invoke()
    except RuntimeError as error:
        return value, str(error).split("Node")[0]
    return value, f"{interpreter.get_tensor(interpreter.get_output_details()[0]['index']).max():.2f}"


found = {code: said(code) for code in (127, 1, 0)}
for code, (value, text) in found.items():
    print(f"d = {value:.2f}, code {code}: {text}")
refused = {code for code, (value, text) in found.items() if "data[i] != 0 was not true" in text and value > 1}
sys.exit(0 if refused == {0} else 1)
PYTHON
