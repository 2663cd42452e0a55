#!/usr/bin/env bash
# OpenVINO 2026.4.1, CPU plugin, beside ONNX Runtime 1.32.0, on one ONNX model of opset 18.
#
# Behaviour: a product of int8 weights (QuantizeLinear, DequantizeLinear) yields scores, to which a mask is added that is
# computed of a model input of type uint8: (1 - Cast(mask)) * -1e9. OpenVINO's defaults with
# INFERENCE_PRECISION_HINT=f32 lose the scores: the softmax behind is wrong by tenths. With the same mask as int32, or
# with LP_TRANSFORMS_MODE=NO, it is right.
# Seen (x86-64, the same with and without VNNI): largest difference from ONNX Runtime 0.36 (uint8), 1.5e-08 (int32), 3e-08 (uint8 without these transformations).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1 onnxruntime==1.32.0 onnx==1.22.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder/model.onnx" <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

path = sys.argv[1]
generator = np.random.default_rng(0)
constants = {
    "step": np.float32(0.02),
    "zero_point": np.uint8(128),
    "weights": generator.integers(-63, 64, (16, 16)).astype(np.int8),
    "weight_step": np.float32(0.006),
    "weight_zero": np.int8(0),
    "one": np.float32(1),
    "far": np.float32(-1e9),
}
data = generator.normal(size=(5, 16)).astype(np.float32)
shown = generator.random((5, 16)) > 0.3


def compare(kind, dtype, settings):
    """Returns the largest difference between both runtimes for a mask of a type."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero_point"], ["integers"]),
        helper.make_node("DequantizeLinear", ["integers", "step", "zero_point"], ["data"]),
        helper.make_node("DequantizeLinear", ["weights", "weight_step", "weight_zero"], ["matrix"]),
        helper.make_node("MatMul", ["data", "matrix"], ["scores"]),
        helper.make_node("Cast", ["mask"], ["shown"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["one", "shown"], ["hidden"]),
        helper.make_node("Mul", ["hidden", "far"], ["bias"]),
        helper.make_node("Add", ["scores", "bias"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["out"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "masked_scores",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 16]),
            helper.make_tensor_value_info("mask", kind, [None, 16]),
        ],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None, 16])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    feeds = {"x": data, "mask": shown.astype(dtype)}
    expected = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    settings = {"INFERENCE_PRECISION_HINT": "f32", **settings}
    compiled = openvino.Core().compile_model(openvino.convert_model(path), "CPU", settings)
    return float(np.abs(compiled(feeds)[0] - expected).max())


narrow = compare(TensorProto.UINT8, np.uint8, {})
wide = compare(TensorProto.INT32, np.int32, {})
plain = compare(TensorProto.UINT8, np.uint8, {"LP_TRANSFORMS_MODE": "NO"})
print(f"openvino {openvino.__version__.split('-')[0]}, onnxruntime {onnxruntime.__version__}")
print(f"uint8 {narrow:.2g}, int32 {wide:.2g}, uint8 without low-precision transformations {plain:.2g}")
if not (narrow > 0.1 and wide < 1e-5 and plain < 1e-5):
    sys.exit("The behaviour has changed.")
PYTHON
