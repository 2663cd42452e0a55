#!/bin/bash
# OpenVINO 2026.4.1 (CPU plugin, read from ONNX): a pair of QuantizeLinear and DequantizeLinear rounds halves by the
# parity of the zero point.
#
# The ONNX specification of QuantizeLinear: y = saturate(round(x / y_scale) + y_zero_point), halves rounded to the nearest
# even number, before the zero point is added. ONNX Runtime 1.32.0 does so. OpenVINO makes a FakeQuantize of the pair,
# which rounds x / y_scale + y_zero_point to the nearest even number: for an odd zero point every half goes the other way.
# x / y_scale here are the halves -2.5, -1.5, ..., 2.5 and are exact in float32, as the scale is 1.
#
# Output seen (x86-64, the same with and without VNNI):
#   zero point 128: ONNX Runtime [-2. -2.  0.  0.  2.  2.], OpenVINO [-2. -2.  0.  0.  2.  2.]
#   zero point 127: ONNX Runtime [-2. -2.  0.  0.  2.  2.], OpenVINO [-3. -1. -1.  1.  1.  3.]
# Exits with 1 if OpenVINO rounds halves to even for both zero points, or otherwise than above.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    openvino==2026.4.1 onnxruntime==1.32.0 onnx==1.22.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

x = np.arange(-2.5, 3, dtype=np.float32)


def model(zero_point):
    constants = [
        numpy_helper.from_array(np.array(1, np.float32), "scale"),
        numpy_helper.from_array(np.array(zero_point, np.uint8), "zero_point"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero_point"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero_point"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [x.size]) for name in "xy"]
    graph = helper.make_graph(nodes, "halves", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


found = {}
for zero_point in (128, 127):
    content = model(zero_point)
    reference = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(content, b""), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found[zero_point] = np.array(compiled(x)[0])
    print(f"zero point {zero_point}: ONNX Runtime {reference}, OpenVINO {found[zero_point]}")
    assert np.array_equal(reference, np.rint(x))
as_seen = np.array_equal(found[128], np.rint(x)) and np.array_equal(found[127], [-3, -1, -1, 1, 1, 3])
sys.exit(not as_seen)
PYTHON
