#!/usr/bin/env bash
# tensorflow-cpu 2.21.0 on x86-64, beside onnxruntime 1.32.0
#
# Which way a quantizer rounds a value in the middle between two levels depends in TensorFlow Lite on the kernel that the
# interpreter takes: XNNPACK and the optimized kernels round halves to even, as ONNX Runtime does; the reference kernel
# (OpResolverType.BUILTIN_REF) rounds them away from 0. One file, with 255 halves for a scale of 1 and a zero point of 0.
#
# Seen, as the share of the halves that is rounded so:
#   TensorFlow Lite, AUTO         to even 1.00, away from 0 0.50
#   TensorFlow Lite, BUILTIN      to even 1.00, away from 0 0.50
#   TensorFlow Lite, BUILTIN_REF  to even 0.50, away from 0 1.00
#   ONNX Runtime                  to even 1.00, away from 0 0.50
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q tensorflow-cpu==2.21.0 onnxruntime==1.32.0 onnx==1.22.0
export TF_CPP_MIN_LOG_LEVEL=3

venv/bin/python - 2>log <<'PYTHON'
import sys

import numpy as np
import onnxruntime
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper

tf1 = tf.compat.v1
HALVES = np.arange(-127.5, 127, dtype=np.float32)
EVEN, AWAY = np.rint(HALVES), np.trunc(HALVES + np.copysign(0.5, HALVES))


def tflite_file():
    """Returns a file that quantizes its input, and yields the integers."""
    with tf.Graph().as_default():
        x = tf1.placeholder(tf.float32, [1, len(HALVES)], name="x")
        y = tf.reshape(x, [len(HALVES), 1], name="y")
        with tf1.Session() as session:
            converter = tf1.lite.TFLiteConverter.from_session(session, [x], [y])
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: iter([[np.linspace(-128, 127, len(HALVES), dtype=np.float32)[None]]])
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_output_type = tf.int8
            return converter.convert()


def in_tflite(content, kernels):
    interpreter = tf.lite.Interpreter(model_content=content, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    (read,), (written,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert written["quantization"] == (1, 0)
    interpreter.set_tensor(read["index"], HALVES[None])
    interpreter.invoke()
    return interpreter.get_tensor(written["index"]).ravel()


def in_onnxruntime():
    constants = [numpy_helper.from_array(np.float32(1), "s"), numpy_helper.from_array(np.int8(0), "z")]
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])], "halves",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [len(HALVES)])],
        [helper.make_tensor_value_info("y", TensorProto.INT8, [len(HALVES)])], constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": HALVES})[0]


content, kernels = tflite_file(), tf.lite.experimental.OpResolverType
found = {f"TensorFlow Lite, {each.name}": in_tflite(content, each)
         for each in (kernels.AUTO, kernels.BUILTIN, kernels.BUILTIN_REF)}  # fmt: skip
found["ONNX Runtime"] = in_onnxruntime()
for name, integers in found.items():
    print(f"{name:29} to even {np.mean(integers == EVEN):.2f}, away from 0 {np.mean(integers == AWAY):.2f}")
reference = found.pop("TensorFlow Lite, BUILTIN_REF")
changed = any((each != EVEN).any() for each in found.values()) or (reference != AWAY).any()
sys.exit(int(changed))
PYTHON
