#!/bin/bash
# ONNX Runtime 1.32.0: an output of a model is quantized because a Transpose of it is.
#
#   x -> Add -> sum -> Transpose -> QuantizeLinear -> DequantizeLinear -> y        outputs: sum, y
#
# The optimizer (from ORT_ENABLE_BASIC on) moves the quantizer to the front of the Transpose, and lets it yield "sum",
# too, which is an output of the model that nothing quantizes. Without optimizations, or with a Reshape in place of the
# Transpose, "sum" is exact.
#
# Output seen (x86-64):
#   all optimizations: sum is off by 0.0485; without: 0.0000; half a step is 0.0500
# Exits with 1 if "sum" is the same with all optimizations as without.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

constants = {"scale": np.float32(0.1), "zero": np.uint8(128), "shift": np.float32([1, 2, 3, 4])}
nodes = [
    helper.make_node("Add", ["x", "shift"], ["sum"]),
    helper.make_node("Transpose", ["sum"], ["turned"], perm=[0, 3, 1, 2]),
    helper.make_node("QuantizeLinear", ["turned", "scale", "zero"], ["bytes"]),
    helper.make_node("DequantizeLinear", ["bytes", "scale", "zero"], ["y"]),
]
graph = helper.make_graph(
    nodes,
    "graph",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 4, 4])],
    [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("sum", "y")],
    [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
x = np.random.default_rng(0).normal(size=(1, 4, 4, 4)).astype(np.float32)


def error(level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return float(np.abs(session.run(["sum"], {"x": x})[0] - (x + constants["shift"])).max())


levels = onnxruntime.GraphOptimizationLevel
optimized, plain = error(levels.ORT_ENABLE_ALL), error(levels.ORT_DISABLE_ALL)
print(f"all optimizations: sum is off by {optimized:.4f}; without: {plain:.4f}; half a step is {0.05:.4f}")
sys.exit(0 if plain < 1e-6 < optimized else 1)
PYTHON
