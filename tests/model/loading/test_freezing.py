"""Models in every form become graphs that compute the same, with names that are told, and always the same bytes."""

import hashlib
import json

import h5py
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from graphs import build, normal, run, save, small_net
from programs import run_program
from saved_models import IMAGES, Module, compute, loop, network, save_as_tensorflow_1, two_ways
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.loading.load import load_frozen

FORMS = ["network.keras", "network_exported", "loop_without_objects", "loop.keras", "tf1_reference"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every model, and what it computes."""
    path = tmp_path_factory.mktemp("models")
    model, pair = network(), two_ways()
    for suffix in ("keras", "h5"):
        model.save(path / f"network.{suffix}")
    model.export(path / "network_exported", verbose=False)
    pair.save(path / "two_ways.keras")
    loop().save(path / "loop.keras")
    loop().export(path / "loop_without_objects", verbose=False)
    forget_objects(path / "loop_without_objects" / "saved_model.pb")
    inputs = {"side": normal((4, 3), 4), "image": normal((4, 4, 4, 2), 5)}
    np.savez(path / "expected", network=model(IMAGES), **inputs, **pair(inputs),
             reference=save_as_tensorflow_1(path / "tf1_reference", False),
             resource=save_as_tensorflow_1(path / "tf1_resource", True))  # fmt: skip
    return path


def forget_objects(file):
    """Leaves but the graph of a SavedModel, of which TensorFlow does not find the variables then."""
    model = SavedModel.FromString(file.read_bytes())
    model.meta_graphs[0].ClearField("object_graph_def")
    file.write_bytes(model.SerializeToString())


@pytest.fixture
def expected(folder):
    return np.load(folder / "expected.npz")


@pytest.mark.parametrize(
    ("name", "input_name", "label"),
    [
        ("network.keras", "images", "scores"),
        ("network.h5", "images", "scores"),
        ("network_exported", "images", "output_0"),
    ],
)
def test_a_keras_model(folder, expected, messages, name, input_name, label):
    frozen = load_frozen(folder / name)
    assert frozen.frozen_now and frozen.source == folder / name
    assert frozen.inputs == {input_name: "float32 [None, 8, 8, 4]"} and frozen.outputs == {"Identity": label}
    np.testing.assert_allclose(compute(frozen, "Identity", {input_name: IMAGES}), expected["network"], rtol=1e-5)
    assert messages[-1] == (
        f"INFO {folder / name} was frozen for inference. Inputs: {input_name} float32 [None, 8, 8, 4]. "
        f"Outputs: Identity ({label})."
    )


def test_several_inputs_and_outputs(folder, expected):
    frozen = load_frozen(folder / "two_ways.keras")
    assert frozen.inputs.keys() == {"side", "image"}
    assert frozen.outputs == {"Identity": "boxes", "Identity_1": "scores"}
    feeds = {name: expected[name] for name in frozen.inputs}
    for operator, label in frozen.outputs.items():
        np.testing.assert_allclose(compute(frozen, operator, feeds), expected[label], rtol=1e-5)


@pytest.mark.parametrize("kind", ["reference", "resource"])
def test_a_graph_of_tensorflow_1_keeps_its_names(folder, expected, kind):
    frozen = load_frozen(folder / f"tf1_{kind}")
    assert frozen.outputs == {"conv/Relu": "features", "Predictions/Mean": "scores"}
    np.testing.assert_allclose(compute(frozen, "Predictions/Mean", {"input": IMAGES}), expected[kind], rtol=1e-5)
    assert {node.name for node in frozen.graph_def.node} >= {"input", "conv/weights", "conv/Conv2D"}
    assert "global_step" not in {node.name for node in frozen.graph_def.node}


def test_the_only_signature_is_taken_whatever_its_name(tmp_path):
    module = Module()
    tf.saved_model.save(module, tmp_path / "model", signatures={"convolve": module.convolve})
    frozen = load_frozen(tmp_path / "model")
    assert frozen.outputs == {"Identity": "features"}
    np.testing.assert_allclose(
        compute(frozen, "Identity", {"images": IMAGES}), module.convolve(IMAGES)["features"], rtol=1e-5
    )


def test_a_frozen_graph_stays_as_it_is(tmp_path):
    graph_def = build(small_net)
    frozen = load_frozen(save(graph_def, tmp_path / "net.pb"))
    assert frozen.graph_def == graph_def and not frozen.frozen_now
    assert FloatModel.load(tmp_path / "net.pb", ["probabilities"]).frozen is None


def test_the_layers_of_a_keras_model_are_found(folder):
    model = FloatModel.load(folder / "network.keras", ["Identity"])
    assert model.frozen == load_frozen(folder / "network.keras").data
    assert {layer.op_type for layer in model.layers} == {"Conv2D", "DepthwiseConv2dNative", "MatMul"}


OTHER_PROCESS = """
import hashlib, sys
import tensorflow as tf
from amct_tensorflow.model.loading.load import load_frozen
tf.compat.v1.disable_v2_behavior()
tf.config.threading.set_inter_op_parallelism_threads(1)
for path in sys.argv[1:]:
    print(hashlib.sha256(load_frozen(path).data).hexdigest())
"""


def test_the_same_bytes_at_any_time_and_in_any_process(folder):
    """However busy TensorFlow was before, and although that program has switched eager execution off."""
    paths = [folder / name for name in FORMS]
    first = [load_frozen(path).data for path in paths]
    network()(IMAGES)
    assert [load_frozen(path).data for path in paths] == first
    done = run_program("-c", OTHER_PROCESS, *paths, PYTHONPATH=ROOT)
    assert done.stdout.split() == [hashlib.sha256(data).hexdigest() for data in first]


@pytest.mark.parametrize("name", FORMS)
def test_inside_a_graph_of_the_callers(folder, name):
    """TensorFlow gives new functions the collections of that graph, and looks for its table in them."""
    outside = load_frozen(folder / name).data
    with tf.Graph().as_default() as graph:
        assert load_frozen(folder / name).data == outside
    assert graph.get_operations() == []
    with tf.Graph().as_default():
        tf.compat.v1.lookup.StaticHashTable(tf.compat.v1.lookup.KeyValueTensorInitializer([1], [2]), 0)
        tf.compat.v1.get_variable("counter", [2])
        assert load_frozen(folder / name).data == outside


@pytest.mark.parametrize("name", ["network.keras", "tf1_reference"])
def test_nothing_but_our_line_reaches_the_console(folder, name, capfd, recwarn):
    load_frozen(folder / name)
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and "was frozen for inference" in err
    assert list(recwarn) == []


@pytest.mark.parametrize("in_a_list", [True, False])
def test_the_first_layer_of_keras_2_has_the_shape_of_a_batch(tmp_path, in_a_list):
    """Keras 2.3 describes no layer for the input. Keras 3 takes the shape of a batch for that of an example."""
    kernel, rows = normal((21, 3), 1), normal((5, 4, 21), 2)
    layers = [
        {"class_name": "Reshape", "config": {"name": "r", "target_shape": [84], "batch_input_shape": [None, 4, 21]}},
        {"class_name": "Reshape", "config": {"name": "s", "target_shape": [4, 21]}},
        {"class_name": "Dense", "config": {"name": "d", "units": 3, "use_bias": False, "activation": "relu"}},
    ]
    config = {"class_name": "Sequential", "config": layers if in_a_list else {"name": "net", "layers": layers}}
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs.update(model_config=json.dumps(config), keras_version="2.3.1", backend="tensorflow")
        groups = file.create_group("model_weights")
        groups.attrs.update(layer_names=[b"r", b"s", b"d"], keras_version="2.3.1", backend="tensorflow")
        for name in "rsd":
            groups.create_group(name).attrs["weight_names"] = [b"d/kernel:0"] if name == "d" else []
        groups["d"].create_dataset("d/kernel:0", data=kernel)
    frozen = load_frozen(tmp_path / "old.h5")
    ((name, kind),) = frozen.inputs.items()
    assert kind == "float32 [None, 4, 21]"
    actual = run(frozen.graph_def, list(frozen.outputs), {name: rows})[0]
    np.testing.assert_allclose(actual, np.maximum(rows @ kernel, 0), rtol=1e-5, atol=1e-5)


def test_a_keras_2_file_whose_layers_have_slashes_in_their_names(tmp_path):
    kernel, rows = normal((4, 3), 1), normal((5, 4), 2)
    dense = {"name": "head/d", "units": 3, "use_bias": False, "batch_input_shape": [None, 4]}
    config = {"class_name": "Sequential", "config": [{"class_name": "Dense", "config": dense}]}
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs.update(model_config=json.dumps(config), keras_version="2.3.1", backend="tensorflow")
        groups = file.create_group("model_weights")
        groups.attrs.update(layer_names=[b"head/d"], keras_version="2.3.1", backend="tensorflow")
        groups.create_group("head/d").attrs["weight_names"] = [b"head/d/kernel:0"]
        groups["head/d"].create_dataset("head/d/kernel:0", data=kernel)
    frozen = load_frozen(tmp_path / "old.h5")
    (name,) = frozen.inputs
    actual = run(frozen.graph_def, list(frozen.outputs), {name: rows})[0]
    np.testing.assert_allclose(actual, rows @ kernel, rtol=1e-5, atol=1e-5)
