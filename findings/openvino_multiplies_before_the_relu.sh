#!/bin/bash
# OpenVINO 2026.4.1: behind an int8 convolution and a ReLU, a factor below 0 is multiplied in front of the ReLU.
#
#   x -> QuantizeLinear -> DequantizeLinear -> Conv (int8 weights) -> Relu -> Mul [-2, 2, -1, 1] -> y
#
# The rewrites for low precision move the factors per channel across the ReLU, as if they were all above 0. So channels
# whose factor is below 0 come out as max(0, -2 * c) instead of -2 * max(0, c). With these rewrites off
# (LP_TRANSFORMS_MODE = NO) the same model is computed as it is written.
#
# Output seen (x86-64):
#   least value per channel:    default [0. 0. 0. 0.], rewrites off [-2.34  0.   -2.87  0.  ]
#   greatest value per channel: default [4.48 2.87 2.7  2.47], rewrites off [-0.    2.87 -0.    2.46]
# Exits with 1 if channels with factors below 0 have no value above 0.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - "$folder/model.onnx" <<'PYTHON'
import sys

import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper, numpy_helper

generator = np.random.default_rng(0)
constants = {
    "scale": np.float32(0.05),
    "zero": np.uint8(128),
    "weights": generator.integers(-127, 128, (4, 3, 1, 1)).astype(np.int8),
    "weight_scales": np.full(4, 0.01, np.float32),
    "weight_zeros": np.zeros(4, np.int8),
    "factors": np.float32([-2, 2, -1, 1]).reshape(4, 1, 1),
}
nodes = [
    helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["bytes"]),
    helper.make_node("DequantizeLinear", ["bytes", "scale", "zero"], ["values"]),
    helper.make_node("DequantizeLinear", ["weights", "weight_scales", "weight_zeros"], ["filters"], axis=0),
    helper.make_node("Conv", ["values", "filters"], ["sums"]),
    helper.make_node("Relu", ["sums"], ["positive"]),
    helper.make_node("Mul", ["positive", "factors"], ["y"]),
]
graph = helper.make_graph(
    nodes,
    "graph",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), sys.argv[1])
x = generator.normal(size=(1, 3, 4, 4)).astype(np.float32)


def run(settings):
    core = openvino.Core()
    (y,) = core.compile_model(core.read_model(sys.argv[1]), "CPU", settings)({"x": x}).values()
    return np.array(y)


default, plain = run({}), run({"LP_TRANSFORMS_MODE": "NO"})
np.set_printoptions(precision=2, suppress=True)
for title, reduce in (("least value per channel:   ", np.min), ("greatest value per channel:", np.max)):
    print(f"{title} default {reduce(default, (0, 2, 3))}, rewrites off {reduce(plain, (0, 2, 3))}")
sys.exit(0 if default[:, [0, 2]].max() > 0 >= plain[:, [0, 2]].max() else 1)
PYTHON
