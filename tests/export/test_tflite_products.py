"""An activation behind a product of two computed matrices is kept by TensorFlow Lite's converter."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal, run, tf1

from amct_tensorflow.export.tflite.tflite_conversion import convert_to_tflite

PRODUCTS = {
    "MatMul": lambda x: tf.matmul(x, tf.tanh(x)),
    "MatMul of the transposed": lambda x: tf.matmul(x, tf.tanh(x), transpose_a=True),
    "MatMul by the transposed": lambda x: tf.matmul(x, tf.tanh(x), transpose_b=True),
    "MatMul by a constant": lambda x: tf.matmul(x, normal((5, 5), 2)),
    "MatMul of a constant": lambda x: tf.matmul(normal((5, 5), 2), tf.tanh(x)),
    "BatchMatMul": lambda x: tf.raw_ops.BatchMatMul(x=x, y=tf.tanh(x), adj_x=True),
    "BatchMatMulV2": lambda x: tf.raw_ops.BatchMatMulV2(x=x, y=tf.tanh(x)),
    "Einsum": lambda x: tf.einsum("ab,bc->ac", x, tf.tanh(x)),
    "Einsum, transposed": lambda x: tf.einsum("ab,bc->ca", x, tf.tanh(x)),
    "Einsum of the transposed": lambda x: tf.einsum("ba,bc->ac", x, tf.tanh(x)),
}


@pytest.mark.parametrize("activation", [tf.nn.relu, tf.nn.relu6])
@pytest.mark.parametrize("product", PRODUCTS)
def test_an_activation_behind_a_product_is_kept(product, activation):
    def make():
        tf.identity(activation(PRODUCTS[product](tf1.placeholder(tf.float32, [5, 5], name="x"))), name="out")

    graph_def, x = build(make), normal((5, 5), 1)
    content = convert_to_tflite(graph_def, {"x": (5, 5)}, ["x"], ["out"])
    resolver = tf.lite.experimental.OpResolverType.BUILTIN_REF
    interpreter = tf.lite.Interpreter(model_content=content, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    (expected,) = run(graph_def, ["out"], {"x": x})
    assert (expected == 0).any() and (expected > 0).any()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
