"""Parts of a quantized model that TensorFlow Lite can compute: what belongs together, and what stays out."""

import pytest
import tensorflow as tf
from graphs import control_flow_v1, normal, tf1
from integer_models import Integers, conv, images, places, relu

from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.quantize.quantized.quantized_layer import read_layers
from amct_tensorflow.search.integers.availability import why_no_lite_kernels
from amct_tensorflow.search.integers.kernel_layer import find_kernel_layers
from amct_tensorflow.search.lite.lite_region import LiteRegion, find_regions

pytestmark = pytest.mark.skipif(why_no_lite_kernels() is not None, reason=f"{why_no_lite_kernels()}")

SHAPE = (2, 8, 8, 6)


def out(*values):
    tf.identity(tf.add_n(list(values)) if len(values) > 1 else values[0], name="out")


def layers_of(regions):
    """Returns the names of the layers of each part."""
    return sorted(sorted(layer.name for layer in region.layers.values()) for region in regions)


def regions_of(make, shape=SHAPE, **options):
    return Integers(make, images(*shape), **options).regions()


def residual():
    x = relu(conv(places(), "one"), "one")
    y = relu(conv(x, "two"), "two")
    out(conv(relu(conv(y, "three") + x, "three"), "four"))


def test_a_residual_block_is_one_part():
    """It reads a quantizer, and yields sums."""
    (region,) = regions_of(residual)
    assert layers_of([region]) == [["four", "one", "three", "two"]]
    assert region.inputs == ("act_quant/AscendQuant",)
    (output,) = region.outputs
    assert region.layers[output].name == "four" and region.yields_sums(output)
    assert region.shapes["act_quant/AscendQuant:0"] == region.shapes[f"{output}:0"] == (8, 8, 6)
    ops = [node.op for node in region.nodes]
    assert ops.count("AscendQuant") == 3 and ops.count("AddV2") == 1 and "Conv2D" not in ops


def test_a_requested_output_inside_a_part_is_handed_over_as_values():
    (region,) = regions_of(residual, outputs=("out", "two_bias", "relu_three"))
    assert layers_of([region]) == [["four", "one", "three", "two"]]
    values = [name for name in region.outputs if not region.yields_sums(name)]
    assert "relu_three" in values and len(region.outputs) == 3


def test_a_path_that_leaves_and_comes_back_splits():
    """The part behind reads a value of the part in front."""

    def make():
        x = relu(conv(places(), "one"), "one")
        y = conv(tf.tanh(conv(x, "two")), "three")
        out(conv(tf.add(x, y), "four"))

    first, second = regions_of(make)
    assert layers_of([first, second]) == [["four", "three"], ["one", "two"]]
    (value,) = {*second.inputs} & {*first.outputs}
    assert value == "relu_one" and second.shapes["relu_one:0"] == (8, 8, 6)


def test_parts_beside_each_other():
    def make():
        x = places()
        branches = [tf.tanh(conv(conv(x, f"{name}_one"), f"{name}_two")) for name in ("left", "right")]
        out(*branches)

    assert layers_of(regions_of(make)) == [["left_one", "left_two"], ["right_one", "right_two"]]


def test_what_multiplies_pools_or_joins_stays_out():
    def make():
        x = relu(conv(places(), "one"), "one")
        pooled = conv(tf.nn.max_pool2d(x, 2, 2, "SAME"), "two")
        out(conv(tf.concat([pooled * 0.5, tf.tanh(pooled)], -1), "three"))

    regions = regions_of(make)
    assert layers_of(regions) == [["one"], ["three"], ["two"]]
    assert {node.op for region in regions for node in region.nodes} <= {"AscendDequant", "AscendQuant", "Relu"}


def test_what_is_added_to_a_constant_or_an_input_stays_out():
    def make():
        x = places()
        y = tf.add(conv(x, "one"), x)
        out(conv(tf.add(y, normal((6,), 3)), "two"))

    assert layers_of(regions_of(make)) == [["one"], ["two"]]


def test_what_is_repeated_along_an_axis_stays_out():
    def make():
        x = places()
        out(conv(tf.add(conv(x, "one"), conv(x, "two", padding="VALID", size=8)), "three"))

    assert layers_of(regions_of(make)) == [["one"], ["three"], ["two"]]


def test_matrices_stay_out():
    def make():
        x = tf1.placeholder(tf.float32, [None, 8], name="x")
        y = relu(tf.matmul(x, normal((8, 8), 1, 0.3), name="one"), "one")
        out(tf.matmul(y, normal((8, 8), 2, 0.3), name="two"))

    assert not regions_of(make, (2, 8))


@pytest.mark.parametrize("shape", [(None, None, None, 6), (None, 8, None, 6)])
def test_unknown_sizes_stay_out(shape):
    assert not regions_of(lambda: out(conv(places(shape), "one")))


def test_sizes_that_are_known_further_behind():
    def make():
        x = conv(places((None, None, None, 6)), "one")
        out(conv(tf.ensure_shape(tf.tanh(x), [None, 8, 8, 6]), "two"))

    assert layers_of(regions_of(make)) == [["two"]]


def edited(edit):
    """Returns the parts of two layers behind each other, of a graph that was edited."""

    def make():
        out(conv(relu(conv(places(), "one"), "one"), "two"))

    integers = Integers(make, images(*SHAPE))
    graph_def = tf1.GraphDef.FromString(integers.quantized.graph_def.SerializeToString())
    edit({node.name: node for node in graph_def.node}, graph_def)
    view = GraphView(graph_def, integers.quantized.shapes)
    layers, _ = find_kernel_layers(view, ["out"])
    return find_regions_that_need_not_pay(view, layers)


def find_regions_that_need_not_pay(view, layers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LiteRegion, "pays", lambda self: True)
        return find_regions(view, layers, ["out"])


def test_both_layers_are_one_part_as_long_as_nothing_is_edited():
    assert layers_of(edited(lambda nodes, graph_def: None)) == [["one", "two"]]


def test_what_waits_for_something_stays_out():
    def wait(nodes, graph_def):
        graph_def.node.add(name="waited_for", op="NoOp")
        (between,) = (node for node in nodes.values() if node.op == "AscendQuant" and "x" not in node.input)
        between.input.append("^waited_for")

    assert layers_of(edited(wait)) == [["one"], ["two"]]


def test_sixteen_bits_stay_out():
    def widen(nodes, graph_def):
        (between,) = (node for node in nodes.values() if node.op == "AscendQuant" and "x" not in node.input)
        between.attr["quant_bits"].i = 16

    assert layers_of(edited(widen)) == [["one"]]


@pytest.mark.parametrize("flow", ["branch", "loop"])
def test_what_may_run_more_than_once_or_never_stays_out(flow):
    def inside(x):
        return conv(relu(conv(x, "one"), "one"), "two")

    def make():
        x = tf.ensure_shape(tf.tanh(conv(places(), "before")), [None, 8, 8, 6])
        with control_flow_v1():
            if flow == "branch":
                y = tf.cond(tf.reduce_sum(x) > 0, lambda: inside(x), lambda: x)
            else:
                _, y = tf.while_loop(lambda step, _: step < 2, lambda step, y: (step + 1, inside(y)), [0, x])
        out(conv(tf.ensure_shape(y, [None, 8, 8, 6]), "behind"))

    found = layers_of(regions_of(make))
    assert ["before"] in found and not {"one", "two"} & {name for names in found for name in names}


def test_a_part_pays_if_it_quantizes_more_than_it_hands_over():
    def chain(count):
        def make():
            x = places()
            for index in range(count):
                x = relu(conv(x, f"layer{index}"), f"{index}")
            out(x)

        return make

    for count in (1, 8, 9, 12):
        (region,) = regions_of(chain(count))
        quantized = (count - 1) * 8 * 8 * 6
        assert region.pays() == (quantized >= 4 * 2 * 8 * 8 * 6)
    integers = Integers(chain(8), images(*SHAPE))
    assert not find_regions(integers.view, integers.layers, integers.outputs)
    integers = Integers(chain(9), images(*SHAPE))
    assert len(find_regions(integers.view, integers.layers, integers.outputs)) == 1


def test_every_part_can_run_as_a_whole():
    """No part reads what one behind it yields."""

    def make():
        x = places()
        for index in range(3):
            y = relu(conv(x, f"one{index}"), f"one{index}")
            z = conv(tf.tanh(conv(y, f"two{index}")), f"three{index}")
            x = tf.add(tf.add(y, z), conv(y, f"four{index}"))
        out(x)

    integers = Integers(make, images(*SHAPE))
    execution = integers.in_lite()
    list(GraphView(execution.graph_def).topological())
    assert len(execution.layers) == len(read_layers(integers.view)) == 12
