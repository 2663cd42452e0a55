#!/bin/bash
# tf2onnx 1.17.0, TensorFlow 2.21.0: from_graph_def returns a model although it does not know an op of it.
#
# Since TensorFlow 2.21 tf.nn.gelu is made of Erfc (2.20: Erf), which tf2onnx 1.17.0 does not know. convert.from_graph_def
# logs "Unsupported ops: Counter({'Erfc': 1})", and returns a ModelProto all the same: Erfc stands in it as an op of the
# ONNX domain, which has none of that name. Nothing is raised until somebody checks or loads the model.
#
# Output seen (x86-64):
#   returned: Mul, Neg, Mul, Erfc, Mul; domain of Erfc: ['']; ONNX has Erfc: False
#   onnx.checker: No Op registered for Erfc with domain_version of 17
# Exits with 1 if the conversion raises an error, or returns a model without Erfc.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow==2.21.0 tf2onnx==1.17.0 onnx==1.23.2
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES="" "$folder/venv/bin/python" - <<'PYTHON'
import sys

import onnx
import tensorflow as tf
import tf2onnx

with tf.Graph().as_default() as graph:
    x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
    tf.identity(tf.nn.gelu(x), name="out")
try:
    model, _ = tf2onnx.convert.from_graph_def(
        graph.as_graph_def(), input_names=["x:0"], output_names=["out:0"], opset=17
    )
except Exception as error:
    sys.exit(f"raised: {error}")
left = [node for node in model.graph.node if node.op_type == "Erfc"]
print("returned:", ", ".join(node.op_type for node in model.graph.node), end="; ")
print(f"domain of Erfc: {[node.domain for node in left]}; ONNX has Erfc: {onnx.defs.has('Erfc')}")
try:
    onnx.checker.check_model(model)
except onnx.checker.ValidationError as error:
    print("onnx.checker:", str(error).splitlines()[0])
sys.exit(not left)
PYTHON
