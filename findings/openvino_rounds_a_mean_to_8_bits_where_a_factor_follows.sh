#!/usr/bin/env bash
# OpenVINO 2026.4.1 (CPU plugin), beside ONNX Runtime 1.32.0, on one ONNX model of opset 17.
#
#   x -> QuantizeLinear -> DequantizeLinear -> AveragePool -> Mul 0.5 -> y
#
# Behaviour: the pool computes in 8 bits, and yields them: its means are rounded to the steps of what it reads, though
# nothing in the model quantizes them. It depends on what follows: a product or a sum with a constant, which the rewrites
# for low precision join with the scale. Where a Sigmoid follows, or nothing, the means are exact. So they are with
# LP_TRANSFORMS_MODE=NO.
#
# Seen (x86-64, the same with and without VNNI), the greatest error of the mean in steps of its input:
#   Identity 0.00, Sigmoid 0.00, Mul 0.44, Add 0.44
#   without the rewrites: Identity 0.00, Sigmoid 0.00, Mul 0.00, Add 0.00
# Exits with 1 if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  openvino==2026.4.1 onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

STEP = 0.04
SHAPE = [4, 2, 9, 9]
x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
core = openvino.Core()


def error(op, settings):
    """Returns the greatest error of the mean, in steps."""
    constants = {"scale": np.float32(STEP), "zero": np.uint8(128), "half": np.float32(0.5)}
    operands = ["mean", "half"] if op in ("Mul", "Add") else ["mean"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "scale", "zero"], ["values"]),
        helper.make_node("AveragePool", ["values"], ["mean"], kernel_shape=[3, 3]),
        helper.make_node(op, operands, ["y"]),
    ]
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in read],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    expected = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    settings = {"INFERENCE_PRECISION_HINT": "f32", **settings}
    found = core.compile_model(core.read_model(model), "CPU", settings)([x])[0]
    return float(np.abs(found - expected).max()) / STEP / (0.5 if op == "Mul" else 1)


OPS = ("Identity", "Sigmoid", "Mul", "Add")
default = [error(op, {}) for op in OPS]
plain = [error(op, {"LP_TRANSFORMS_MODE": "NO"}) for op in OPS]
for title, errors in (("", default), ("without the rewrites: ", plain)):
    print(title + ", ".join(f"{op} {value:.2f}" for op, value in zip(OPS, errors)))
if max(*default[:2], *plain) > 0.01 or min(default[2:]) < 0.3:
    sys.exit("The behaviour has changed.")
PYTHON
