#!/usr/bin/env bash
# OpenVINO 2026.4.1 (CPU plugin), beside ONNX Runtime 1.32.0, on one ONNX model of opset 17.
#
#   x -> QuantizeLinear -> DequantizeLinear -> Conv (int8 weights) -> y        outputs: y, Sigmoid(y * 0.5)
#
# Behaviour: a convolution of quantized data, without a bias and for any number of images, whose result two nodes read,
# one of which multiplies it by a constant. The rewrites for low precision join that constant and the scales for one
# reader; what the other reads is scaled a second time, so that "y" is thousands of times too small. With a bias, even
# one of 1e-30, for a fixed number of images, or with LP_TRANSFORMS_MODE=NO, it is right. A product of two quantized
# inputs (MatMul) does the same once convert_model has made FakeQuantizes of its quantizers.
#
# Seen (x86-64, the same with and without VNNI), y by OpenVINO divided by y by ONNX Runtime:
#   Conv without a bias        0.0002
#   Conv, bias 1e-30           1.0000
#   Conv, rewrites off         1.0000
#   Conv, images fixed         1.0000
#   MatMul, as read            1.0000
#   MatMul, converted          0.0008
#   MatMul + 1e-30, converted  1.0000
# Exits with 1 if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  openvino==2026.4.1 onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
CI=true "$folder/venv/bin/python" - "$folder/model.onnx" <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

SHAPE = [4, 2, 5, 5]
generator = np.random.default_rng(0)
data = {name: generator.normal(size=SHAPE).astype(np.float32) for name in ("x", "z")}
core = openvino.Core()


def quantize(name):
    return [
        helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_bytes"]),
        helper.make_node("DequantizeLinear", [f"{name}_bytes", "scale", "zero"], [f"{name}_values"]),
    ]


def model(op, bias, length):
    constants = {
        "scale": np.float32(0.04),
        "zero": np.uint8(128),
        "weights": generator.integers(-127, 128, (2, 2, 1, 1)).astype(np.int8),
        "weight_scales": np.full(2, 0.01, np.float32),
        "weight_zeros": np.zeros(2, np.int8),
        "half": np.float32(0.5),
        "bias": np.full((1, 2, 1, 1), 1e-30, np.float32),
    }
    if op == "Conv":
        inputs, nodes = ["x"], quantize("x")
        nodes.append(
            helper.make_node("DequantizeLinear", ["weights", "weight_scales", "weight_zeros"], ["filters"], axis=0)
        )
        nodes.append(helper.make_node("Conv", ["x_values", "filters"], ["y"]))
    else:
        inputs, nodes = ["x", "z"], [*quantize("x"), *quantize("z")]
        nodes.append(helper.make_node("MatMul", ["x_values", "z_values"], ["y"]))
    if bias:
        nodes[-1].output[0] = "sums"
        nodes.append(helper.make_node("Add", ["sums", "bias"], ["y"]))
    nodes.append(helper.make_node("Mul", ["y", "half"], ["half_of_y"]))
    nodes.append(helper.make_node("Sigmoid", ["half_of_y"], ["share"]))
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [length, *SHAPE[1:]]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "share")],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in read],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), inputs


def ratio(op, bias=False, converted=False, settings=None, length=None):
    """Returns y by OpenVINO divided by y by ONNX Runtime."""
    proto, inputs = model(op, bias, length)
    onnx.save(proto, sys.argv[1])
    feeds = {name: data[name] for name in inputs}
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    expected = session.run(["y"], feeds)[0]
    read = openvino.convert_model(sys.argv[1]) if converted else core.read_model(sys.argv[1])
    settings = {"INFERENCE_PRECISION_HINT": "f32", **(settings or {})}
    found = core.compile_model(read, "CPU", settings)(feeds)[0]
    return float(np.sum(found * expected) / np.sum(expected**2))


seen = {
    "Conv without a bias": (ratio("Conv"), False),
    "Conv, bias 1e-30": (ratio("Conv", bias=True), True),
    "Conv, rewrites off": (ratio("Conv", settings={"LP_TRANSFORMS_MODE": "NO"}), True),
    "Conv, images fixed": (ratio("Conv", length=SHAPE[0]), True),
    "MatMul, as read": (ratio("MatMul"), True),
    "MatMul, converted": (ratio("MatMul", converted=True), False),
    "MatMul + 1e-30, converted": (ratio("MatMul", bias=True, converted=True), True),
}
for name, (value, _) in seen.items():
    print(f"{name:26} {value:.4f}")
if any((abs(value - 1) < 0.01) != right for value, right in seen.values()):
    sys.exit("The behaviour has changed.")
PYTHON
