#!/usr/bin/env bash
# onnxruntime 1.32.0, openvino 2026.4.1 and tensorflow-cpu 2.21.0 on x86-64
#
# On a processor without VNNI (AVX-512 VNNI, AVX-VNNI), ONNX Runtime and OpenVINO compute a product of uint8 and int8 by
# an instruction that adds two products in 16 bits, where they saturate: 2 * 255 * 127 becomes 32,767. The result of a
# model depends on the processor, by up to half of its value; nothing says so. ONNX Runtime is exact with the session
# option session.x64quantprecision=1. TensorFlow Lite is exact on both kinds.
#
# Seen, for sums of 64 products 255 * 127, with VNNI and without:
#   exact 2072640; if pairs saturate 1048544
#   ONNX Runtime                               2072640  1048544
#   ONNX Runtime, session.x64quantprecision=1  2072640  2072640
#   OpenVINO                                   2072640  1048544
#   TensorFlow Lite                            2072640  2072640
# Exits with 1 if that is not so for the kind of this processor.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q onnxruntime==1.32.0 onnx==1.22.0 openvino==2026.4.1 tensorflow-cpu==2.21.0
export TF_CPP_MIN_LOG_LEVEL=3

venv/bin/python - 2>log <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper

tf1 = tf.compat.v1
PAIRS, OUTPUTS = 32, 16
EXACT, SATURATED = PAIRS * 2 * 255 * 127, PAIRS * 32767
DATA = np.full((4, 2 * PAIRS), 255, np.float32)


def onnx_file():
    """Returns a product of a matrix of uint8, all 255, with one of int8, all 127; all steps are 1."""
    constants = {"one": np.float32(1), "zero_u": np.uint8(0), "zero_s": np.int8(0),
                 "w": np.full((2 * PAIRS, OUTPUTS), 127, np.int8)}  # fmt: skip
    nodes = [("QuantizeLinear", ["x", "one", "zero_u"], ["q"]), ("DequantizeLinear", ["q", "one", "zero_u"], ["d"]),
             ("DequantizeLinear", ["w", "one", "zero_s"], ["v"]), ("MatMul", ["d", "v"], ["y"])]  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node(*node) for node in nodes], "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, DATA.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [len(DATA), OUTPUTS])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def in_onnxruntime(**settings):
    options = onnxruntime.SessionOptions()
    for key, value in settings.items():
        options.add_session_config_entry(key.replace("_", "."), value)
    return onnxruntime.InferenceSession(onnx_file(), options).run(None, {"x": DATA})[0]


def in_openvino():
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(onnx_file(), b""), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled({"x": DATA})[0]


def in_tflite():
    """The same, as its converter quantizes it; it yields steps of 8 bits."""
    with tf.Graph().as_default():
        x = tf1.placeholder(tf.float32, DATA.shape, name="x")
        y = tf.matmul(x, np.full((2 * PAIRS, OUTPUTS), 127, np.float32), name="y")
        with tf1.Session() as session:
            converter = tf1.lite.TFLiteConverter.from_session(session, [x], [y])
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: iter([[DATA], [DATA * 0]])
            interpreter = tf.lite.Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], DATA)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


found = {
    "ONNX Runtime": in_onnxruntime(),
    "ONNX Runtime, session.x64quantprecision=1": in_onnxruntime(session_x64quantprecision="1"),
    "OpenVINO": in_openvino(),
    "TensorFlow Lite": in_tflite(),
}
flags = Path("/proc/cpuinfo").read_text().split()
vnni = "avx512_vnni" in flags or "avx_vnni" in flags
print(f"exact {EXACT}; if pairs saturate {SATURATED}; this processor has {'' if vnni else 'no '}VNNI")
for name, result in found.items():
    print(f"  {name}: {result.min():.0f} to {result.max():.0f}")
as_expected = EXACT if vnni else SATURATED
expected = dict(zip(found, (as_expected, EXACT, as_expected, EXACT), strict=True))
sys.exit(0 if all(np.allclose(found[name], value, rtol=0.005) for name, value in expected.items()) else 1)
PYTHON
