"""What a node makes of tensors that are divided by factors per channel, against what TensorFlow computes."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, nchw_on_cpu, normal, rng, run, tf1
from hypothesis import given
from hypothesis import strategies as st

from amct_tensorflow.graph.view import GraphView, static_shapes
from amct_tensorflow.ops import op_types_with
from amct_tensorflow.ops.channel_factors import OUTPUT, AsksForShape, Factors, divide, fits
from amct_tensorflow.ops.effects import ways_with_factors
from amct_tensorflow.ops.factors_of_moves import reshape_layout

raw = tf.raw_ops
ALONG = [0, 0]
PICTURE = (2, 4, 6, 4)


def placeholder(name, shape):
    return tf1.placeholder(tf.float32, shape, name=name)


def vector(seed=2):
    return normal((4,), seed)


def one(make, shape=PICTURE):
    """Returns what builds a node of one tensor."""
    return lambda: make(placeholder("x", shape))


def two(make, shape=PICTURE, other=PICTURE):
    """Returns what builds a node of two tensors."""
    return lambda: make(placeholder("x", shape), placeholder("y", other))


def normalized(op, data_format="NHWC"):
    shape = PICTURE if data_format == "NHWC" else (2, 4, 4, 6)
    return one(lambda x: op(x=x, scale=vector(1), offset=vector(2), mean=vector(3), variance=np.abs(vector(4)),
                            is_training=False, data_format=data_format, name="node"), shape)  # fmt: skip


def rooms(**axes):
    """Returns a layout of four axes, of which some are of a length above 1, and count channels in their order."""
    lengths = [axes.get(f"axis{index}", 1) for index in range(4)]
    return np.arange(np.prod(lengths)).reshape(lengths)


LAST = rooms(axis3=4)
HEADS = rooms(axis1=3, axis3=5)

# Per case: what builds the node, the place that is divided, how, and in how many ways the node can do with it.
CASES = {
    **{f"{op} of two {place}": (two(lambda x, y, op=op: getattr(raw, op)(x=x, y=y, name="node")), place, LAST, 1)
       for op in ("Add", "AddV2", "Sub", "Maximum", "Minimum") for place in (OUTPUT, 0, 1)},
    **{f"{op} with a constant": (one(lambda x, op=op: getattr(raw, op)(x=x, y=vector(), name="node")), 0, LAST, 1)
       for op in ("Add", "AddV2", "Sub", "Maximum", "Minimum", "Mul", "RealDiv")},
    "a constant of several rows": (one(lambda x: raw.Add(x=x, y=normal((6, 4), 2), name="node")), OUTPUT, LAST, 1),
    "a difference to a constant": (one(lambda x: raw.Sub(x=1.5, y=x, name="node")), OUTPUT, LAST, 1),
    "a maximum with 0": (one(lambda x: raw.Maximum(x=x, y=0.0, name="node")), 0, LAST, 1),
    "a broadcast sum": (two(lambda x, y: raw.Add(x=x, y=y, name="node"), PICTURE, (6, 4)), 1, LAST.reshape(1, 4), 1),
    "a sum of one channel": (two(lambda x, y: raw.Add(x=x, y=y, name="node"), PICTURE, (2, 4, 6, 1)), 0, LAST, 0),
    "a product behind it": (one(lambda x: raw.Mul(x=1 / 6, y=x, name="node")), OUTPUT, LAST, 1),
    "a product before it": (one(lambda x: raw.Mul(x=1 / 6, y=x, name="node")), 1, LAST, 1),
    "a quotient": (one(lambda x: raw.RealDiv(x=x, y=1.5, name="node")), OUTPUT, LAST, 1),
    "a constant by a tensor, behind": (one(lambda x: raw.RealDiv(x=1.5, y=x, name="node")), OUTPUT, LAST, 1),
    "a constant by a tensor, before": (one(lambda x: raw.RealDiv(x=1.5, y=x, name="node")), 1, LAST, 1),
    "one of two to divide": (two(lambda x, y: raw.RealDiv(x=x, y=y, name="node")), OUTPUT, LAST, 1),
    "the divisor of two": (two(lambda x, y: raw.RealDiv(x=x, y=y, name="node")), 1, LAST, 0),
    "a product of two behind": (two(lambda x, y: raw.Mul(x=x, y=y, name="node")), OUTPUT, LAST, 2),
    "a product of two before": (two(lambda x, y: raw.Mul(x=x, y=y, name="node")), 1, LAST, 1),
    "a statistic": (two(lambda x, y: raw.Mul(x=x, y=y, name="node"), PICTURE, (2, 4, 6, 1)), OUTPUT, LAST, 1),
    **{f"{op} {place}": (normalized(getattr(raw, op)), place, LAST, 1)
       for op in ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3") for place in (OUTPUT, 0)},
    "a BatchNorm with channels first": (normalized(raw.FusedBatchNormV3, "NCHW"), 0, rooms(axis1=4), 1),
    "BiasAdd": (one(lambda x: raw.BiasAdd(value=x, bias=vector(), name="node")), 0, LAST, 1),
    "BiasAddV1": (one(lambda x: raw.BiasAddV1(value=x, bias=vector(), name="node")), OUTPUT, LAST, 1),
    "a bias with channels first": (
        one(lambda x: raw.BiasAdd(value=x, bias=vector(), data_format="NCHW", name="node"), (2, 4, 4, 6)),
        OUTPUT, rooms(axis1=4), 1),
    **{op: (one(lambda x, op=op: getattr(raw, op)(features=x, name="node")), 0, LAST, 1)
       for op in ("Relu", "LeakyRelu")},
    **{op: (one(lambda x, op=op: getattr(raw, op)(x=x, name="node")), 0, LAST, 1) for op in ("Neg", "Abs")},
    **{op: (one(lambda x, op=op: getattr(raw, op)(input=x, name="node")), 0, LAST, 1)
       for op in ("Identity", "Snapshot", "StopGradient", "PreventGradient")},
    **{op: (one(lambda x, op=op: getattr(raw, op)(tensor=x, message="", name="node")), 0, LAST, 1)
       for op in ("CheckNumerics", "CheckNumericsV2")},
    "Print": (one(lambda x: raw.Print(input=x, data=[], name="node")), 0, LAST, 1),
    "EnsureShape": (one(lambda x: raw.EnsureShape(input=x, shape=PICTURE, name="node")), 0, LAST, 1),
    **{f"{op} {place}": (one(lambda x, op=op: getattr(raw, op)(input=x, axis=[1, -2], name="node")), place, layout, 1)
       for op in ("Max", "Mean", "Sum") for place, layout in ((0, LAST), (OUTPUT, LAST.reshape(1, 4)))},
    "a mean that keeps axes": (one(lambda x: raw.Mean(input=x, axis=[1], keep_dims=True, name="node")), 0, LAST, 1),
    "a mean over channels": (one(lambda x: raw.Mean(input=x, axis=[3], name="node")), 0, LAST, 0),
    "AvgPool": (one(lambda x: raw.AvgPool(value=x, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="SAME",
                                          name="node")), 0, LAST, 1),
    "MaxPool": (one(lambda x: raw.MaxPool(input=x, ksize=[1, 3, 3, 1], strides=[1, 2, 2, 1], padding="SAME",
                                          name="node")), OUTPUT, LAST, 1),
    "a window over channels": (one(lambda x: raw.MaxPool(input=x, ksize=[1, 1, 1, 2], strides=[1, 1, 1, 2],
                                                         padding="VALID", name="node")), 0, LAST, 0),
    **{op: (one(lambda x, op=op: getattr(raw, op)(images=x, size=[8, 7], half_pixel_centers=True, name="node")),
            0, LAST, 1) for op in ("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic")},
    "rows of a picture are channels": (one(lambda x: raw.ResizeBilinear(images=x, size=[8, 6], name="node")),
                                       0, rooms(axis1=4), 0),
    "Transpose": (one(lambda x: raw.Transpose(x=x, perm=[3, 0, 2, 1], name="node")), 0, rooms(axis1=4, axis3=4), 1),
    "Transpose back": (one(lambda x: raw.Transpose(x=x, perm=[3, 0, 2, 1], name="node")), OUTPUT,
                       rooms(axis0=4, axis3=4), 1),
    "Reshape to heads": (one(lambda x: raw.Reshape(tensor=x, shape=[2, 5, 3, 5], name="node"), (2, 5, 15)), 0,
                         np.arange(15).reshape(1, 1, 15), 1),
    "Reshape from heads": (one(lambda x: raw.Reshape(tensor=x, shape=[10, 15], name="node"), (2, 5, 3, 5)), OUTPUT,
                           np.arange(15).reshape(1, 15), 1),
    "ExpandDims": (one(lambda x: raw.ExpandDims(input=x, axis=-1, name="node"), (2, 4)), 0, LAST.reshape(1, 4), 1),
    "Squeeze": (one(lambda x: raw.Squeeze(input=x, axis=[1, 2], name="node"), (2, 1, 1, 4)), OUTPUT,
                LAST.reshape(1, 4), 1),
    "Pad": (one(lambda x: raw.Pad(input=x, paddings=[ALONG, [1, 2], [0, 1], ALONG], name="node")), OUTPUT, LAST, 1),
    "PadV2 with 0": (one(lambda x: raw.PadV2(input=x, paddings=[ALONG, [1, 2], ALONG, ALONG], constant_values=0.0,
                                             name="node")), 0, LAST, 1),
    "PadV2 with 1": (one(lambda x: raw.PadV2(input=x, paddings=[ALONG, [1, 2], ALONG, ALONG], constant_values=1.0,
                                             name="node")), 0, LAST, 0),
    "MirrorPad": (one(lambda x: raw.MirrorPad(input=x, paddings=[ALONG, [1, 2], ALONG, ALONG], mode="REFLECT",
                                              name="node")), 0, LAST, 1),
    "channels are padded": (one(lambda x: raw.Pad(input=x, paddings=[ALONG, ALONG, ALONG, [0, 1]], name="node")),
                            0, LAST, 0),
    "BatchToSpace": (one(lambda x: raw.BatchToSpace(input=x, crops=[ALONG] * 2, block_size=2, name="node"),
                         (4, 4, 6, 4)), 0, LAST, 1),
    "BatchToSpaceND": (one(lambda x: raw.BatchToSpaceND(input=x, block_shape=[2, 2], crops=[ALONG] * 2, name="node"),
                           (4, 4, 6, 4)), OUTPUT, LAST, 1),
    "SpaceToBatch": (one(lambda x: raw.SpaceToBatch(input=x, paddings=[ALONG] * 2, block_size=2, name="node")),
                     0, LAST, 1),
    "SpaceToBatchND": (one(lambda x: raw.SpaceToBatchND(input=x, block_shape=[2], paddings=[ALONG], name="node")),
                       0, LAST, 1),
    "channels are dealt out": (one(lambda x: raw.SpaceToBatchND(input=x, block_shape=[2], paddings=[ALONG],
                                                                name="node")), 0, rooms(axis1=4), 0),
    "StridedSlice": (one(lambda x: raw.StridedSlice(input=x, begin=[0, 1], end=[0, 2], strides=[1, 1], begin_mask=1,
                                                    end_mask=1, shrink_axis_mask=2, name="node")), 0, LAST, 1),
    "StridedSlice back": (one(lambda x: raw.StridedSlice(input=x, begin=[0, 1], end=[0, 2], strides=[1, 1],
                                                         begin_mask=1, end_mask=1, shrink_axis_mask=2, name="node")),
                          OUTPUT, LAST.reshape(1, 1, 4), 2),
    "some channels": (one(lambda x: raw.StridedSlice(input=x, begin=[0, 0, 0, 1], end=[2, 4, 6, 4], strides=[1] * 4,
                                                     name="node")), 0, LAST, 1),
    "some channels, behind": (one(lambda x: raw.StridedSlice(input=x, begin=[0, 0, 0, 1], end=[2, 4, 6, 4],
                                                             strides=[1] * 4, name="node")), OUTPUT, rooms(axis3=3), 1),
    "one of three": (one(lambda x: raw.StridedSlice(input=x, begin=[0, 0, 2], end=[0, 0, 3], strides=[1] * 3,
                                                    begin_mask=3, end_mask=3, shrink_axis_mask=4, name="node"),
                         (2, 4, 3, 5)), OUTPUT, np.arange(5).reshape(1, 1, 5), 2),
    "Slice": (one(lambda x: raw.Slice(input=x, begin=[0, 1, 1, 0], size=[-1, 2, 3, 4], name="node")), 0, LAST, 1),
    "Slice of channels": (one(lambda x: raw.Slice(input=x, begin=[0, 0, 0, 1], size=[-1, 4, 6, 2], name="node")),
                          OUTPUT, rooms(axis3=2), 1),
    **{f"{op} {place}": (one(make, (2, 4, 6)), place, layout, count) for op, make in {
        "Split": lambda x: raw.Split(axis=2, value=x, num_split=3, name="node"),
        "SplitV": lambda x: raw.SplitV(value=x, size_splits=[2, -1, 2], axis=-1, num_split=3, name="node"),
    }.items() for place, layout, count in ((OUTPUT - 1, np.arange(2).reshape(1, 1, 2), 1),
                                           (1 if op == "Split" else 0, np.arange(6).reshape(1, 1, 6), 1),
                                           (OUTPUT, np.arange(4).reshape(1, 4, 1), 2))},
    "Unpack": (one(lambda x: raw.Unpack(value=x, num=3, axis=1, name="node"), (2, 3, 4, 5)), OUTPUT - 2,
               np.arange(5).reshape(1, 1, 5), 2),
    "Unpack before": (one(lambda x: raw.Unpack(value=x, num=3, axis=1, name="node"), (2, 3, 4, 5)), 0,
                      rooms(axis1=3, axis3=5), 1),
    "ConcatV2": (two(lambda x, y: raw.ConcatV2(values=[x, y, normal((2, 1, 6, 4))], axis=1, name="node")),
                 1, LAST, 1),
    "channels side by side": (
        two(lambda x, y: raw.ConcatV2(values=[x, y, normal((2, 4, 6, 1))], axis=-1, name="node")), 1, LAST, 1),
    "channels side by side, behind": (
        two(lambda x, y: raw.ConcatV2(values=[x, normal((2, 4, 6, 1)), y], axis=-1, name="node")),
        OUTPUT, rooms(axis3=9), 1),
    "MatMul": (two(lambda x, y: raw.MatMul(a=x, b=y, transpose_b=True, name="node"), (3, 5), (4, 5)),
               OUTPUT, np.arange(4).reshape(1, 4), 1),
    "rows of a MatMul": (two(lambda x, y: raw.MatMul(a=x, b=y, transpose_b=True, name="node"), (4, 5), (3, 5)),
                         0, np.arange(4).reshape(4, 1), 1),
    "values of attention": (two(lambda x, y: raw.BatchMatMulV2(x=x, y=y, name="node"), (2, 3, 6, 7), (2, 3, 7, 5)),
                            OUTPUT, HEADS, 1),
    "values of attention, before": (
        two(lambda x, y: raw.BatchMatMulV2(x=x, y=y, name="node"), (2, 3, 6, 7), (2, 3, 7, 5)), 1, HEADS, 1),
    "values that are transposed": (
        two(lambda x, y: raw.BatchMatMul(x=x, y=y, adj_y=True, name="node"), (2, 3, 6, 7), (2, 3, 5, 7)),
        OUTPUT, HEADS, 1),
    "values that all heads share": (
        two(lambda x, y: raw.BatchMatMulV2(x=x, y=y, name="node"), (2, 3, 6, 7), (7, 5)), OUTPUT, HEADS, 0),
    "a matrix per head": (one(lambda x: raw.BatchMatMulV2(x=x, y=normal((3, 5, 4)), name="node"), (2, 3, 6, 5)),
                          0, HEADS, 1),
    "a matrix per head, behind": (one(lambda x: raw.BatchMatMulV2(x=x, y=normal((3, 7, 5)), name="node"),
                                      (2, 3, 6, 7)), OUTPUT, HEADS, 1),
    "summed over": (two(lambda x, y: raw.BatchMatMulV2(x=x, y=y, name="node"), (2, 3, 6, 5), (2, 3, 5, 4)),
                    0, rooms(axis3=5), 0),
    "Einsum": (two(lambda x, y: raw.Einsum(inputs=[x, y], equation="acbe,aecd->abcd", name="node"),
                   (2, 3, 6, 7), (2, 7, 3, 5)), OUTPUT, rooms(axis2=3, axis3=5), 1),
    "Einsum before": (two(lambda x, y: raw.Einsum(inputs=[x, y], equation="acbe,aecd->abcd", name="node"),
                          (2, 3, 6, 7), (2, 7, 3, 5)), 1, rooms(axis2=3, axis3=5), 1),
    "Einsum with a constant": (one(lambda x: raw.Einsum(inputs=[x, normal((3, 5, 4))], equation="abcd,cde->abe",
                                                        name="node"), (2, 6, 3, 5)), 0, rooms(axis2=3, axis3=5), 1),
}  # fmt: skip


def view_of(graph_def):
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    return GraphView(graph_def, static_shapes(graph))


def outputs_of(graph_def, feeds):
    """Computes the outputs of the node, but for the statistics that a BatchNorm hands on to nobody."""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        node = graph.get_operation_by_name("node")
        # TensorFlow leaves a node that is fetched as it is, even if it has no kernel for its data format.
        fetched = [tf.identity(output) for output in node.outputs[: 1 if "Norm" in node.type else None]]
    with tf1.Session(graph=graph, config=nchw_on_cpu()) as session:
        return session.run(fetched, {f"{name}:0": value for name, value in feeds.items()})


def with_constant(graph_def, node, index, value):
    """Returns a graph in which a node reads another constant."""
    changed = tf1.GraphDef.FromString(graph_def.SerializeToString())
    changed.node.add(name=f"other{index}", op="Const", attr={
        "dtype": tf1.AttrValue(type=tf.float32.as_datatype_enum),
        "value": tf1.AttrValue(tensor=tf.make_tensor_proto(value.astype(np.float32))),
    })  # fmt: skip
    next(each for each in changed.node if each.name == node).input[index] = f"other{index}"
    return changed


@pytest.mark.parametrize("case", CASES)
def test_a_node_computes_the_same(case):
    make, place, layout, count = CASES[case]
    graph_def = build(make)
    view = view_of(graph_def)
    node = view.nodes["node"]
    ways = ways_with_factors(view, node, place, layout)
    assert len(ways) == count
    feeds = {name: normal(view.shape(name), seed) for seed, name in enumerate(("x", "y")) if name in view.nodes}
    expected = outputs_of(graph_def, feeds)
    factors = 2.0 ** rng(7).uniform(-2, 2, layout.max() + 1)
    for way in ways:
        assert place in way.divided
        divided, changed = dict(feeds), graph_def
        for index, own in way.divided.items():
            name = f"node:{OUTPUT - index}" if index <= OUTPUT else node.input[index]
            assert fits(view.shape(name), own)
            if index > OUTPUT:
                divided[name] = divide(feeds[name], factors, own).astype(np.float32)
        for index, (own, exponent) in way.constants.items():
            changed = with_constant(
                changed, "node", index, divide(view.constant(node.input[index]), factors, own, exponent)
            )
        for port, (before, after) in enumerate(zip(expected, outputs_of(changed, divided), strict=True)):
            own = way.divided.get(OUTPUT - port)
            restored = after if own is None else divide(after, factors, own, 1)
            np.testing.assert_allclose(restored, before, rtol=1e-5, atol=1e-5)


def test_every_op_type_that_does_is_tried():
    tried = {view_of(build(make)).nodes["node"].op for make, *_ in CASES.values()}
    assert op_types_with(Factors).keys() == tried


@pytest.mark.parametrize("op", op_types_with(AsksForShape))
def test_what_asks_for_shapes_does_not_look_at_values(op):
    def make():
        x = placeholder("x", PICTURE)
        getattr(raw, op)(**{"x" if op.endswith("Like") else "input": [x] if op == "ShapeN" else x}, name="node")

    one, other = (run(build(make), ["node"], {"x": normal(PICTURE, seed)})[0] for seed in range(2))
    np.testing.assert_array_equal(one, other)


@st.composite
def reshapings(draw):
    """A shape, which of its axes count channels, and another shape of as many values."""
    shape = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4))
    counted = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    left, other = int(np.prod(shape)), []
    for _ in range(draw(st.integers(0, 3))):
        other.append(draw(st.sampled_from([size for size in range(1, left + 1) if left % size == 0])))
        left //= other[-1]
    return tuple(shape), tuple(counted), tuple(draw(st.permutations([*other, left])))


@given(reshapings())
def test_reshaped_layouts_name_the_channels_of_reshaped_values(example):
    old, counted, new = example
    lengths = [length if counts else 1 for length, counts in zip(old, counted, strict=True)]
    layout = np.arange(np.prod(lengths, dtype=int)).reshape(lengths)
    moved = reshape_layout(layout, old, new)
    assert fits(new, moved)
    np.testing.assert_array_equal(np.broadcast_to(moved, new), np.broadcast_to(layout, old).reshape(new))


@pytest.mark.parametrize(
    ("old", "axis", "new", "moved"),
    [
        ((None, None, 12), 2, (None, 12), (1, 12)),
        ((None, None, 12), 2, (None, None, 3, 4), (1, 1, 3, 4)),
        ((None, 1, 1, 12), 3, (None, 12), (1, 12)),
        ((None, 12), 1, (None, 1, 1, 12), (1, 1, 1, 12)),
        ((None, 12, None), 1, (None, None), None),
        ((None, None), 1, (None, 3), None),
        ((12, None), 0, (12, None, 1), None),
    ],
)
def test_lengths_that_are_not_known(old, axis, new, moved):
    """Only what stands behind them can be told."""
    lengths = [12 if index == axis else 1 for index in range(len(old))]
    found = reshape_layout(np.arange(12).reshape(lengths), old, new)
    assert (None if found is None else found.shape) == moved
