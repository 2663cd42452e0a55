"""From which tensors of the caller's graph the inputs of all layers follow."""

import pytest
import tensorflow as tf
from graphs import build, build_v1, normal, tf1

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.calibration.replay_sources import readers_of, replay_sources


def sources(make, outputs=(), build=build):
    model = FloatModel.of_graph(import_graph(build(make), "test"), ["out"])
    fused = model.fuse()
    inputs = {name: [fused.input_of(name)] for name in fused.layers}
    same = fused.original_values() & model.original.nodes.keys()
    return sorted(replay_sources(fused.view, same, inputs, outputs))


def placeholder(name="x", shape=(None, 5)):
    return tf1.placeholder(tf.float32, shape, name=name)


def dense(x, name):
    return tf.matmul(x, tf.constant(normal((5, 5), 1)), name=name)


def test_the_input_of_the_first_layer_is_enough():
    """It takes less memory than what it is made of."""
    assert sources(lambda: tf.identity(dense(tf.sin(placeholder()), "layer"), name="out")) == ["Sin:0"]


def test_a_layer_right_behind_another_follows_from_it():
    """What quantization does to the first reaches the second."""
    assert sources(lambda: tf.identity(dense(dense(placeholder(), "one"), "two"), name="out"), ["out"]) == ["x:0"]


def test_what_else_layers_and_outputs_depend_on():
    def make():
        y = dense(placeholder(), "one") * placeholder("gain", [])
        tf.add(dense(y, "two"), placeholder("offset", []), name="out")

    assert sources(make) == ["gain:0", "x:0"]
    assert sources(make, ["out"]) == ["gain:0", "offset:0", "x:0"]


def test_what_need_not_be_fed_may_be():
    def make():
        gain = tf1.placeholder_with_default(tf.constant(1.0), [], name="gain")
        tf.identity(dense(dense(placeholder(), "one") * gain, "two"), name="out")

    assert sources(make) == ["gain:0", "x:0"]


def test_other_outputs_of_a_node():
    def make():
        left, right = tf.split(placeholder(shape=(None, 10)), 2, 1)
        tf.add(dense(left, "one"), dense(right, "two"), name="out")

    assert sources(make) == ["split:0", "split:1"]


def test_iterators_and_what_is_random():
    def make():
        dataset = tf.data.Dataset.from_tensors((normal((2, 5), 2), normal((2, 5), 3)))
        images, others = tf1.data.make_one_shot_iterator(dataset).get_next()
        noise = tf.random.normal([5], seed=1)
        tf.identity(dense(dense(images, "one") + others * noise, "two"), name="out")

    found = sources(make)
    assert [name.rpartition("/")[2] for name in found] == [
        "IteratorGetNext:0",
        "IteratorGetNext:1",
        "RandomStandardNormal:0",
    ]


def test_what_is_looked_up_in_a_table():
    """The table itself belongs to the caller's session."""

    def make():
        table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1], [2.0]), 0.0)
        looked_up = table.lookup(tf1.placeholder(tf.int32, [None, 1], name="keys"))
        tf.identity(dense(dense(placeholder(), "one") + looked_up, "two"), name="out")

    (looked_up, x) = sources(make)
    assert "LookupTableFindV2" in looked_up and x == "x:0"


def test_a_loop_is_computed_again_with_the_tensor_arrays_that_it_fills():
    def make():
        steps = tf.transpose(tf.nn.relu(dense(placeholder(shape=(None, 3, 5)), "one")), [1, 0, 2])
        array = tf.TensorArray(tf.float32, 3).unstack(steps)
        state = [0, tf.zeros([tf.shape(steps)[1], 5])]
        shapes = [tf.TensorShape([]), tf.TensorShape([None, 5])]
        _, y = tf1.while_loop(lambda i, _: i < 3, lambda i, h: (i + 1, h + array.read(i)), state, shapes)
        tf.identity(dense(y, "two"), name="out")

    assert sources(make, ["out"], build_v1) == ["x:0"]


def test_what_is_random_inside_a_loop_or_branch_is_kept_where_it_leaves_it():
    """A tensor of a branch that is not taken would never arrive, one of a loop in every round."""

    def dropout():
        y = dense(placeholder(), "one")
        flag = tf1.placeholder(tf.bool, [], name="flag")
        tf.identity(dense(tf1.cond(flag, lambda: tf.nn.dropout(y, 0.5), lambda: y), "two"), name="out")

    def loop():
        y = dense(placeholder(), "one")
        _, y = tf1.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, v + tf.random.normal([5])), [0, y])
        tf.identity(dense(y, "two"), name="out")

    assert sources(dropout, build=build_v1) == ["cond/Merge:0", "x:0"]
    assert sources(loop, build=build_v1) == ["while/Exit_1:0", "x:0"]


@pytest.mark.parametrize("write", [build, build_v1], ids=["functions", "Enter and Exit"])
def test_lists_of_random_tensors_are_kept_where_they_are_stacked(write):
    """No array holds a list of tensors, nor does the number that stands for a TensorArray."""

    def make():
        y = dense(placeholder(), "one")
        array = tf.TensorArray(tf.float32, 3, element_shape=[None, 5])

        def body(i, a):
            return i + 1, a.write(i, y + tf.random.normal([5]))

        _, array = tf.while_loop(lambda i, _: i < 3, body, [0, array])
        tf.identity(dense(tf.reduce_sum(array.stack(), 0), "two"), name="out")

    (stacked, x) = sources(make, build=write)
    assert stacked.endswith(("/TensorListStack:0", "/TensorArrayGatherV3:0")) and x == "x:0"


@pytest.mark.parametrize("write", [build, build_v1], ids=["functions", "Enter and Exit"])
def test_what_has_an_effect_and_yields_nothing_does_not_make_a_loop_random(write):
    def make():
        y = dense(placeholder(), "one")

        def body(i, v):
            with tf.control_dependencies([tf.no_op(), tf.debugging.Assert(i < 3, [i])]):
                return i + 1, tf.tanh(v)

        tf.identity(dense(tf.while_loop(lambda i, _: i < 3, body, [0, y])[1], "two"), name="out")

    graph_def = write(make)
    assert write is build_v1 or "While" in {node.op for node in graph_def.node}  # the one with a state
    assert sources(make, ["out"], write) == ["x:0"]


def test_a_branch_without_data_of_its_own_is_computed_again():
    def make():
        y = dense(placeholder(), "one")
        flag = tf1.placeholder(tf.bool, [], name="flag")
        tf.identity(dense(tf1.cond(flag, lambda: tf.sin(y), lambda: y + tf.constant(1.0)), "two"), name="out")

    assert sources(make, build=build_v1) == ["flag:0", "x:0"]


def test_data_from_inside_a_function_is_refused():
    def make():
        noisy = tf.function(lambda v: v + tf.random.normal([5]), autograph=False)
        tf.identity(dense(noisy(dense(placeholder(), "one")), "two"), name="out")

    with pytest.raises(ModelError, match=r"\(RandomStandardNormal\) yields data of its own inside a function"):
        sources(make)


def test_the_readers_of_one_output_of_a_node():
    def make():
        left, right = tf.split(placeholder(shape=(None, 10)), 2, 1, name="split")
        tf.add(tf.sin(left, name="sin"), tf.cos(right, name="cos"), name="out")
        tf.exp(left, name="not_needed")

    view = GraphView(build(make))
    assert readers_of(view, "split:0", {"sin", "cos", "out"}) == ["sin"]
    assert readers_of(view, "split:1", {"sin", "cos", "out"}) == ["cos"]
