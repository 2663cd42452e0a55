"""Every node of a quantized model traces to nodes of the file that the user gave, whatever preparation made of them."""

import json
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from forms import FORMS, quantize_form
from graphs import build, normal, run, signal_to_noise, tf1
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow import FloatModel
from amct_tensorflow.graph.nodes import make_node
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.fusion import DividedTensor
from amct_tensorflow.quantize.quantized.builder import QuantizedGraph, quantize_graph
from amct_tensorflow.quantize.quantized.node_map import dump_node_map
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan

INSERTED = ("AscendQuant", "AscendWeightQuant", "AscendDequant", "AscendAntiQuant")


def originals_of(operation):
    (attribute,) = operation["attr"]
    assert attribute["key"] == "_datadump_original_op_names"
    return attribute["value"]["list"]["s"]


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_quantized_and_traced(name):
    form = FORMS[name]
    graph_def, quantized, operations = quantize_form(form)
    check_map(graph_def, quantized, operations)
    assert any(operation["type"] == "AscendDequant" for operation in operations)
    feeds = form.feeds()
    present = {key: value for key, value in feeds.items() if any(node.name == key for node in quantized.node)}
    expected = run(graph_def, form.outputs, feeds, form.options())
    for one, other in zip(expected, run(quantized, form.outputs, present, form.options()), strict=True):
        assert signal_to_noise(one, other) > 20
    check_values(graph_def, quantized, operations, feeds, present, form.options())


def values_of(operations):
    """Returns per node the original one whose output it is said to reproduce."""
    entries = {
        operation["name"]: {entry["key"]: entry["value"] for entry in output["attr"]}
        for operation in operations
        for output in operation.get("output_desc", ())
    }
    return {name: each["_datadump_origin_name"]["s"] for name, each in entries.items()}


def check_values(graph_def, quantized, operations, feeds, present, options=None):
    """Checks that a node reproduces the original value that it is said to, as far as both can be fetched."""
    uncertain = GraphView(graph_def).uncertain_nodes | GraphView(quantized).uncertain_nodes
    floats = {node.name for node in quantized.node if node.attr["T"].type == 1 and node.op != "Assert"}
    pairs = [pair for pair in values_of(operations).items() if pair[0] in floats and not uncertain & set(pair)]
    assert pairs
    made, original = map(list, zip(*pairs, strict=True))
    values = run(graph_def, original, feeds, options), run(quantized, made, present, options)
    for name, one, other in zip(made, *values, strict=True):
        if one.dtype == np.float32:
            assert one.shape == other.shape and (not one.any() or signal_to_noise(one, other) > 10), name


def check_map(graph_def, quantized, operations):
    types = {node.name: node.op for node in graph_def.node}
    assert [(each["name"], each["type"]) for each in operations] == [(node.name, node.op) for node in quantized.node]
    listed = Counter(name for operation in operations for name in originals_of(operation))
    assert listed.keys() <= types.keys()
    for operation in operations:
        originals, operation_type = originals_of(operation), operation["type"]
        assert len(set(originals)) == len(originals)
        if operation_type == "AscendQuant":  # which may do the work of an activation
            assert all(types[name] in ("Relu", "Relu6") or "Call" in types[name] for name in originals), originals
        elif operation_type in INSERTED or any(scope in operation["name"] for scope in ("_quant/", "dequant/")):
            assert originals == []
        elif types.get(operation["name"]) == operation_type != "BiasAdd":  # a bias is part of its layer
            assert operation["name"] in originals
        for output in operation.get("output_desc", ()):
            value = {entry["key"]: entry["value"] for entry in output["attr"]}["_datadump_origin_name"]["s"]
            assert value in types and (operation_type == "AscendDequant" or value == operation["name"])
    layers = [name for name, op in types.items() if op in ("Conv2D", "MatMul", "DepthwiseConv2dNative")]
    needed = {node.name for node in quantized.node}
    assert all(listed[name] for name in layers if name in needed)


def test_what_comes_from_a_function_traces_to_its_call():
    _, quantized, operations = quantize_form(FORMS["functions"])
    calls = {name for operation in operations for name in originals_of(operation) if "PartitionedCall" in name}
    assert len(calls) == 3
    for operation in operations:
        scope = next((call for call in calls if operation["name"].startswith(f"{call}/")), None)
        if scope and originals_of(operation) and operation["type"] != "AscendQuant":
            assert originals_of(operation) == [scope]
    layers = [operation for operation in operations if operation["type"] == "Conv2D"]
    assert sorted(originals_of(layer)[0] for layer in layers) == sorted(calls)
    assert not {node.op for node in quantized.node} & {"PartitionedCall", "StatefulPartitionedCall"}


def test_what_is_folded_into_a_layer_that_stays_float_is_no_node_of_the_file():
    form = FORMS["batch_norms_in_small_ops"]
    graph_def, quantized, operations = quantize_form(form, skip_layers=["conv1", "dense6"])
    check_map(graph_def, quantized, operations)
    named = {operation["name"]: originals_of(operation) for operation in operations}
    assert named["conv1/folded_weights"] == named["conv1/folded_bias"] == []


@pytest.mark.parametrize("name", ["functions", "weights_in_half_precision", "an_output_that_waits_for_the_weights"])
def test_a_quantized_model_holds_its_weights_once(name):
    """Neither a function that was inlined nor what an output waited for keeps the float ones."""
    _, quantized, _ = quantize_form(FORMS[name])
    largest = max(
        np.prod(tf.make_ndarray(node.attr["value"].tensor).shape) for node in quantized.node if node.op == "Const"
    )
    floats = [
        node for node in quantized.node if node.op == "Const" and node.attr["dtype"].type == tf.float32.as_datatype_enum
    ]
    assert all(tf.make_ndarray(node.attr["value"].tensor).size < largest for node in floats)
    assert {each.signature.name.partition("_")[0] for each in quantized.library.function} <= set(INSERTED)


def test_values_that_balancing_has_scaled_are_none_of_the_original():
    def residual():
        x = tf1.placeholder("float32", [None, 6, 6, 3], "x")
        first = tf.nn.relu(tf.nn.conv2d(x, normal((3, 3, 3, 4), 1), 1, "SAME", name="a"), name="relu_a")
        second = tf.nn.conv2d(first, normal((3, 3, 4, 4), 2), 1, "SAME", name="b")
        tf.identity(tf.nn.conv2d(tf.add(first, second, "sum"), normal((1, 1, 4, 2), 3), 1, "SAME", name="c"), "out")

    model = FloatModel(GraphView(build(residual)), ["out"], "test")
    fused = model.fuse(balance={"b": (0.5, 2.0, 4.0, 1.0)})
    quantized = quantize_graph(QuantizationPlan(fused, {}, {}, ["out"]))
    assert {"x", "c", "out"} == {name for name in quantized.values if quantized.values[name] in ("x", "c", "out")}
    assert not {"a", "relu_a", "b", "sum"} & {*quantized.values, *quantized.values.values()}


def test_the_map_keeps_its_form():
    """Tools that read it find each key where the original toolkit writes it."""
    origins = {"relu": ("conv", "relu"), "layer/quant": ("relu",), "empty": ()}
    graph_def = GraphDef(
        node=[
            make_node("relu", "Relu", ["x:1", "^wait"], T=tf.float32),
            make_node("layer/quant", "AscendQuant", ["relu"]),
            make_node("empty", "NoOp", []),
        ]
    )
    quantized = QuantizedGraph(
        graph_def,
        origins,
        values={"relu": "relu", "empty": "inner"},
        hidden=frozenset({"inner"}),
        absorbed={"layer/quant": "inner/relu"},
        divided={"layer/quant": DividedTensor("inner/relu:0", np.asarray([[0.5, 2.0]], np.float32))},
        shapes={},
        outputs=("relu",),
    )
    (graph,) = json.loads(dump_node_map(quantized))["graph"]
    assert list(graph) == ["name", "output", "op"] and graph["output"] == ["relu:0"]
    attributes = [
        [{"key": "_datadump_original_op_names", "value": {"list": {"s": list(each)}}}] for each in origins.values()
    ]
    value = [
        {"key": "_datadump_origin_name", "value": {"s": "relu"}},
        {"key": "_datadump_origin_output_index", "value": {"i": 0}},
    ]
    expected = [
        {"id": 0, "name": "relu", "type": "Relu", "input": ["x:1", "wait:-1"], "attr": attributes[0],
         "output_desc": [{"attr": value}]},
        {"id": 1, "name": "layer/quant", "type": "AscendQuant", "input": ["relu:0"], "attr": attributes[1],
         "inlined_activation_name": "inner/relu",
         "balanced_origin": {"tensor": "inner/relu:0", "shape": [1, 2], "factors": [0.5, 2.0]}},
        {"id": 2, "name": "empty", "type": "NoOp", "input": [], "attr": attributes[2], "inlined_origin_name": "inner"},
    ]  # fmt: skip
    assert json.dumps(graph["op"]) == json.dumps(expected)
