"""Layers without a bias whose outputs are multiplied by constants: every format computes what the simulation does."""

from pathlib import Path

import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, tf1
from layers import LAYERS, PRODUCTS
from test_every_format import OneBatch

from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_model import export_model
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
pytest.importorskip("openvino", reason="the extra openvino is not installed")

# OpenVINO rounds the mean of a pool to 8 bits where a factor reads it, and multiplies the sums of a transposed
# convolution before a Relu, whatever bias it has; the comparison tells.
NOT_IN_OPENVINO = {("AvgPool", "relu"), ("AvgPool", "twice"), ("Conv2DBackpropInput", "relu")}
BEHIND = {
    "twice": lambda y: tf.concat([y * 0.5, tf.abs(y)], -1),
    "relu": lambda y: tf.abs(tf.nn.relu(y) * -0.5),
}
AS_READ = "quantize_products: true\nbias_correction: false"  # so that no layer gets a bias


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("bias", [None, 0.0], ids=["no_bias", "a_bias_of_0"])
@pytest.mark.parametrize("op_type", [*LAYERS, *PRODUCTS])
@pytest.mark.parametrize("target", TARGETS)
def test_the_output_of_a_layer_is_scaled_once(op_type, target, bias, behind):
    """OpenVINO 2026.4 scales the output of a convolution or product twice, or before a Relu, unless it has a bias."""
    if target == "openvino" and (op_type, behind) in NOT_IN_OPENVINO:
        pytest.skip("OpenVINO computes something else")
    layer = (LAYERS | PRODUCTS)[op_type]

    def make():
        y = layer(tf1.placeholder(tf.float32, layer.shape, name="x"))
        y = y if bias is None else y + bias
        tf.identity(BEHIND[behind](y), name="out")

    x = normal([4 if length is None else length for length in layer.shape], 3)
    calibrate_and_save(build(make), x, simplified=AS_READ)
    plan = Path("results/net_quantized.pb")
    document = export_model(plan, [], TARGETS[target], CheckedEvaluator(OneBatch(x)), Path("results/net"), 0.01)
    assert document["kl"] < 1e-3, document
    assert document["outputs"][0]["lost_db"] < 1.5, document
