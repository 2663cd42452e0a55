"""Models of TensorFlow.js."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from fused_ops import SLIDING, fused, reference_prelu
from graphs import build, build_v1, node_of, normal, ops_of, run, signal_to_noise, tf1
from tfjs_models import write_graph_model, write_layers_model

from amct_tensorflow.__main__ import main
from amct_tensorflow.errors import ModelError
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.loading.load import load_frozen

IMAGES = normal((2, 6, 6, 4), 1)


def network():
    """Constants of every type that models hold, and outputs of one operator."""
    x = tf1.placeholder(tf.float32, [None, 6, 6, 4], name="x")
    y = tf.nn.relu(tf.nn.conv2d(x, normal((3, 3, 4, 8), 2), 1, "SAME", name="conv") + normal((8,), 3))
    flat = tf.reshape(y, tf.constant([-1, 288], tf.int64))
    kept = tf.where(tf.constant([True, False] * 144), flat, tf.zeros_like(flat))
    first, second = tf.split(tf.matmul(kept, normal((288, 6), 4)), 2, axis=1, name="halves")
    tf.identity(first * tf.cast(tf.constant(3), tf.float32), name="out")
    tf.gather(tf.constant([b"small", b"", b"large\x00\xff"]), tf.argmax(second, 1), name="words")


OUTPUTS = {"scores": "out:0", "second": "halves:1", "words": "words:0"}


@pytest.fixture(scope="module")
def graph_def():
    return build(network)


def loaded_alike(folder, graph_def, tolerance=1e-6, path=None):
    """Loads a model and compares it with the graph it was written from; returns it."""
    frozen = load_frozen(path or folder)
    assert frozen.frozen_now and frozen.inputs == {"x": "float32 [None, 6, 6, 4]"}
    assert frozen.outputs == {"out": "scores", "halves_1": "second", "words": "words"}
    expected = run(graph_def, ["out", "halves", "words"], {"x": IMAGES})
    actual = run(frozen.graph_def, ["out", "halves", "words"], {"x": IMAGES})
    for wanted, found in zip(expected[:2], actual[:2], strict=True):
        np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen.graph_def, name="")
        with tf1.Session(graph=graph) as session:
            both = session.run(["halves_1:0", "halves:1"], {"x:0": IMAGES})
    np.testing.assert_array_equal(*both)
    if tolerance < 1e-3:
        np.testing.assert_array_equal(actual[2], expected[2])
    return frozen


@pytest.mark.parametrize("metadata", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
def test_a_graph_model_computes_the_same_and_keeps_its_names(graph_def, tmp_path, groups, metadata):
    write_graph_model(tmp_path, graph_def, OUTPUTS, groups=groups, metadata=metadata)
    assert len(list(tmp_path.glob("*.bin"))) > groups
    first = loaded_alike(tmp_path, graph_def)
    assert first.data == loaded_alike(tmp_path, graph_def, path=tmp_path / "model.json").data


@pytest.mark.parametrize(("kind", "tolerance"), [("float16", 2e-3), ("uint16", 1e-3), ("uint8", 0.1)])
def test_stored_weights_stand_for_floats(graph_def, tmp_path, kind, tolerance):
    frozen = loaded_alike(write_graph_model(tmp_path, graph_def, OUTPUTS, quantize=kind), graph_def, tolerance)
    (weights,) = [
        tf.make_ndarray(node.attr["value"].tensor) for node in frozen.graph_def.node if node.name == "MatMul/b"
    ]
    exact = tf.make_ndarray(node_of(graph_def, "MatMul/b").attr["value"].tensor)
    step = {"float16": 2e-3 * np.abs(exact), "uint16": np.ptp(exact) / 65535, "uint8": np.ptp(exact) / 255}[kind]
    assert np.all(np.abs(weights - exact) <= 0.501 * step) and np.any(weights != exact)


def test_stored_integers_are_rounded_halves_up(tmp_path):
    graph_def = build(lambda: tf.identity(tf.constant(np.int32([-3, -2, 0, 1])), name="out"))
    write_graph_model(tmp_path, graph_def, {"out": "out"}, (), quantize="uint8")
    model = json.loads((tmp_path / "model.json").read_text())
    model["weightsManifest"][0]["weights"][0]["quantization"] = {"dtype": "uint8", "scale": 0.5, "min": -3.0}
    (tmp_path / "model.json").write_text(json.dumps(model))
    (tmp_path / "group1-shard1of1.bin").write_bytes(bytes([0, 1, 5, 6]))  # -3, -2.5, -0.5, 0
    assert run(load_frozen(tmp_path).graph_def, ["out"], {})[0].tolist() == [-3, -2, 0, 0]


def test_complex_weights(tmp_path):
    value = np.complex64([[1 - 2j, 3j]])
    graph_def = build(lambda: tf.identity(tf.math.real(tf.constant([0.0]), name="out")))
    del graph_def.node[:]
    constant = graph_def.node.add(name="c", op="Const")
    constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    document_of = write_graph_model(tmp_path, tf1.GraphDef(), {}, ())
    model = json.loads((document_of / "model.json").read_text())
    model["modelTopology"]["node"] = [
        {"name": "c", "op": "Const", "attr": {"dtype": {"type": "DT_COMPLEX64"}, "value": {"tensor": {}}}}
    ]
    entry = {"name": "c", "shape": [1, 2], "dtype": "complex64"}
    model["weightsManifest"] = [{"paths": ["c.bin"], "weights": [entry]}]
    (tmp_path / "c.bin").write_bytes(np.float32([1, -2, 0, 3]).tobytes())
    (tmp_path / "model.json").write_text(json.dumps(model))
    np.testing.assert_array_equal(run(load_frozen(tmp_path).graph_def, ["c"], {})[0], value)


def test_a_shape_that_the_signature_alone_tells(graph_def, tmp_path):
    write_graph_model(tmp_path, graph_def, OUTPUTS)
    model = json.loads((tmp_path / "model.json").read_text())
    (placeholder,) = [node for node in model["modelTopology"]["node"] if node["name"] == "x"]
    shape = placeholder["attr"].pop("shape")["shape"]
    model["signature"]["inputs"]["x"]["tensorShape"] = shape
    del model["modelTopology"]["versions"]
    (tmp_path / "model.json").write_text(json.dumps(model))
    loaded_alike(tmp_path, graph_def)


def test_without_a_signature_outputs_are_what_nothing_reads(graph_def, tmp_path):
    write_graph_model(tmp_path, graph_def, {})
    assert set(load_frozen(tmp_path).outputs) == {"out", "words"}


def test_a_weight_without_elements(tmp_path):
    """A group of its own has no shard."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 4], name="x")
        tf.concat([x, tf.constant(np.zeros((5, 0), np.float32))], 1, name="out")

    rows = normal((5, 4), 1)
    frozen = load_frozen(write_graph_model(tmp_path, build(make), {"y": "out"}, groups=2))
    np.testing.assert_array_equal(run(frozen.graph_def, ["out"], {"x": rows})[0], rows)


def test_fused_ops_are_separate(tmp_path):
    filters, bias, slopes = normal((3, 3, 4, 8), 3, 0.3), normal((8,), 5), normal((1, 1, 8), 6, 0.3)
    graph_def = fused("_FusedConv2D", IMAGES, [filters, bias, slopes], ["BiasAdd", "Prelu"], 2, **SLIDING)
    write_graph_model(tmp_path, graph_def, {"y": "out"})
    frozen = load_frozen(tmp_path)
    sums = tf.nn.conv2d(IMAGES, filters, 1, "SAME").numpy() + bias
    actual = run(frozen.graph_def, ["out"], {"x": IMAGES})[0]
    np.testing.assert_allclose(actual, reference_prelu(sums, slopes), rtol=1e-5, atol=1e-5)
    (layer,) = FloatModel.load(tmp_path, ["out"]).layers
    assert layer.name == "out/Conv2D"


def test_fused_ops_that_tensorflow_knows_are_separate_too(tmp_path):
    """Converters to other formats do not know them."""
    rows, matrix, bias = normal((3, 5), 1), normal((5, 2), 2), normal((2,), 3)
    graph_def = fused("_FusedMatMul", rows, [matrix, bias], ["BiasAdd", "Relu"], 1)
    read = load_frozen(write_graph_model(tmp_path, graph_def, {"y": "out"})).graph_def
    assert ops_of(read) == ["BiasAdd", "MatMul", "Relu"]
    (expected,) = run(graph_def, ["out"], {"x": rows})
    np.testing.assert_allclose(run(read, ["out"], {"x": rows})[0], expected, rtol=1e-6)


def test_lists_that_each_run_fills_anew(tmp_path):
    """A loop of the first kind of control flow keeps its results in one."""
    graph_def = build_v1(
        lambda: tf1.map_fn(lambda row: row * 2.0, tf1.placeholder(tf.float32, [3, 2], name="x"), name="map") + 1.0
    )
    assert any(node.op == "TensorArrayV3" for node in graph_def.node)
    (output,) = {node.name for node in graph_def.node if node.op == "AddV2"} & {"add"}
    rows = normal((3, 2), 1)
    frozen = load_frozen(write_graph_model(tmp_path, graph_def, {"rows": output}))
    np.testing.assert_array_equal(run(frozen.graph_def, [output], {"x": rows})[0], 2 * rows + 1)


# ------------------------------------------------------------------------------------------------ Layers models


def dense(name, units, activation="linear", **more):
    return {"class_name": "Dense", "config": {"name": name, "units": units, "activation": activation,
                                              "use_bias": True, "dtype": "float32"} | more}  # fmt: skip


DENSE = {
    "a/kernel": normal((4, 3), 1),
    "a/bias": normal((3,), 2),
    "b/kernel": normal((3, 2), 3),
    "b/bias": normal((2,), 4),
}
ROWS = normal((5, 4), 5)


def dense_reference():
    hidden = np.maximum(ROWS @ DENSE["a/kernel"] + DENSE["a/bias"], 0)
    return hidden @ DENSE["b/kernel"] + DENSE["b/bias"]


@pytest.mark.parametrize("layers_in_a_list", [False, True])
def test_a_sequential_layers_model(tmp_path, layers_in_a_list):
    layers = [dense("a", 3, "relu", batch_input_shape=[None, 4]), dense("b", 2)]
    config = {"class_name": "Sequential", "config": layers if layers_in_a_list else {"name": "net", "layers": layers}}
    weights = dict(reversed(DENSE.items())) | {}  # in another order than the layers
    weights = {name: weights[name] for name in ("b/kernel", "b/bias", "a/kernel", "a/bias")}
    frozen = load_frozen(write_layers_model(tmp_path, config, "2.10.0", weights))
    (name,) = frozen.inputs
    np.testing.assert_allclose(
        run(frozen.graph_def, list(frozen.outputs), {name: ROWS})[0], dense_reference(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("names", [("block/a", "block/b"), ("a", "a/b"), ("a/b", "a"), ("a/b", "a_b")])
def test_layers_whose_names_have_slashes(tmp_path, names):
    """MobileNet V3 of Keras 2 has some."""
    first, second = names
    layers = [dense(first, 3, "relu", batch_input_shape=[None, 4]), dense(second, 2)]
    config = {"class_name": "Sequential", "config": {"name": "net", "layers": layers}}
    weights = {names["ab".index(name[0])] + name[1:]: value for name, value in DENSE.items()}
    frozen = load_frozen(write_layers_model(tmp_path, config, "2.10.0", weights))
    (name,) = frozen.inputs
    np.testing.assert_allclose(
        run(frozen.graph_def, list(frozen.outputs), {name: ROWS})[0], dense_reference(), rtol=1e-5, atol=1e-5
    )


def functional(name, layers, output):
    """A model of layers in a row, as Keras 2 describes it."""
    described = [{"class_name": "InputLayer", "name": f"{name}_in",
                  "config": {"batch_input_shape": [None, 4], "dtype": "float32", "name": f"{name}_in"},
                  "inbound_nodes": []}]  # fmt: skip
    for before, layer in zip([f"{name}_in", *(each["config"]["name"] for each in layers)], layers, strict=False):
        described.append(layer | {"name": layer["config"]["name"], "inbound_nodes": [[[before, 0, 0, {}]]]})
    ends = {"input_layers": [[f"{name}_in", 0, 0]], "output_layers": [[output, 0, 0]]}
    return {"class_name": "Functional", "config": {"name": name, "layers": described} | ends}


def test_a_functional_model_whose_names_have_slashes(tmp_path):
    config = functional("net", [dense("block/a", 3, "relu"), dense("b", 2)], "b")
    weights = {name.replace("a/", "block/a/"): value for name, value in DENSE.items()}
    frozen = load_frozen(write_layers_model(tmp_path, config, "2.10.0", weights))
    np.testing.assert_allclose(
        run(frozen.graph_def, list(frozen.outputs), {"net_in": ROWS})[0], dense_reference(), rtol=1e-5, atol=1e-5
    )


STATISTICS = {name: np.full(4, value, np.float32)
              for name, value in {"gamma": 2, "beta": 3, "moving_mean": 5, "moving_variance": 7}.items()}  # fmt: skip


@pytest.mark.parametrize("order", ["gamma beta moving_mean moving_variance", "beta gamma moving_variance moving_mean"])
def test_weights_are_those_of_their_names_in_any_order(tmp_path, order):
    """Their shapes are the same, so that nothing but the names tells them apart."""
    layer = {"name": "bn", "axis": [1], "epsilon": 0.0, "batch_input_shape": [None, 4]}
    config = {"class_name": "Sequential", "config": [{"class_name": "BatchNormalization", "config": layer}]}
    weights = {f"bn/{name}": STATISTICS[name] for name in order.split()}
    frozen = load_frozen(write_layers_model(tmp_path, config, "2.10.0", weights))
    (name,) = frozen.inputs
    (found,) = run(frozen.graph_def, list(frozen.outputs), {name: np.ones((1, 4), np.float32)})
    np.testing.assert_allclose(found, np.full((1, 4), (1 - 5) / np.sqrt(7) * 2 + 3), rtol=1e-5)


def side_by_side(name, order):
    """A model of two layers of the same shapes, whose outputs are joined, listed in some order."""
    start = {"class_name": "InputLayer", "name": f"{name}_in", "inbound_nodes": [],
             "config": {"batch_input_shape": [None, 4], "dtype": "float32", "name": f"{name}_in"}}  # fmt: skip
    both = {each: dense(each, 3) | {"name": each, "inbound_nodes": [[[f"{name}_in", 0, 0, {}]]]} for each in "ab"}
    end = {"class_name": "Concatenate", "name": "end", "config": {"name": "end", "axis": -1},
           "inbound_nodes": [[["a", 0, 0, {}], ["b", 0, 0, {}]]]}  # fmt: skip
    ends = {"input_layers": [[f"{name}_in", 0, 0]], "output_layers": [["end", 0, 0]]}
    return {"class_name": "Functional", "config": {"name": name, "layers": [start, *map(both.get, order), end]} | ends}


@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize("nested", [False, True])
def test_layers_of_the_same_shapes_get_their_own_weights_in_any_order(tmp_path, order, nested):
    kernels = {"b": np.full((4, 3), 2, np.float32), "a": np.full((4, 3), 1, np.float32)}
    weights = {f"{each}/{name}": value for each, kernel in kernels.items()
               for name, value in {"kernel": kernel, "bias": np.zeros(3, np.float32)}.items()}  # fmt: skip
    config = side_by_side("inner", order)
    if nested:
        config = functional("outer", [config | {"config": config["config"] | {"name": "inner"}}], "inner")
    frozen = load_frozen(write_layers_model(tmp_path, config, "2.13.1", weights))
    (name,) = frozen.inputs
    (found,) = run(frozen.graph_def, list(frozen.outputs), {name: np.ones((1, 4), np.float32)})
    np.testing.assert_array_equal(found, [[4, 4, 4, 8, 8, 8]])


def test_an_order_that_no_name_explains(tmp_path):
    """Their scopes are those of no layer, so that it cannot be told which of two layers they belong to."""
    layers = [{"class_name": "BatchNormalization", "config": {"name": name, "axis": [1]}} for name in "ab"]
    layers[0]["config"]["batch_input_shape"] = [None, 4]
    inner = {"class_name": "Sequential", "config": {"name": "inner", "layers": layers}}
    config = {"class_name": "Sequential", "config": {"name": "net", "layers": [inner]}}
    names = [f"{scope}/{name}" for pair in (["beta", "gamma"], list(STATISTICS)[2:]) for scope in "pq" for name in pair]
    weights = {f"inner/{name}": STATISTICS[name.partition("/")[2]] for name in names}
    folder = write_layers_model(tmp_path, config, "2.13.1", weights)
    refused(folder, "in another order", "inner/p/beta, inner/p/gamma", "Save it again")


def test_a_model_in_a_layers_model(tmp_path):
    inner = functional("inner", [dense("a", 3, "relu")], "a")
    config = functional("outer", [inner, dense("b", 2)], "b")
    frozen = load_frozen(write_layers_model(tmp_path, config, "2.13.1", DENSE))
    assert list(frozen.outputs.values()) == ["b"]
    np.testing.assert_allclose(
        run(frozen.graph_def, list(frozen.outputs), {"outer_in": ROWS})[0], dense_reference(), rtol=1e-5, atol=1e-5
    )


def test_a_depthwise_layer_and_a_batch_norm_as_keras_2_describes_them(tmp_path):
    layers = [
        {"class_name": "DepthwiseConv2D", "config": {
            "name": "d", "kernel_size": [3, 3], "strides": [1, 1], "padding": "same", "use_bias": False, "groups": 1,
            "depth_multiplier": 1, "batch_input_shape": [None, 6, 6, 4], "dtype": "float32",
            "depthwise_initializer": {"class_name": "VarianceScaling", "config": {
                "scale": 1, "mode": "fan_avg", "distribution": "normal", "seed": None}}}},
        {"class_name": "BatchNormalization", "config": {"name": "bn", "axis": [3], "epsilon": 0.001}},
        {"class_name": "ReLU", "config": {"name": "r", "max_value": 6}},
    ]  # fmt: skip
    statistics = {"bn/gamma": 2, "bn/beta": 3, "bn/moving_mean": 4, "bn/moving_variance": 5}
    weights = {"d/depthwise_kernel": normal((3, 3, 4, 1), 1)}
    weights |= {name: np.abs(normal((4,), seed)) + np.float32(0.1) for name, seed in statistics.items()}
    config = {"class_name": "Sequential", "config": {"name": "net", "layers": layers}}
    frozen = load_frozen(write_layers_model(tmp_path, config, "tfjs-layers 4.22.0", weights))
    (name,) = frozen.inputs
    sums = tf.nn.depthwise_conv2d(IMAGES, weights["d/depthwise_kernel"], [1] * 4, "SAME").numpy()
    gamma, beta, mean, variance = (weights[each] for each in statistics)
    expected = np.clip((sums - mean) / np.sqrt(variance + 0.001) * gamma + beta, 0, 6)
    np.testing.assert_allclose(
        run(frozen.graph_def, list(frozen.outputs), {name: IMAGES})[0], expected, rtol=1e-4, atol=1e-4
    )


# ----------------------------------------------------------------------------------------------------- Refusals


def refused(folder, *words):
    with pytest.raises(ModelError) as caught:
        load_frozen(folder)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and len(message) < 600 and str(folder) in message
    for word in words:
        assert word in message


def edited(folder, edit):
    model = json.loads((folder / "model.json").read_text())
    edit(model)
    (folder / "model.json").write_text(json.dumps(model))
    return folder


@pytest.fixture
def folder(graph_def, tmp_path):
    return write_graph_model(tmp_path, graph_def, OUTPUTS)


def test_a_missing_shard(folder):
    (folder / "group1-shard2of3.bin").unlink()
    refused(folder, "'group1-shard2of3.bin'", "into one folder")


def test_a_shard_that_is_cut_off(folder):
    shard = folder / "group1-shard3of3.bin"
    shard.write_bytes(shard.read_bytes()[:-3])
    refused(folder, "ends at byte", "shards have", "Copy both again")


def test_a_shard_that_is_too_long(folder):
    shard = folder / "group1-shard3of3.bin"
    shard.write_bytes(shard.read_bytes() + b"123")
    refused(folder, "bytes, and the weights of the manifest", "Copy both again")


@pytest.mark.parametrize("path", ["../weights.bin", "/weights.bin", "file://weights.bin"])
def test_weights_elsewhere(folder, path):
    edited(folder, lambda model: model["weightsManifest"][0]["paths"].append(path))
    refused(folder, repr(path), "outside of its folder")


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "", "a" * 300])
def test_weights_that_no_file_can_hold(folder, path):
    edited(folder, lambda model: model["weightsManifest"][0]["paths"].append(path))
    refused(folder, repr(path), "are missing")


def test_what_is_no_json_and_what_is_another_one(tmp_path):
    file = tmp_path / "model.json"
    for text in ("", "{", "[1]", '{"weightsManifest": 3}', '{"modelTopology": 3}', "\xff"):
        file.write_bytes(text.encode("latin-1"))
        refused(tmp_path, "no model of TensorFlow.js")
    for text in ("{}", '{"node": 3}', '{"model_config": 3}'):
        file.write_text(f'{{"modelTopology": {text}}}')
        refused(tmp_path, "neither nodes nor layers")
    for text in ('{"node": []}', '{"node": [{"op": "Relu"}]}', '{"node": [3]}', '{"node": [{"attr": {"T": 3}}]}'):
        file.write_text(f'{{"modelTopology": {text}}}')
        refused(tmp_path, "has a graph")


def test_a_constant_without_a_value(folder):
    edited(folder, lambda model: model["weightsManifest"].clear())
    refused(folder, "no value for its constant", "weightsManifest")


def test_a_weight_of_an_unknown_type(folder):
    edited(folder, lambda model: model["weightsManifest"][0]["weights"][0].update(dtype="int4"))
    refused(folder, "unknown type 'int4'")


def test_an_op_that_nobody_knows(folder):
    edited(folder, lambda model: model["modelTopology"]["node"][-1].update(op="Mystery"))
    refused(folder, "op Mystery, at node 'words'")


def test_an_output_that_is_not_there(folder):
    edited(folder, lambda model: model["signature"]["outputs"]["scores"].update(name="lost:0"))
    refused(folder, "'lost:0' (scores)", "Correct its signature")


@pytest.mark.parametrize(
    ("part", "change", "word"),
    [
        ("weight", {"shape": [0, 10**30]}, "has the shape"),
        ("weight", {"dtype": "string"}, "ends at byte"),
        ("weight", {"shape": [1] * 80}, "has the shape"),
        ("weight", {"shape": [100] * 9, "dtype": "string"}, "1000000000000000000 texts"),
        ("weight", {"quantization": {"dtype": "uint8", "min": 0.0}}, "without numbers for scale and min"),
        ("weight", {"quantization": {"dtype": "uint16", "scale": 1.0}}, "without numbers for scale and min"),
        ("weight", {"quantization": {"dtype": "uint8", "scale": math.nan, "min": 0.0}}, "without numbers"),
        ("weight", {"name": "other"}, "no value for its constant"),
        ("constant", {"dtype": {"type": "DT_STRING"}}, "not of its type string"),
        ("constant", {"dtype": {"type": 77}}, "of no type"),
        ("output", {"name": "out:9"}, "'out:9'"),
        ("output", {"name": ""}, "its graph does not have"),
        ("output", {"name": "\ud800:0"}, "its graph does not have"),
        ("node", {"input": ["nobody"]}, "nobody"),
    ],
)
def test_a_damaged_part(folder, part, change, word):
    def edit(model):
        nodes, group = model["modelTopology"]["node"], model["weightsManifest"][0]
        weight = next(each for each in group["weights"] if each["dtype"] == "float32" and each["shape"])
        constant = next(each for each in nodes if each["name"] == weight["name"])
        output = model["signature"]["outputs"]["scores"]
        {"weight": weight, "constant": constant["attr"], "output": output, "node": nodes[-1]}[part].update(change)

    refused(edited(folder, edit), word)


# ------------------------------------------------------------------ What does not fit, and would change the values


def entry(label, name, **more):
    return {label: {"name": name} | more}


def shape(*lengths):
    return {"dim": [{"size": str(each)} for each in lengths]}


def test_an_input_that_is_not_there(folder):
    edited(folder, lambda model: model["signature"].update(inputs=entry("images", "lost:0")))
    refused(
        folder, "the input 'lost:0' (images)", "which its graph does not have", "'x' instead", "Correct its signature"
    )


def test_an_input_that_the_graph_computes(folder):
    edited(folder, lambda model: model["signature"].update(inputs=entry("features", "Relu:0")))
    refused(folder, "the input 'Relu:0' (features)", "computes itself", "Correct its signature")


def test_an_input_that_no_output_needs(folder, graph_def, messages):
    """Converters drop its node, and may leave it in the signature."""
    edited(folder, lambda model: model["signature"]["inputs"].update(entry("mask", "mask:0")))
    loaded_alike(folder, graph_def)
    assert any(line.startswith("WARNING") and str(folder) in line and "'mask:0' (mask)" in line for line in messages)


@pytest.mark.parametrize(
    ("part", "label", "told", "words"),
    [
        ("inputs", "x", {"tensorShape": shape(-1, 8, 8, 4)}, ("'x'", "[None, 8, 8, 4]", "float32 [None, 6, 6, 4]")),
        ("inputs", "x", {"tensorShape": shape(-1, 6, 6)}, ("'x'", "[None, 6, 6]", "float32 [None, 6, 6, 4]")),
        ("inputs", "x", {"dtype": "DT_INT32"}, ("'x'", "int32", "in its graph it is float32")),
        ("outputs", "second", {"tensorShape": shape(-1, 4)}, ("'second'", "[None, 4]", "float32 [None, 3]")),
        ("outputs", "words", {"dtype": 1}, ("'words'", "float32", "in its graph it is string")),
        ("inputs", "x", {"dtype": "DT_NONE"}, ("no type or no shape", "x:0")),
        ("outputs", "words", {"dtype": 77}, ("no type or no shape", "words:0")),
        ("outputs", "words", {"tensorShape": {"dim": 3}}, ("no type or no shape", "words:0")),
    ],
)
def test_a_signature_of_another_graph(folder, part, label, told, words):
    edited(folder, lambda model: model["signature"][part][label].update(told))
    refused(folder, *words, "Correct its signature")


def test_a_signature_that_says_what_the_graph_leaves_open(folder, graph_def):
    def tell(model):
        model["signature"]["inputs"]["x"].update(dtype="DT_FLOAT", tensorShape=shape(1, 6, 6, 4))
        model["signature"]["outputs"]["scores"].update(dtype="DT_FLOAT", tensorShape={"unknownRank": True})

    loaded_alike(edited(folder, tell), graph_def)


def test_of_two_signatures_that_of_the_metadata_counts(folder):
    """TensorFlow.js takes it, too."""
    told = {"outputs": entry("mine", "Relu:0")}
    frozen = load_frozen(edited(folder, lambda model: model.update(userDefinedMetadata={"signature": told})))
    assert frozen.outputs == {"Relu": "mine"}


INITIALIZER = [{"name": "keys", "op": "Const"}, {"name": "fill", "op": "LookupTableImportV2", "input": ["keys"]}]


def test_an_initializer_of_tables_that_the_graph_does_not_read(folder, graph_def, messages):
    edited(folder, lambda model: model.update(modelInitializer={"node": INITIALIZER}))
    loaded_alike(folder, graph_def)
    told = [line for line in messages if line.startswith("WARNING") and "modelInitializer" in line]
    assert len(told) == 1 and str(folder) in told[0] and "Const, LookupTableImportV2" in told[0]


@pytest.mark.parametrize("initializer", [{}, {"node": None}, {"node": []}])
def test_an_initializer_of_nothing(folder, graph_def, messages, initializer):
    loaded_alike(edited(folder, lambda model: model.update(modelInitializer=initializer)), graph_def)
    assert not any(line.startswith("WARNING") for line in messages)


def test_weights_that_the_initializer_shares(folder, graph_def):
    """Its keys stand among the weights of the graph."""
    more = {"name": "keys", "shape": [1], "dtype": "float32"}

    def add(model):
        model["modelInitializer"] = {"node": INITIALIZER}
        model["weightsManifest"].append({"paths": ["keys.bin"], "weights": [more]})

    (folder / "keys.bin").write_bytes(np.float32([1]).tobytes())
    loaded_alike(edited(folder, add), graph_def)


@pytest.mark.parametrize(("name", "words"), [("spare", "no constant of that name"), ("Relu", "no constant (Relu)")])
def test_a_weight_of_no_constant(folder, name, words):
    more = {"name": name, "shape": [1], "dtype": "float32"}
    (folder / "more.bin").write_bytes(np.float32([1]).tobytes())
    edited(folder, lambda model: model["weightsManifest"].append({"paths": ["more.bin"], "weights": [more]}))
    refused(folder, repr(name), "weightsManifest", words, "Convert the model again")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("MatMul/b", {"shape": [6, 288]}, ("[6, 288]", "[288, 6]")),
        ("MatMul/b", {"dtype": "int32"}, ("type float32", "int32 in weightsManifest")),
        ("Const", {"dtype": "int32"}, ("type int64", "bool in weightsManifest")),
        ("MatMul/b", {"quantization": {"dtype": "float16"}, "dtype": "int32"}, ("int32, which float16",)),
        ("MatMul/b", {"quantization": {"dtype": "uint8", "scale": 1.0, "min": 0.0}, "dtype": "bool"}, ("bool, which",)),
        ("MatMul/b", {"quantization": {"dtype": "float16", "original_dtype": "int32"}}, ("have been int32",)),
    ],
)
def test_weights_that_are_not_those_of_their_constants(folder, name, change, words):
    def edit(model):
        if name == "Const":  # the type of the graph differs, and the bytes stay
            nodes = {node["name"]: node for node in model["modelTopology"]["node"]}
            kept = next(node for node in nodes.values() if node["attr"].get("dtype") == {"type": "DT_BOOL"})
            kept["attr"]["dtype"] = {"type": "DT_INT64"}
            return
        (weight,) = [each for each in model["weightsManifest"][0]["weights"] if each["name"] == name]
        weight.update(change)

    refused(edited(folder, edit), *words)


def test_a_table(folder):
    def add(model):
        attributes = {name: {"type": "DT_INT64"} for name in ("key_dtype", "value_dtype")}
        model["modelTopology"]["node"].append({"name": "table", "op": "HashTableV2", "attr": attributes})

    refused(edited(folder, add), "'table' (HashTableV2)", "cannot become a constant")


def test_a_weight_of_no_layer(tmp_path):
    config = {
        "class_name": "Sequential",
        "config": {"name": "net", "layers": [dense("a", 3, batch_input_shape=[None, 4])]},
    }
    refused(write_layers_model(tmp_path, config, "2.10.0", DENSE), "'b/kernel'", "none of its layers")


DAMAGED_LAYERS = [
    '{"config": {}}',
    '{"class_name": 3}',
    '{"class_name": "Sequential", "config": 3}',
    '{"class_name": "Sequential", "config": {"layers": 3}}',
    '{"class_name": "Sequential", "config": {"layers": [3]}}',
    '{"class_name": "Sequential", "config": {"layers": [{}]}}',
    '{"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": {}}]}}',
    '{"class_name": "Sequential", "config": {}}',
    '"{"',
    '"[3]"',
    "[1]",
]


@pytest.mark.parametrize("description", DAMAGED_LAYERS)
def test_a_damaged_description_of_layers(tmp_path, description):
    refused(write_layers_model(tmp_path, json.loads(description), "2.10.0", DENSE), "Model")


def test_a_description_of_layers_as_text(tmp_path):
    layers = [dense("a", 3, "relu", batch_input_shape=[None, 4]), dense("b", 2)]
    config = json.dumps({"class_name": "Sequential", "config": {"name": "net", "layers": layers}})
    frozen = load_frozen(write_layers_model(tmp_path, config, "2.10.0", DENSE))
    (name,) = frozen.inputs
    np.testing.assert_allclose(
        run(frozen.graph_def, list(frozen.outputs), {name: ROWS})[0], dense_reference(), rtol=1e-5, atol=1e-5
    )


def test_layers_that_keras_does_not_have(tmp_path):
    mystery = {"class_name": "PixelShuffle2x", "config": {"name": "p"}}
    layers = [dense("a", 3, batch_input_shape=[None, 4]), mystery]
    config = {"class_name": "Sequential", "config": {"name": "net", "layers": layers}}
    weights = {name: DENSE[name] for name in ("a/kernel", "a/bias")}
    refused(write_layers_model(tmp_path, config, "2.10.0", weights), "cannot be loaded by Keras", "PixelShuffle2x")


def test_code_in_a_layer(tmp_path):
    code = {
        "class_name": "Lambda",
        "config": {"name": "l", "function_type": "lambda", "function": ["4wE=", None, None]},
    }
    layers = [dense("a", 3, batch_input_shape=[None, 4]), code]
    config = {"class_name": "Sequential", "config": {"name": "net", "layers": layers}}
    weights = {name: DENSE[name] for name in ("a/kernel", "a/bias")}
    refused(write_layers_model(tmp_path, config, "2.10.0", weights), "holds Python code")


# ------------------------------------------------------------------------------------------------- Command line


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A folder with fused ops that TensorFlow does not know, in the working directory; returns the float output."""
    monkeypatch.chdir(tmp_path)
    first = fused("_FusedConv2D", IMAGES, [normal((3, 3, 4, 8), 2, 0.3), normal((8,), 3), normal((1, 1, 8), 4, 0.3)],
                  ["BiasAdd", "Prelu"], 2, **SLIDING)  # fmt: skip
    write_graph_model("web", first, {"y": "out:0"})
    return run(load_frozen("web").graph_def, ["out"], {"x": IMAGES})[0]


def test_it_is_inspected_and_quantized_from_the_command_line(web, capsys):
    assert main(["inspect", "web"]) == 0
    assert "out/Conv2D" in capsys.readouterr().out
    Path("data").mkdir()
    IMAGES.tofile("data/x.bin")
    settings = ["--data_dir", "data", "--input_shape", "x:2,6,6,4", "--data_types", "float32"]
    assert main(["calibration", "--model", "web", "--outputs", "out", "--save_path", "results/net", *settings]) == 0
    quantized = tf1.GraphDef.FromString(Path("results/net_quantized.pb").read_bytes())
    assert "AscendQuant" in ops_of(quantized)
    assert signal_to_noise(web, run(quantized, ["out"], {"x": IMAGES})[0]) > 30


@pytest.mark.parametrize("target", ["tflite", "onnx", "openvino"])
def test_it_is_searched_and_exported_from_the_command_line(web, target):
    if target != "tflite":
        pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
        pytest.importorskip(target, reason=f"the extra {target} is not installed")
    np.save("x.npy", IMAGES)
    assert main(["auto-calibrate", "web", "--data", "x.npy", "--snr", "20", "--save_dir", "results/net"]) == 0
    assert main(["export", "results/net", "--to", target, "--data", "x.npy"]) == 0
    assert [path.name for path in Path("results").glob("*diverges*")] == []
