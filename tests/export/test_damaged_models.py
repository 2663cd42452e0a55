"""Quantized models that were damaged, moved, or written by another version."""

from pathlib import Path

import numpy as np
import pytest
from graphs import normal, quantize_small_net, tf1
from test_integers_in_files import evaluator

from amct_tensorflow.errors import ExportError, ModelError
from amct_tensorflow.export.export_plan import plan_export
from amct_tensorflow.export.libraries import refusals
from amct_tensorflow.graph.nodes import make_const

MODEL = Path("results/net_quantized.pb")


def zero_scale(graph_def):
    next(node for node in graph_def.node if node.op == "AscendQuant").attr["scale"].f = 0.0


def far_offset(graph_def):
    next(node for node in graph_def.node if node.op == "AscendQuant").attr["offset"].f = 300.0


def no_scales(graph_def):
    del next(node for node in graph_def.node if node.op == "AscendDequant").input[1:]


def float_weights(graph_def):
    nodes = {node.name: node for node in graph_def.node}
    weights = next(node for node in graph_def.node if node.op == "AscendWeightQuant")
    shape = tf1.make_ndarray(nodes[weights.input[0]].attr["value"].tensor).shape
    nodes[weights.input[0]].CopyFrom(make_const(weights.input[0], normal(shape)))


def variable_bias(graph_def):
    bias = next(node for node in graph_def.node if node.op == "BiasAdd")
    bias.input[1] = "input"


@pytest.mark.parametrize("damage", [zero_scale, far_offset, no_scales, float_weights, variable_bias])
def test_a_damaged_layer_is_named(damage):
    quantize_small_net()
    graph_def = tf1.GraphDef.FromString(MODEL.read_bytes())
    damage(graph_def)
    MODEL.write_bytes(graph_def.SerializeToString())
    with pytest.raises(ModelError, match="is no part of a quantized layer as this version writes it"):
        plan_export(MODEL, [], evaluator())


def test_the_model_alone_is_enough():
    quantize_small_net()
    Path("results/net_quant.json").unlink()
    MODEL.rename("elsewhere.pb")
    plan = plan_export(Path("elsewhere.pb"), [], evaluator())
    assert plan.outputs == ["probabilities"] and list(plan.inputs) == ["input"]
    assert all(np.isfinite(layer.deq_scale).all() for layer in plan.layers.values())


def test_what_a_tool_raises_becomes_one_clear_error():
    with (
        pytest.raises(ExportError, match=r"^A tool cannot load the model: first\. The log file"),
        refusals("A tool", "load"),
    ):
        raise RuntimeError("first\nsecond")
    with pytest.raises(ModelError, match=r"^ours$"), refusals("A tool", "load"):
        raise ModelError("ours")
