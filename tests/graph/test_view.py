"""Reading models: what a damaged or unsuitable file gets."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, build_v1, control_flow_v1, normal, small_net, tf1

from amct_tensorflow.errors import ModelError, ModelNotFoundError
from amct_tensorflow.graph.nodes import make_node
from amct_tensorflow.graph.view import GraphView, parse_tensor_name, static_shapes
from amct_tensorflow.model.fusion import fuse
from amct_tensorflow.model.layers import find_layers, why_not_quantizable
from amct_tensorflow.model.model_file import check_not_quantized, check_outputs, import_graph, read_model


def test_reads_a_model(tmp_path):
    graph_def = build(small_net)
    (tmp_path / "net.pb").write_bytes(graph_def.SerializeToString())
    assert read_model(tmp_path / "net.pb").graph_def == graph_def


def test_shapes_as_tensorflow_knows_them():
    with tf.Graph().as_default() as graph:
        image = tf1.placeholder(tf.float32, [None, 4, 6], name="image")
        tf.split(image, 2, axis=2, name="halves")
        tf1.placeholder(tf.float32, name="anything")
    view = GraphView(graph.as_graph_def(), static_shapes(graph))
    assert view.shape("image") == (None, 4, 6)
    assert view.shape("halves:1") == (None, 4, 3)
    assert view.shape("halves/split_dim") == ()
    assert view.shape("anything") is None
    assert GraphView(graph.as_graph_def()).shape("image") is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"no model at all, just text\n" * 50, "GraphDef"),
        (b"\x00" * 1000, "GraphDef"),
        (b'node {\n  name: "x"\n}\n', "GraphDef"),
    ],
)
def test_a_file_that_is_no_model(tmp_path, content, words):
    path = tmp_path / "net.pb"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=words) as caught:
        read_model(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.9, 0.999])
def test_a_truncated_model(tmp_path, share):
    data = build(small_net).SerializeToString()
    path = tmp_path / "net.pb"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError):
        read_model(path)


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(ModelNotFoundError, match="does not exist") as caught:
        read_model(tmp_path / "net.pb")
    assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(ModelError, match="cannot be read"):
        read_model(tmp_path)


def test_a_node_cut_off_from_its_input():
    graph_def = tf1.GraphDef()
    graph_def.node.extend([make_node("relu", "Relu", ["gone"], T=tf.float32)])
    with pytest.raises(ModelError, match="'gone'"):
        GraphView(graph_def)


def test_two_nodes_of_one_name():
    graph_def = tf1.GraphDef()
    graph_def.node.extend([make_node("x", "NoOp", ()), make_node("x", "NoOp", ())])
    with pytest.raises(ModelError, match="two nodes named 'x'"):
        GraphView(graph_def)


def test_a_cycle_is_noticed_and_a_loop_is_none():
    graph_def = tf1.GraphDef()
    graph_def.node.extend([make_node("a", "Relu", ["b"], T=tf.float32), make_node("b", "Relu", ["a"], T=tf.float32)])
    with pytest.raises(ModelError, match="cycle"):
        list(GraphView(graph_def).topological())
    view = GraphView(build_v1(lambda: tf1.while_loop(lambda i: i < 3, lambda i: i + 1, [tf.constant(0)])))
    assert len(list(view.topological())) == len(view.nodes)


def layers_around_a_loop():
    """What the first layer yields is an invariant of the loop: no value of a round starts from it."""
    x = tf1.placeholder(tf.float32, [4, 5], name="x")
    y = tf.matmul(x, normal((5, 5), 1), name="first")
    state = [0, tf.zeros([4, 5], name="start"), tf.zeros([4, 5])]
    _, seen, _ = tf1.while_loop(lambda i, *_: i < 3, lambda i, a, b: (i + 1, b, a + tf.tanh(y, name="inner")), state)
    tf.matmul(seen, normal((5, 3), 2), name="second")


def test_what_a_loop_yields_comes_after_all_that_it_reads():
    view = GraphView(build_v1(layers_around_a_loop))
    order = [node.name for node in view.topological()]
    assert order.index("first") < order.index("while/Exit_1") < order.index("second")
    assert all(order.index(name) < order.index("while/Exit_1") for name in view.loop_nodes)
    assert list(fuse(view).layers) == ["first", "second"]


def test_the_nodes_of_loops_and_branches():
    def make():
        x = tf1.placeholder(tf.float32, [3], name="x")

        def outer(i, v):
            _, v = tf1.while_loop(lambda j, _: j < 2, lambda j, v: (j + 1, tf.sin(v, name="innermost")), [0, v])
            v = tf.cos(v, name="behind_the_inner_loop")
            return i + 1, tf1.cond(v[0] > 0, lambda: tf.exp(v, name="in_a_branch"), lambda: v)

        _, y = tf1.while_loop(lambda i, _: i < 2, outer, [0, x])
        flag = tf1.placeholder(tf.bool, [], name="flag")

        def taken():
            return tf.tan(tf1.cond(y[0] > 1, lambda: tf.sinh(y, name="deep"), lambda: y), name="behind_the_deep_one")

        z = tf1.cond(flag, taken, lambda: tf.constant([1.0, 2.0, 3.0], name="constant"))
        tf.identity(tf1.cond(flag, lambda: z, lambda: tf.cosh(z, name="second")), name="out")

    view = GraphView(build_v1(make))
    named = {
        name.rpartition("/")[2]: (name in view.loop_nodes, name in view.branch_nodes)
        for name in view.nodes
        if name.startswith(("x", "flag", "out")) or "_" in name or name.endswith(("most", "deep", "constant", "second"))
    }
    assert named["innermost"] == named["behind_the_inner_loop"] == (True, False)
    assert named["in_a_branch"] == (True, True)
    assert named["deep"] == named["behind_the_deep_one"] == named["constant"] == named["second"] == (False, True)
    assert named["x"] == named["flag"] == named["out"] == (False, False)


def test_identity_chains_end_at_the_constant():
    graph_def = tf1.GraphDef()
    with tf.Graph().as_default() as graph:
        value = tf.constant([1.0, 2.0], name="w")
        for index in range(5):
            value = tf.identity(value, name=f"i{index}")
    graph_def = graph.as_graph_def()
    np.testing.assert_array_equal(GraphView(graph_def).constant("i4"), [1.0, 2.0])


def test_unknown_op_is_our_error():
    graph_def = tf1.GraphDef()
    graph_def.node.extend([make_node("x", "NoSuchOperation", ())])
    with pytest.raises(ModelError, match=r"net\.pb"):
        import_graph(graph_def, "net.pb")


def test_importing_leaves_the_graph_as_it_is():
    """TensorFlow adds attributes that are left out because they have their default, as exporters may do."""
    graph_def = build(small_net)
    del next(node for node in graph_def.node if node.op == "Conv2D").attr["dilations"]
    before = graph_def.SerializeToString(deterministic=True)
    import_graph(graph_def, "net.pb")
    assert graph_def.SerializeToString(deterministic=True) == before


def test_output_names():
    view = GraphView(build(small_net))
    check_outputs(view, ["probabilities"], "net.pb")
    with pytest.raises(ModelError, match="Did you mean 'probabilities'"):
        check_outputs(view, ["probabilitis"], "net.pb")
    with pytest.raises(ModelError, match="give the operator 'probabilities'"):
        check_outputs(view, ["probabilities:0"], "net.pb")


def test_the_name_of_a_scope_as_an_output():
    """The functions of TensorFlow 2 give what they yield the name of an op inside a scope of the name asked for."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 3], name="x")
        tf.einsum("ni,ij->nj", x, normal((3, 2)), name="scores")

    with pytest.raises(ModelError, match="Did you mean 'scores/Einsum'"):
        check_outputs(GraphView(build(make)), ["scores"], "net.pb")


def test_a_quantized_model_is_refused():
    graph_def = tf1.GraphDef()
    graph_def.node.extend([make_node("q", "AscendQuant", ())])
    with pytest.raises(ModelError, match="quantized already"):
        check_not_quantized(GraphView(graph_def), "net.pb")
    graph_def = build(small_net)
    graph_def.library.function.add().signature.name = "AscendQuant"
    with pytest.raises(ModelError, match="function library"):
        check_not_quantized(GraphView(graph_def), "net.pb")


@pytest.mark.parametrize(("text", "expected"), [("a", ("a", 0)), ("a:1", ("a", 1)), ("^a/b", ("a/b", -1))])
def test_tensor_names(text, expected):
    assert parse_tensor_name(text) == expected


def names(make):
    view = GraphView(build(make))
    return [node.name for node in view.graph_def.node if why_not_quantizable(view, node) is None]


def test_restrictions_of_the_op_types():
    def make():
        x = tf1.placeholder(tf.float32, [2, 8, 8, 4], name="x")
        w = normal((3, 3, 4, 4), 1)
        tf.nn.conv2d(x, w, 1, "SAME", name="conv")
        tf.nn.conv2d(x, w, 1, "SAME", dilations=2, name="dilated")
        tf.nn.conv2d(x, tf1.placeholder(tf.float32, w.shape), 1, "SAME", name="fed_weights")
        tf.nn.conv2d(tf.cast(x, tf.float16), w.astype(np.float16), 1, "SAME", name="half")
        tf.raw_ops.Conv2DBackpropInput(
            input_sizes=[2, 8, 8, 4], filter=w, out_backprop=x, strides=[1, 1, 1, 1], padding="SAME", name="transposed"
        )
        tf.raw_ops.Conv2DBackpropInput(
            input_sizes=[2, 8, 8, 4], filter=w, out_backprop=x, strides=[1, 1, 1, 1], padding="SAME",
            dilations=[1, 2, 2, 1], name="transposed_dilated",
        )  # fmt: skip
        tf.nn.max_pool2d(x, 2, 2, "SAME", name="max_pool")
        tf.nn.avg_pool2d(x, 2, 2, "SAME", name="avg_pool")
        flat = tf.reshape(x, [2, 256])
        tf.matmul(flat, normal((256, 5), 2), name="fc")
        tf.matmul(flat, normal((5, 256), 3), transpose_b=True, name="fc_transposed")
        tf.matmul(flat, tf.reshape(x, [256, 2]), name="fc_of_two")

    assert names(make) == ["conv", "dilated", "transposed", "avg_pool", "fc", "fc_of_two"]


def test_loop_bodies_are_left_alone():
    def make():
        x = tf1.placeholder(tf.float32, [2, 4, 4, 3], name="x")
        y = tf1.while_loop(lambda v: tf.reduce_sum(v) < 9, lambda v: tf.nn.avg_pool2d(v, 2, 1, "SAME") + 1, [x])
        tf.nn.avg_pool2d(y, 2, 1, "SAME", name="after")

    with control_flow_v1():
        assert names(make) == ["after"]


def test_branches_that_nothing_decides_are_left_alone():
    """A calibration may take another branch than whoever uses the model."""

    def make():
        x = tf1.placeholder(tf.float32, [2, 4, 4, 3], name="x")
        flag = tf1.placeholder(tf.bool, [], name="flag")
        y = tf1.cond(flag, lambda: tf.nn.avg_pool2d(x, 2, 1, "SAME"), lambda: x)
        tf.nn.avg_pool2d(y, 2, 1, "SAME", name="after")

    with control_flow_v1():
        assert names(make) == ["after"]


def in_branch(x, condition, name):
    tf1.disable_control_flow_v2()
    return tf1.cond(condition, lambda: tf.nn.avg_pool2d(tf.nn.avg_pool2d(x, 2, 1, "SAME"), 2, 1, "SAME"), lambda: x,
                    name=name)  # fmt: skip


def test_branches_that_a_run_decides_are_left_alone():
    def make():
        x = tf1.placeholder(tf.float32, [2, 4, 4, 3], name="x")
        is_dark = tf.reduce_sum(x) < 9
        y = in_branch(tf.nn.avg_pool2d(x, 2, 1, "SAME", name="before"), is_dark, "cond")
        y = tf1.cond(is_dark, lambda: tf.nn.avg_pool2d(in_branch(y, is_dark, "inner"), 2, 1, "SAME"), lambda: y)
        tf.nn.avg_pool2d(y, 2, 1, "SAME", name="after")

    assert names(make) == ["before", "after"]


def test_a_filter_as_large_as_its_input_is_fully_connected():
    with tf.Graph().as_default() as graph:
        x = tf1.placeholder(tf.float32, [None, 7, 7, 4])
        tf.nn.conv2d(x, normal((7, 7, 4, 3), 1), 1, "VALID", name="whole")
        tf.nn.conv2d(x, normal((1, 1, 4, 3), 1), 1, "VALID", name="point")
        tf.nn.conv2d(x, normal((7, 7, 4, 3), 1), 1, "SAME", name="padded")
        tf.nn.conv2d(x, normal((7, 7, 4, 3), 1), 7, "SAME", name="as_far_as_wide")
        tf.nn.conv2d(x, normal((7, 7, 4, 3), 1), 4, "SAME", name="half_as_far")
        tf.nn.conv2d(x, normal((7, 7, 4, 3), 1), 1, [[0, 0], [0, 0], [0, 0], [0, 0]], name="explicit_0")
        tf.nn.conv2d(x, normal((7, 7, 4, 3), 1), 7, [[0, 0], [0, 0], [1, 6], [0, 0]], name="explicit")
        channels_first = tf1.placeholder(tf.float32, [None, 4, 7, 7])
        tf.nn.conv2d(channels_first, normal((7, 7, 4, 3), 1), 1, "SAME", data_format="NCHW", name="first")
        tf.nn.conv2d(channels_first, normal((7, 7, 4, 3), 1), 1, "VALID", data_format="NCHW", name="first_whole")
        one = tf1.placeholder(tf.float32, [None, 1, 1, 4])
        tf.nn.conv2d(one, normal((1, 1, 4, 3), 1), 1, "SAME", name="pooled")
        unknown = tf1.placeholder(tf.float32, [None, None, None, 4])
        tf.nn.conv2d(unknown, normal((1, 1, 4, 3), 1), 1, "VALID", name="unknown")
    layers = find_layers(GraphView(graph.as_graph_def(), static_shapes(graph)))
    assert {layer.name: layer.channel_wise for layer in layers} == {
        "whole": False, "point": True, "padded": True, "as_far_as_wide": False, "half_as_far": True,
        "explicit_0": False, "explicit": True, "first": True, "first_whole": False,
        "pooled": False, "unknown": True,
    }  # fmt: skip
