"""A mask, in the types that users have it, hides what it hides in every format, and leaves the other scores exact."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, tf1
from test_every_format import OneBatch

from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_model import export_model
from amct_tensorflow.export.openvino.openvino_casts import with_plain_casts
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
reference = pytest.importorskip("onnx.reference")
pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
pytest.importorskip("openvino", reason="the extra openvino is not installed")


def positive(x):
    return x > 0


def bits(dtype):
    return lambda x: tf.cast(tf.cast(x > 0, tf.int32), dtype)


def causal(x):
    """The mask that TensorFlow computes of shapes alone; tf2onnx writes comparisons for it."""
    length = tf.shape(x)[1]
    return tf.linalg.band_part(tf.ones([length, length]), -1, 0)


MASKS = {"bool": positive, "uint8": bits(tf.uint8), "int8": bits(tf.int8), "int32": bits(tf.int32), "causal": causal}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", MASKS)
def test_scores_beside_a_mask(name, target, workdir):
    def make():
        x = tf1.placeholder(tf.float32, [None, 6, 6], name="x")
        scores = tf.reshape(tf.matmul(tf.reshape(x, [-1, 6]), normal((6, 6), 1), name="layer"), [-1, 6, 6])
        hidden = (1 - tf.cast(MASKS[name](x), tf.float32)) * -1e9
        tf.nn.softmax(scores + hidden, name="out")

    x = normal((64, 6, 6), 9)
    calibrate_and_save(build(make), x)
    document = export_model(
        Path("results/net_quantized.pb"), [], TARGETS[target], CheckedEvaluator(OneBatch(x)), Path("results/net"), 0.01
    )
    assert document["within_limit"] and document["kl"] < 1e-3, document
    assert document["layers"][0]["int8"], document


def test_only_casts_of_few_bits_are_written_otherwise():
    helper, types = onnx.helper, onnx.TensorProto
    kinds = {"bool": types.BOOL, "uint8": types.UINT8, "int32": types.INT32}
    graph = helper.make_graph(
        [helper.make_node("Cast", [name], [f"{name}_float"], to=types.FLOAT) for name in kinds],
        "casts",
        [helper.make_tensor_value_info(name, kind, [2]) for name, kind in kinds.items()],
        [helper.make_tensor_value_info(f"{name}_float", types.FLOAT, [2]) for name in kinds],
    )
    model = with_plain_casts(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))
    assert sorted(node.op_type for node in model.graph.node) == ["Cast", "Cast", "Cast", "Where"]
    values = reference.ReferenceEvaluator(model).run(None, {name: np.array([0, 1]).astype(name) for name in kinds})
    for value in values:
        np.testing.assert_array_equal(value, np.array([0, 1], np.float32))
