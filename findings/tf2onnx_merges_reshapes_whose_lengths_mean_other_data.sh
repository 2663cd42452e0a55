#!/bin/bash
# tf2onnx 1.17.0, TensorFlow 2.21.0: two Reshapes in a row become one that cannot run.
#
# A dense layer of three axes ends in a Reshape from [rows, width] to [n, t, width]. Attention reshapes that to
# [n, t, heads, size], with n and t computed from the shape of the data. tf2onnx writes both lengths as 0, which in ONNX
# means the length that the data has there. Another of its optimizers then leaves out the first Reshape. So the 0 mean
# the lengths of [rows, width], and ONNX Runtime refuses every input.
#
# Output seen (x86-64):
#   Reshapes behind the MatMul: 1, to [0, 0, 2, 3] of [rows, 6]
#   ONNX Runtime: The input tensor cannot be reshaped to the requested shape. Input shape:{6,6}, requested shape:{6,6,2,3}
# Exits with 1 if the converted model runs.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow==2.21.0 tf2onnx==1.17.0 onnx==1.23.2 \
    onnxruntime==1.32.0
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES="" "$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
import tf2onnx

with tf.Graph().as_default() as graph:
    x = tf.compat.v1.placeholder(tf.float32, [None, None, 5], name="x")
    y = tf.tensordot(x, tf.ones([5, 6]), [[2], [0]])
    tf.reshape(y, [tf.shape(y)[0], tf.shape(y)[1], 2, 3], name="out")
model, _ = tf2onnx.convert.from_graph_def(
    graph.as_graph_def(), input_names=["x:0"], output_names=["out:0"], opset=17
)
values = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
makers = {name: node for node in model.graph.node for name in node.output}
last = makers["out:0"]
count = 0
while last.op_type == "Reshape":
    count, last, shape = count + 1, makers[last.input[0]], values.get(last.input[1])
print(f"Reshapes behind the {last.op_type}: {count}, to {shape.tolist()} of [rows, 6]")
try:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, {"x:0": np.ones([2, 3, 5], np.float32)})
except Exception as error:
    print("ONNX Runtime:", str(error)[str(error).find("The input tensor") :])
    sys.exit(0)
sys.exit("the converted model runs")
PYTHON
