"""SavedModels that TensorFlow cannot load as a whole, of which the signature needs only what it can."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import control_flow_v1, normal, tf1
from saved_models import IMAGES, compute
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from amct_tensorflow.errors import ModelError
from amct_tensorflow.model.loading.load import load_frozen


def patch(folder, change):
    """Changes the only graph of a SavedModel."""
    file = folder / "saved_model.pb"
    model = SavedModel.FromString(file.read_bytes())
    change(model.meta_graphs[0])
    file.write_bytes(model.SerializeToString())


def check(folder, expected, feeds=None):
    """Checks that each output has its value, and that freezing again gives the same bytes; returns what was frozen."""
    frozen = load_frozen(folder)
    feeds = feeds or dict.fromkeys(frozen.inputs, IMAGES)
    assert sorted(frozen.outputs.values()) == sorted(expected)
    for operator, label in frozen.outputs.items():
        np.testing.assert_allclose(compute(frozen, operator, feeds), expected[label], rtol=1e-4, atol=1e-5)
    assert load_frozen(folder).data == frozen.data
    return frozen


# ------------------------------------------------------------------------------------------- TensorFlow 1


class Session1:
    """A graph of TensorFlow 1 with one convolution, to which more can be added before it is saved."""

    def __init__(self, folder, **variable):
        self.folder = folder
        self.images = tf1.placeholder(tf.float32, [None, 8, 8, 4], name="input")
        weights = tf1.get_variable("weights", [3, 3, 4, 2], initializer=tf1.glorot_normal_initializer(3), **variable)
        self.weights = tf.convert_to_tensor(weights)
        self.features = tf.nn.relu(tf.nn.conv2d(self.images, self.weights, 1, "SAME"), name="features")

    def signature(self, **outputs):
        return tf1.saved_model.predict_signature_def({"images": self.images}, outputs or {"features": self.features})

    def save(self, signatures=None, tags=("serve",), more_tags=(), **settings):
        """Saves the graph; returns what it computes."""
        signatures = signatures or {"serving_default": self.signature()}
        with tf1.Session() as session:
            session.run([tf1.global_variables_initializer(), tf1.tables_initializer()])
            builder = tf1.saved_model.Builder(str(self.folder))
            builder.add_meta_graph_and_variables(session, list(tags), signatures, **settings)
            for each in more_tags:
                builder.add_meta_graph(list(each), signatures)
            builder.save()
            return session.run(self.features, {self.images: IMAGES})


@pytest.fixture
def old(tmp_path):
    """Returns a maker of graphs of TensorFlow 1."""
    with tf.Graph().as_default():
        yield lambda **variable: Session1(tmp_path / "model", **variable)


@pytest.mark.parametrize("use_resource", [False, True])
def test_a_variable_that_is_set_when_it_is_loaded(old, use_resource):
    """TensorFlow does so where it can load all of the model, and then there is nothing to refuse."""
    model = old(use_resource=use_resource)
    (variable,) = tf1.global_variables()
    ones = tf.group(variable.assign(tf.ones_like(variable)))
    model.save(main_op=ones)
    padded = np.pad(IMAGES, [(0, 0), (1, 1), (1, 1), (0, 0)]).sum(axis=-1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2)).sum(axis=(-1, -2))
    sums = np.stack([windows, windows], axis=-1)  # a kernel of ones adds up what it covers
    check(model.folder, {"features": np.maximum(sums, 0)})
    patch(model.folder, lambda graph: graph.graph_def.node.add(name="mystery", op="Mystery"))
    with pytest.raises(ModelError, match=r"sets the variable 'weights' when it is loaded \('Assign.*Freeze it"):
        load_frozen(model.folder)


def test_another_variable_that_is_set_when_it_is_loaded(old):
    model = old()
    counter = tf1.get_variable("counter", initializer=np.float32(0))
    expected = model.save(main_op=tf.group(counter.assign(1.0)))
    patch(model.folder, lambda graph: graph.graph_def.node.add(name="mystery", op="Mystery"))
    check(model.folder, {"features": expected})


def words(tmp_path):
    """Adds a table of words from a file, which no layer reads; returns the signature that looks words up."""
    file = tmp_path / "words.txt"
    file.write_text("a\nb\n")
    lines = tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    table = tf1.lookup.StaticHashTable(tf1.lookup.TextFileInitializer(str(file), tf.string, *lines), -1)
    keys = tf1.placeholder(tf.string, [None], name="keys")
    return tf1.saved_model.predict_signature_def({"keys": keys}, {"values": table.lookup(keys)})


@pytest.mark.parametrize("main_op", [True, False])
@pytest.mark.parametrize("use_resource", [True, False])
def test_a_table_of_another_signature(old, tmp_path, use_resource, main_op):
    model = old(use_resource=use_resource)
    signatures = {"words": words(tmp_path), "serving_default": model.signature()}
    features = model.save(signatures, main_op=tf1.tables_initializer() if main_op else None)
    frozen = check(model.folder, {"features": features})
    assert frozen.inputs == {"input": "float32 [None, 8, 8, 4]"} and frozen.outputs == {"features": "features"}
    assert not any("Table" in node.op for node in frozen.graph_def.node)


@pytest.mark.parametrize("key", ["table_initializer", "saved_model_main_op", "legacy_init_op"])
def test_an_initializer_that_is_not_there(old, key):
    model = old()
    features = model.save()

    def change(graph):
        graph.collection_def[key].node_list.value[:] = ["nowhere"]
        if key == "saved_model_main_op":
            graph.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"].name = "nowhere"

    patch(model.folder, change)
    check(model.folder, {"features": features})


def test_an_asset_that_is_missing(old, tmp_path):
    model = old()
    words(tmp_path)
    assets = tf1.get_collection(tf1.GraphKeys.ASSET_FILEPATHS)
    features = model.save(assets_collection=assets, main_op=tf1.tables_initializer())
    shutil.rmtree(model.folder / "assets")
    check(model.folder, {"features": features})


@pytest.mark.parametrize("use_resource", [True, False])
def test_variables_in_parts_and_an_op_that_nobody_knows(old, use_resource):
    model = old(use_resource=use_resource, partitioner=tf1.fixed_size_partitioner(3))
    tf.identity(model.features, name="other")
    features = model.save()
    change_op(model.folder, "other", "NobodyKnowsIt")
    check(model.folder, {"features": features})


def change_op(folder, name, op):
    """Gives a node of a graph, or of a function in it, another op."""

    def change(graph):
        bodies = [graph.graph_def.node, *(function.node_def for function in graph.graph_def.library.function)]
        (node,) = (node for body in bodies for node in body if node.name == name)
        node.op = op

    patch(folder, change)


def test_an_op_that_nobody_knows_and_the_signature_needs(old):
    model = old()
    model.save()
    change_op(model.folder, "features", "NobodyKnowsIt")
    with pytest.raises(ModelError, match=r"needs the op NobodyKnowsIt, at node 'features', which .* Load the library"):
        load_frozen(model.folder)


def test_a_reference_to_a_variable_in_a_branch(old):
    """It is read there by a RefSwitch."""
    with control_flow_v1():
        model = old(use_resource=False)
        flag = tf1.placeholder_with_default(False, [], "training")
        variable = tf1.get_default_graph().get_tensor_by_name("weights:0")
        scale = tf.cond(flag, lambda: tf.reduce_mean(variable) + 7.0, lambda: tf.reduce_max(variable))
        model.features = tf.multiply(model.features, scale, name="scaled")
        features = model.save()
    frozen = check(model.folder, {"features": features})
    assert not any(node.op.startswith("Ref") for node in frozen.graph_def.node)


def test_a_frozen_graph_with_a_reference(old, tmp_path):
    """Freezing makes a Const of the variable, and leaves the RefSwitch, which reads no Const."""
    with control_flow_v1():
        value = tf.constant(normal((4,), 1))
        branches = [lambda: tf.reduce_max(value), lambda: tf.reduce_min(value)]
        tf.identity(tf.cond(tf1.placeholder(tf.bool, [], "flag"), *branches), name="out")
    graph_def = tf1.get_default_graph().as_graph_def()
    for node in graph_def.node:
        node.op = {"Switch": "RefSwitch", "Merge": "Merge"}.get(node.op, node.op)
    (tmp_path / "net.pb").write_bytes(graph_def.SerializeToString())
    found = compute(load_frozen(tmp_path / "net.pb"), "out", {"flag": np.array(True)})
    assert found == normal((4,), 1).max()


def test_what_writes_to_a_variable_is_named(old):
    model = old(use_resource=False)
    variable = tf1.global_variables()[0]
    model.features = model.features + tf.reduce_mean(tf1.assign(variable, variable + 1.0))
    model.save()
    patch(model.folder, lambda graph: graph.collection_def["table_initializer"].node_list.value.append("nowhere"))
    with pytest.raises(ModelError, match="writes to a variable: node 'Assign'"):
        load_frozen(model.folder)


@pytest.mark.parametrize("tags", [["serve", "gpu"], []])
def test_the_graph_to_serve_with(old, tags):
    """Its tag may stand beside others; modules of TensorFlow Hub have none."""
    model = old()
    features = model.save(tags=["train"], more_tags=[tags])
    check(model.folder, {"features": features})


def test_the_graph_for_any_device_comes_first(old):
    model = old()
    features = model.save(tags=["serve", "gpu"], more_tags=[["serve"], ["serve", "tpu"]])
    check(model.folder, {"features": features})


def test_the_default_signature_of_a_module(old):
    model = old()
    other = model.signature(pooled=tf.reduce_mean(model.features, [1, 2]))
    check(model.folder, {"features": model.save({"default": model.signature(), "pooled": other}, tags=[])})


# ------------------------------------------------------------------------------------------- TensorFlow 2


class Exported(tf.Module):
    """Variables, a slot of an optimizer, and functions of which one is served."""

    def __init__(self):
        super().__init__()
        self.optimizer = tf.Module()
        self.slot = tf.Variable(normal((3, 3, 4, 2), 9))
        self.weights = tf.Variable(normal((3, 3, 4, 2), 3))
        self.recurrent = tf.Variable(normal((2, 2), 4, 0.3))

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 4], tf.float32, "images")])
    def serve(self, images):
        rows = tf.reduce_mean(tf.nn.conv2d(images, self.weights, 1, "SAME"), 1)
        state = tf.zeros_like(rows[:, 0])
        for step in tf.range(8):
            state = tf.tanh(tf.matmul(state, self.recurrent) + rows[:, step])
        return {"state": state, "rows": rows}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def other(self, values):
        return tf.math.erfinv(values, name="other")


@pytest.fixture
def new(tmp_path):
    """Saves a module; returns it, its folder, and what it computes."""
    module = Exported()
    tf.saved_model.save(module, tmp_path / "model", signatures={"serving_default": module.serve})
    return tmp_path / "model", {key: value.numpy() for key, value in module.serve(IMAGES).items()}


def give_slot_to_a_plain_object(graph):
    """As where the optimizer's class is none that this TensorFlow can make again."""
    nodes = graph.object_graph_def.nodes
    ids = {child.local_name: child.node_id for child in nodes[0].children}
    slot = nodes[ids["optimizer"]].slot_variables.add(slot_name="momentum")
    slot.original_variable_node_id, slot.slot_variable_node_id = ids["weights"], ids["slot"]


def drop_unneeded_function(graph):
    functions = graph.graph_def.library.function
    for function in [each for each in functions if any(node.op == "Erfinv" for node in each.node_def)]:
        functions.remove(function)


def make_op_of_unneeded_function_unknown(graph):
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            node.op = {"Erfinv": "NobodyKnowsIt"}.get(node.op, node.op)


@pytest.mark.parametrize(
    "change",
    [
        give_slot_to_a_plain_object,
        drop_unneeded_function,
        make_op_of_unneeded_function_unknown,
        lambda graph: graph.ClearField("object_graph_def"),
        lambda graph: setattr(graph.object_graph_def.nodes[0].children[0], "node_id", 999),
        lambda graph: graph.collection_def["table_initializer"].node_list.value.append("nowhere"),
    ],
)
def test_objects_and_functions_that_the_signature_does_not_need(new, change):
    folder, expected = new
    before = load_frozen(folder)
    patch(folder, change)
    frozen = check(folder, expected)
    assert frozen.inputs == before.inputs and frozen.outputs == before.outputs
    assert "Erfinv" not in {node.op for node in frozen.graph_def.node}


def test_a_slot_of_an_optimizer_of_another_keras(tmp_path):
    """What TensorFlow says where it cannot make the optimizer of a slot again."""
    module = Exported()
    tf.saved_model.save(module, tmp_path / "model", signatures={"serving_default": module.serve})
    patch(tmp_path / "model", give_slot_to_a_plain_object)
    with pytest.raises(AttributeError, match="add_slot"):
        tf.saved_model.load(str(tmp_path / "model"))


def test_variables_that_are_damaged_are_not_made_up(new):
    folder, _ = new
    patch(folder, give_slot_to_a_plain_object)
    data = next(Path(folder).glob("variables/variables.data*"))
    data.write_bytes(data.read_bytes()[:50])
    with pytest.raises(ModelError, match="cannot be loaded as a SavedModel"):
        load_frozen(folder)
