#!/usr/bin/env bash
# tensorflow-cpu 2.21.0
#
# TensorFlow Lite's converter fuses a Relu or Relu6 into the product of two computed matrices, and then makes a
# BATCH_MATMUL of it, which has no place for an activation. The Relu is gone without a word, in float as in int8, and
# negative values come out. So it is with MatMul and BatchMatMulV2 of matrices. It is kept behind a BatchMatMulV3, behind
# a product with a transposed second matrix, and behind one with a constant matrix.
#
# Seen: ops of the file, and the least value of what is a Relu's output:
#   MatMul                       TANH, BATCH_MATMUL                  -5.26
#   BatchMatMulV2                TANH, BATCH_MATMUL                  -5.26
#   BatchMatMulV3                TANH, BATCH_MATMUL, RELU             0.00
#   MatMul, second transposed    TANH, FULLY_CONNECTED                0.00
#   MatMul, second constant      FULLY_CONNECTED                      0.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q tensorflow-cpu==2.21.0
export TF_CPP_MIN_LOG_LEVEL=3

venv/bin/python - 2>log <<'PYTHON'
import sys

import numpy as np
import tensorflow as tf

x = np.random.RandomState(0).randn(5, 5).astype(np.float32)
weights = tf.constant(np.random.RandomState(1).randn(5, 5).astype(np.float32))
raw = tf.raw_ops
PRODUCTS = {
    "MatMul": lambda x: tf.matmul(x, tf.tanh(x)),
    "BatchMatMulV2": lambda x: raw.BatchMatMulV2(x=x, y=tf.tanh(x)),
    "BatchMatMulV3": lambda x: raw.BatchMatMulV3(x=x, y=tf.tanh(x), Tout=tf.float32),
    "MatMul, second transposed": lambda x: tf.matmul(x, tf.tanh(x), transpose_b=True),
    "MatMul, second constant": lambda x: tf.matmul(x, weights),
}


def converted(product):
    """Returns the op types of the file, and the least value that it computes."""
    function = tf.function(lambda x: tf.nn.relu(product(x)), input_signature=[tf.TensorSpec(x.shape, tf.float32)])
    content = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()]).convert()
    resolver = tf.lite.experimental.OpResolverType.BUILTIN_REF
    interpreter = tf.lite.Interpreter(model_content=content, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    ops = [each["op_name"] for each in interpreter._get_ops_details()]
    return ops, float(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).min())


found = {name: converted(product) for name, product in PRODUCTS.items()}
for name, (ops, least) in found.items():
    print(f"{name:28} {', '.join(ops):32} {least:8.2f}")
wrong = {name for name, (_, least) in found.items() if least < 0}
sys.exit(0 if wrong == {"MatMul", "BatchMatMulV2"} else 1)
PYTHON
