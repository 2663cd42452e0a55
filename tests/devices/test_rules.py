"""Each rule finds the graph that breaks it on purpose, and names the node; whole graphs break none."""

import re
from functools import cache

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from devices.broken_graphs import (
    add,
    change,
    graph_of,
    grouped,
    max_pooled,
    node,
    pooled,
    product,
    put_before,
    replace,
    rewire,
    whole,
    without,
)

from amct_tensorflow.devices.ascend_rules import CURRENT, DOCUMENTED, OLD, RULES, Level
from amct_tensorflow.devices.graph_check import check_graph
from amct_tensorflow.graph.nodes import Attr, make_const, make_node, make_placeholder
from amct_tensorflow.quantize.quantized import ascend_ops


def found(graph_def, **ranges):
    """Returns the rules that a graph breaks, with the nodes."""
    return [(finding.rule, finding.node) for finding in check_graph(graph_def, ranges=ranges).findings]


def padded(op="Conv2D"):
    """A Pad stands between the AscendQuant and the layer."""
    margins = make_const("margins", np.array([[0, 0], [1, 1], [1, 1], [0, 0]][: 2 if op == "MatMul" else 4], np.int32))
    graph_def = add(put_before(whole(op), "layer", 0, "Pad", Tpaddings=tf.int32), margins)
    node(graph_def, "between").input.append("margins")
    return graph_def


def called():
    """A function of the model is called, as tf.function leaves it."""
    function = tf.function(tf.nn.relu, input_signature=[tf.TensorSpec([None, 8, 8, 4])])
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 8, 8, 4], name="x")
        tf.identity(function(x), name="out")
    return graph.as_graph_def()


def product_of_matrices():
    """A MatMul of two computed operands."""
    graph_def = product()
    for name, shape in (("x", [7, 32]), ("y", [32, 7])):
        replace(graph_def, make_placeholder(name, tf.float32, shape))
    node(graph_def, "layer").op = "MatMul"
    return graph_def


def barred():
    return put_before(whole(), "bias_add", 0, "Snapshot")


def reads_unknown_channels(offset=-128):
    """The layer reads what only a run can shape."""
    graph_def = whole(offset=offset)
    replace(graph_def, make_placeholder("x", tf.float32, [None, 8, 8, 32]))
    shape = make_placeholder("shape", tf.int32, [4])
    add(graph_def, shape, make_node("reshape", "Reshape", ["x", "shape"], T=tf.float32, Tshape=tf.int32))
    return rewire(graph_def, "quant", 0, "reshape")


def in_two_layouts():
    graph_def = change(whole(), "layer", data_format="NHWC")
    pool = {"ksize": [1, 1, 2, 2], "strides": [1, 1, 2, 2], "padding": "VALID", "data_format": "NCHW"}
    return add(graph_def, make_node("pool", "AvgPool", ["out"], T=tf.float32, **pool))


def behind_another(largest):
    """Two layers, the second of which read values up to ``largest`` in calibration."""
    graph_def = whole()
    return add(
        graph_def,
        ascend_ops.quant_node("quant_1", "out", 0.1, 0),
        make_node("layer_1", "MatMul", ["quant_1", "weight_quant"], T=tf.float32),
        ascend_ops.dequant_node("dequant_1", "layer_1", "deq_scale", [1, 1], "NHWC"),
    )


@cache
def broken_graphs():
    """Returns per rule a graph that breaks it, and the node at which it does."""
    return {
        "duplicate-name": (add(whole(), make_node("out", "Relu", ["x"], T=tf.float32)), "out"),
        "input-type": (add(whole(), make_placeholder("late", tf.float64, [1])), "late"),
        "empty-input": (add(whole(), make_placeholder("none", tf.float32, [1, 0])), "none"),
        "explicit-depthwise-padding": (
            change(whole("DepthwiseConv2dNative"), "layer", padding="EXPLICIT",
                   explicit_paddings=[0, 0, 1, 1, 1, 1, 0, 0]), "layer"),
        "op-type": (add(whole(), make_node("nothing", "NoOp", [])), "nothing"),
        "function": (called(), "PartitionedCall"),
        "name-of-op-type": (add(whole(), make_node("NoOp", "NoOp", [])), "NoOp"),
        "layout": (in_two_layouts(), "pool"),
        "open-shape": (add(whole(), make_placeholder("words", tf.int32, [None, None])), "words"),
        "quantizer-attributes": (without(whole(), "quant", "offset"), "quant"),
        "int16-quantizer": (change(whole(), "quant", quant_bits=16, dst_type="INT16"), "quant"),
        "quantizer-type": (change(whole(), "quant", T=tf.int32), "quant"),
        "weight-quantizer": (replace(whole(), make_const("weights", np.ones([3, 3, 32, 4], np.uint8))), "weight_quant"),
        "anti-quantizer-offset": (max_pooled(offset=-5.0), "anti_quant"),
        "deq-scale-kind": (replace(whole(), make_const("deq_scale", np.ones(4, np.float32))), "dequant"),
        "deq-scale-rank": (replace(whole(), make_const("deq_scale", np.array(1, np.uint64))), "dequant"),
        "deq-scale-shift": (
            replace(whole(), make_const("deq_scale", np.full(4, (3 << 32) + 0x3F800000, np.uint64))), "dequant"),
        "sqrt-mode": (change(whole(), "quant", scale=1e6), "quant"),
        "behind-layer": (put_before(whole(), "dequant", 0, "Relu"), "between"),
        "before-layer": (put_before(whole(), "layer", 0, "Identity"), "layer"),
        "float-weights": (rewire(add(whole(), make_const("floats", np.ones([3, 3, 32, 4], np.float32))),
                                 "layer", 1, "floats"), "layer"),
        "stray-quantizer": (add(whole(), make_node("stray", "Relu", ["quant"], T=tf.float32)), "stray"),
        "computed-bias": (put_before(whole(), "bias_add", 1, "Relu"), "bias_add"),
        "fractional-bias": (replace(whole(), make_const("bias", np.full(4, 1.5, np.float32))), "bias_add"),
        "product-bias": (whole("BatchMatMulV2"), "bias_add"),
        "barrier": (barred(), "between"),
        "transposed-product": (change(rewire(replace(whole("MatMul"), make_const("weights", np.ones([4, 32], np.int8))),
                                             "layer", 1, "weight_quant"), "layer", transpose_b=True), "layer"),
        "computed-size": (put_before(whole("Conv2DBackpropInput"), "layer", 0, "Abs"), "layer"),
        "computed-operands": (product_of_matrices(), "layer"),
        "operand-offset": (product(offset=3), "quant_1"),
        "unknown-channels": (reads_unknown_channels(), "layer"),
        "float16-range": (behind_another(7e4), "dequant"),
        "few-channels": (whole(channels=16), "layer"),
        "unfit-pooling": (pooled(size=16), "layer"),
    }  # fmt: skip


# What one fault breaks beside the rule: TensorFlow cannot tell the shape of a volume in two layouts, and so on.
ALSO = {"name-of-op-type": {"op-type"}}


@pytest.mark.parametrize("rule", [rule.id for rule in RULES])
def test_each_rule_finds_its_broken_graph(rule):
    graph_def, name = broken_graphs()[rule]
    hits = found(graph_def, layer_1=(-1.0, 7e4)) if rule == "float16-range" else found(graph_def)
    assert (rule, name) in hits
    assert {other for other, _ in hits} == {rule} | ALSO.get(rule, set())


def test_rules_are_rows_of_their_own():
    ids = [rule.id for rule in RULES]
    assert len(set(ids)) == len(ids) and sum(rule.level is not Level.NOTE for rule in RULES) >= 20
    for rule in RULES:
        assert rule.text.endswith(".") and rule.remedy.endswith(".") and rule.evidence
        assert set(rule.evidence) <= {CURRENT, DOCUMENTED, OLD}


WHOLE = {
    "convolution": whole(),
    "depthwise": whole("DepthwiseConv2dNative"),
    "matrix product with a scale per channel": whole("MatMul"),
    "transposed convolution": whole("Conv2DBackpropInput"),
    "padded": padded(),
    "pooled": pooled(),
    "product of two": product(),
    "grouped": grouped(),
    "max pooled": max_pooled(offset=5.0),
    "no zero point, unknown channels": reads_unknown_channels(offset=0),
    "scale first": put_before(whole(), "quant", 0, "Relu"),
    "scaled": rewire(
        add(whole(), make_const("f", np.ones(32, np.float32)), make_node("mul", "Mul", ["x", "f"], T=tf.float32)),
        "quant", 0, "mul",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_whole_graphs_break_no_rule(name):
    assert found(WHOLE[name]) == []


def test_a_pad_before_a_product_breaks_the_chain():
    assert found(padded("MatMul")) == [("before-layer", "layer")]


def test_a_chain_with_casts_is_broken_once():
    """So are layers written that read 16 bits."""
    graph_def = put_before(whole(), "layer", 0, "Cast", SrcT=tf.float32, DstT=tf.float64)
    put_before(graph_def, "dequant", 0, "Cast", "back", SrcT=tf.float64, DstT=tf.float32)
    assert [rule for rule, _ in found(graph_def)] == ["behind-layer"]


def test_a_bias_cast_from_int32_is_one():
    graph_def = replace(whole(), make_const("bias", np.ones(4, np.int32)))
    assert found(put_before(graph_def, "bias_add", 1, "Cast", SrcT=tf.int32, DstT=tf.float32)) == []


def test_an_add_is_a_bias_behind_a_product():
    graph_def = whole("BatchMatMulV2")
    node(graph_def, "bias_add").op = "AddV2"
    assert found(graph_def) == []


def test_an_op_that_is_none_breaks_the_chain():
    graph_def = whole()
    node(graph_def, "bias_add").op = "Add"
    assert ("behind-layer", "bias_add") in found(graph_def)


@pytest.mark.parametrize(
    ("size", "stride", "width", "is_undone"),
    [(8, 1, 8, True), (8, 1, 9, False), (20, 1, 40, True), (19, 1, 40, False), (1, 64, 129, True), (1, 63, 129, False)],
)
def test_pooling_that_is_undone(size, stride, width, is_undone):
    hits = found(pooled(size, stride, width))
    assert hits == ([("unfit-pooling", "layer")] if is_undone else [])


@pytest.mark.parametrize(("channels", "is_undone"), [(16, True), (17, False), (3, True)])
@pytest.mark.parametrize("op", ["Conv2D", "DepthwiseConv2dNative"])
def test_channels_that_are_too_few(op, channels, is_undone):
    assert found(whole(op, channels)) == ([("few-channels", "layer")] if is_undone else [])


def test_matrix_products_may_have_few_channels():
    assert found(whole("MatMul", channels=3)) == []


def test_share_and_layers_in_fp16():
    """8 * 8 * 3 * 3 * 16 * 4 products that GE undoes, and 8 * 8 * 4 * 32 that it does not."""
    graph_def = add(
        whole(channels=16),
        make_const("weights_1", np.ones([1, 1, 4, 32], np.int8)),
        ascend_ops.weight_quant_node("weight_quant_1", "weights_1", "offset_w"),
        make_const("deq_scale_1", ascend_ops.pack_deq_scale(np.ones(1, np.float32))),
        ascend_ops.quant_node("quant_1", "widened", 0.1, 0),
        make_const("axis", np.array(3, np.int32)),
        make_node("widened", "ConcatV2", [*["out"] * 8, "axis"], T=tf.float32, N=8),
        make_node("layer_1", "Conv2D", ["quant_1", "weight_quant_1"], T=tf.float32, strides=[1] * 4, padding="SAME"),
        ascend_ops.dequant_node("dequant_1", "layer_1", "deq_scale_1", [1, 1], "NHWC"),
    )
    replace(graph_def, make_const("weights_1", np.ones([1, 1, 32, 32], np.int8)))
    first, second = 8 * 8 * 3 * 3 * 16 * 4, 8 * 8 * 32 * 32
    told = check_graph(graph_def)
    assert (told.chains, told.matched, told.in_fp16) == (2, 2, ("layer",))
    assert told.int8_share == pytest.approx(second / (first + second))
    (note,) = told.findings
    assert note.share == pytest.approx(first / (first + second))


def test_broken_chains_do_not_run_in_int8():
    told = check_graph(put_before(whole(), "dequant", 0, "Squeeze"))
    assert (told.chains, told.matched, told.int8_share) == (1, 0, 0.0)


def test_the_command():
    told = check_graph(whole(), ["out"], path="results/net_quantized.pb")
    assert told.command == (
        'atc --framework=3 --model=results/net_quantized.pb --input_shape="x:1,8,8,32" --output=net '
        '--out_nodes="out:0" --soc_version=SOC_VERSION'
    )


def test_only_what_outputs_need_is_examined():
    graph_def = add(whole(), make_node("nothing", "NoOp", []), make_node("stray", "Relu", ["quant"], T=tf.float32))
    assert check_graph(graph_def, ["out"]).findings == ()


def test_shapes_that_contradict_are_a_remark():
    graph_def = replace(whole(), make_const("weights", np.ones([3, 3, 31, 4], np.int8)))
    told = check_graph(graph_def)
    assert told.remarks and told.int8_share is None


def test_an_op_type_that_tensorflow_does_not_know():
    """The rest of the graph is examined all the same."""
    graph_def = add(whole(channels=3), make_node("odd", "NeverHeardOf", ["out"], T=tf.float32))
    told = check_graph(add(graph_def, make_node("behind", "Relu", ["odd"], T=tf.float32)))
    assert [(each.rule, each.node) for each in told.findings] == [("op-type", "odd"), ("few-channels", "layer")]
    assert told.remarks == () and told.findings[1].share == 1.0


def test_a_float_model_tells_what_quantization_would_lead_to():
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
        y = tf.nn.conv2d(x, np.ones([3, 3, 3, 32], np.float32), 1, "SAME", name="first")
        tf.nn.conv2d(y, np.ones([1, 1, 32, 8], np.float32), 1, "SAME", name="second")
    told = check_graph(graph.as_graph_def())
    assert [(each.rule, each.node) for each in told.findings] == [("few-channels", "first")]
    assert not told.is_quantized and told.in_fp16 == ()
    assert told.int8_share == pytest.approx(32 * 8 / (32 * 8 + 3 * 3 * 3 * 32))


def test_a_graph_without_a_type_attribute():
    """Graphs that another tool wrote may leave attributes out."""
    graph_def = graph_of(make_node("x", "Placeholder", []), make_node("out", "Identity", ["x"]))
    graph_def.node[0].attr["shape"].CopyFrom(Attr(shape={"unknown_rank": True}))
    assert check_graph(graph_def).findings == ()


def test_the_page_has_every_rule():
    page = (ROOT / "docs" / "ascend.md").read_text().split("## The rules\n")[1]
    rows = re.findall(r"(?m)^\| `([\w-]+)` \| (\w+) \| (.*) \| ([\w, ]+) \|$", page)
    words = {CURRENT: "current", DOCUMENTED: "documented", OLD: "old"}
    assert rows == [
        (rule.id, rule.level.value, rule.text, ", ".join(words[each] for each in rule.evidence)) for rule in RULES
    ]
    for evidence in (CURRENT, DOCUMENTED):
        assert str(evidence.year) in page
