"""Images whose values all lie in the middle between two levels: the files quantize them as the simulation does."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, run, tf1
from test_every_format import OneBatch

from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_plan import plan_export
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
pytest.importorskip("openvino", reason="the extra openvino is not installed")

# Every byte once, as an image of 16 by 16: multiples of 2 / 255 and a half.
X = (np.arange(256).reshape(1, 16, 16, 1) / 127.5 - 1).astype(np.float32)
MODEL = Path("results/net_quantized.pb")


def copy_the_image():
    x = tf1.placeholder(tf.float32, [None, 16, 16, 1], name="x")
    tf.nn.conv2d(x, np.ones((1, 1, 1, 1), np.float32), 1, "SAME", name="out")


def make_model(scale, offset):
    """Quantizes a model whose input has some factors, as those of a record of other origin."""
    calibrate_and_save(build(copy_the_image), X)
    graph_def = tf1.GraphDef.FromString(MODEL.read_bytes())
    (quantizer,) = [node for node in graph_def.node if node.op == "AscendQuant"]
    quantizer.attr["scale"].f = np.float32(1) / np.float32(scale)
    quantizer.attr["offset"].f = offset
    MODEL.write_bytes(graph_def.SerializeToString())
    return CheckedEvaluator(OneBatch(X))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("offset", [0, -1])
def test_levels_are_those_of_the_simulation(target, offset):
    checked = make_model(2 / 255, offset)
    plan = plan_export(MODEL, [], checked)
    (layer,) = plan.layers.values()
    assert plan.ties == {layer.quantizer.name}
    (found,) = TARGETS[target].export(plan, checked).runtime.run({"x": X})
    (simulated,) = run(plan.view.graph_def, ["out"], {"x": X})
    step = layer.deq_scale[0] * layer.weights.item()
    # Half a step is more than bfloat16 loses, in which OpenVINO yields floats on some processors.
    assert np.max(np.abs(np.reshape(found, -1) - simulated.reshape(-1))) < 0.5 * step


@pytest.mark.parametrize("scale", [2 / 255 * (1 + 2**-10), 1.9 / 255])
def test_nothing_is_rounded_where_there_are_no_ties(scale):
    assert not plan_export(MODEL, [], make_model(scale, 0)).ties
