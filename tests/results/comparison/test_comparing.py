"""What is found where a quantized model differs from the float one, against what it must be."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from forms import FORMS, quantize_form
from graphs import (
    SMALL_NET_LAYERS,
    build,
    calibrate_and_save,
    node_of,
    normal,
    quantize_small_net,
    run,
    save,
    signal_to_noise,
    tf1,
)
from hypothesis import given
from hypothesis import strategies as st

from amct_tensorflow import FloatModel
from amct_tensorflow.errors import DatasetError, ModelError
from amct_tensorflow.graph.batch_splitter import IMAGES_AT_A_TIME
from amct_tensorflow.graph.graph_runner import GraphRunner
from amct_tensorflow.quantize.record.record_file import read_balance, read_record
from amct_tensorflow.results.comparison.comparison_text import dump_comparison, format_comparison
from amct_tensorflow.results.comparison.correspondence import read_mapped_model
from amct_tensorflow.results.comparison.layer_comparison import compare_models
from amct_tensorflow.results.comparison.tensor_error import TensorError

IMAGES = normal((4, 12, 12, 3), 5)


def compare(model, quantized, batches=({"input": IMAGES},), outputs=("probabilities",)):
    return compare_models(FloatModel.load(model, list(outputs)), read_mapped_model(quantized), list(outputs), batches)


def sums(expected, *actual):
    error = TensorError()
    for each in actual:
        error.add(np.asarray(expected, np.float32), np.asarray(each, np.float32))
    return error


def test_error_of_a_tensor():
    """By hand: the signal is 25, the noise 1, the product 21, the square of the other 18."""
    error = sums([3, 4], [3, 3])
    assert error.sqnr == pytest.approx(13.9794, abs=1e-4) and error.largest == 1
    assert error.cosine == pytest.approx(21 / (5 * 18**0.5))


def test_errors_at_the_ends():
    assert sums([1, 2], [1, 2]).sqnr == np.inf and sums([1, 2], [1, 2]).largest == 0
    assert (sums([0, 0], [1, 0]).sqnr, sums([0, 0], [1, 0]).cosine) == (-np.inf, 0)
    assert (sums([0, 0], [0, 0]).sqnr, sums([0, 0], [0, 0]).cosine) == (np.inf, 1)
    assert (sums([1, 2], [1, 2, 3]).sqnr, sums([1, 2], [1, 2, 3]).largest) == (-np.inf, np.inf)
    assert np.isnan(sums([1, 2], [np.nan, 2]).sqnr) and sums([1], [np.inf]).sqnr == -np.inf


@given(st.lists(st.tuples(*[st.floats(-100, 100, width=16)] * 2), min_size=2, max_size=8), st.integers(1, 7))
def test_batches_sum_up(pairs, cut):
    """However the values are split into batches, the error is the same."""
    expected, actual = np.asarray(pairs, np.float32).T
    whole, split = TensorError(), TensorError()
    whole.add(expected, actual)
    for part in (slice(cut), slice(cut, None)):
        split.add(expected[part], actual[part])
    assert split.sqnr == pytest.approx(whole.sqnr) and split.largest == whole.largest
    assert split.cosine == pytest.approx(whole.cosine)


def test_every_layer_is_found():
    comparison = compare(*quantize_small_net())
    assert sorted(each.layer.name for each in comparison.layers) == sorted(SMALL_NET_LAYERS)
    assert comparison.in_place_only == comparison.unseen == ()
    damages = [each.damage.value for each in comparison.layers]
    assert damages == sorted(damages, reverse=True) and damages[-1] > 0
    first = next(each for each in comparison.layers if each.layer.name == "conv/Conv2D")
    assert first.alone.sqnr == pytest.approx(first.in_place.sqnr)  # nothing is quantized before it


@pytest.mark.parametrize("layer", SMALL_NET_LAYERS)
def test_the_damage_of_a_layer_is_that_of_a_model_in_which_it_alone_is_quantized(layer):
    comparison = compare(*quantize_small_net([name for name in SMALL_NET_LAYERS if name != layer]))
    (found,) = comparison.layers
    assert found.layer.name == layer
    assert found.damage.value == pytest.approx(comparison.divergence, rel=1e-3)
    assert found.alone.sqnr == pytest.approx(found.in_place.sqnr, abs=1e-2)


def test_the_error_of_an_output_is_that_which_running_it_shows():
    model, quantized = quantize_small_net()
    error = compare(model, quantized).outputs["probabilities"]
    one, other = (
        run(tf1.GraphDef.FromString(Path(file).read_bytes()), ["probabilities"], {"input": IMAGES})[0]
        for file in (model, quantized)
    )
    assert error.sqnr == pytest.approx(signal_to_noise(one, other), abs=1e-2)
    assert error.largest == pytest.approx(np.abs(one - other).max(), rel=1e-3)


def test_a_spoiled_layer_is_the_first():
    model, quantized = quantize_small_net()
    graph_def = tf1.GraphDef.FromString(Path(quantized).read_bytes())
    weights = node_of(graph_def, node_of(graph_def, node_of(graph_def, "project/Conv2D").input[1]).input[0])
    values = tf.make_ndarray(weights.attr["value"].tensor)
    weights.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(-values))
    save(graph_def, Path(quantized))
    comparison = compare(model, quantized)
    worst = comparison.layers[0]
    assert worst.layer.name == "project/Conv2D" and worst.alone.sqnr < 3
    assert all(each.alone.sqnr > 20 for each in comparison.layers[1:])  # alone, those behind it are innocent
    assert min(each.in_place.sqnr for each in comparison.layers) < 5


@pytest.fixture(name="lengths")
def noted_lengths(monkeypatch):
    """How many images the models are run on at a time."""
    lengths = []
    values = GraphRunner.values

    def noting(runner, tensors, feeds):
        lengths.extend(len(value) for name, value in feeds.items() if name in ("input:0", "x:0"))
        return values(runner, tensors, feeds)

    monkeypatch.setattr(GraphRunner, "values", noting)
    return lengths


def test_a_long_batch_is_compared_in_parts(lengths):
    """The values of eight layers are in memory at the same time; what is found is the same."""
    model, quantized = quantize_small_net()
    images = normal((40, 12, 12, 3), 5)
    one = compare(model, quantized, [{"input": images}])
    assert max(lengths) == IMAGES_AT_A_TIME and one.batches == 1
    several = compare(model, quantized, [{"input": images[:16]}, {"input": images[16:]}])
    for layer, other in zip(one.layers, several.layers, strict=True):
        assert layer.alone.sqnr == pytest.approx(other.alone.sqnr, abs=1e-3)
        assert layer.damage.value == pytest.approx(other.damage.value, rel=1e-3)


def test_a_batch_whose_images_a_model_combines_stays_whole(lengths):
    def make():
        x = tf1.placeholder(tf.float32, [None, 8], name="x")
        y = tf.matmul(x, normal((8, 8), 1))
        tf.matmul(y - tf.reduce_mean(y, 0), normal((8, 4), 2), name="out")

    x = normal((40, 8), 3)
    calibrate_and_save(build(make), x)
    compare("float.pb", "results/net_quantized.pb", [{"x": x}], ["out"])
    assert set(lengths) == {40}


def test_a_model_of_another():
    _, quantized = quantize_small_net()
    other = build(lambda: tf.nn.softmax(tf1.placeholder("float32", [2, 5], "x"), name="probabilities"))
    with pytest.raises(ModelError, match=r"was not made from o.pb, which has no node 'input'"):
        compare(save(other, Path("o.pb")), quantized)


def test_an_output_that_is_none():
    model, quantized = quantize_small_net()
    with pytest.raises(ModelError, match=r"has no node 'project/BatchNorm/..'. Its outputs are: probabilities"):
        outputs = ["project/BatchNorm/.."]
        compare_models(FloatModel.load(model, ["probabilities"]), read_mapped_model(quantized), outputs, [])


def test_no_data():
    with pytest.raises(DatasetError, match="no batch"):
        compare(*quantize_small_net(), batches=[])


def test_data_that_does_not_run():
    with pytest.raises(DatasetError, match="cannot be run on this data"):
        compare(*quantize_small_net(), batches=[{"input": IMAGES[:, :5]}])


def test_a_float_model_is_no_quantized_one():
    model, quantized = quantize_small_net()
    with pytest.raises(ModelError, match=r"net.pb holds no quantized layer. Give what a run has written"):
        read_mapped_model(model)
    with pytest.raises(ModelError, match="Give the original model"):
        FloatModel.load(quantized, ["probabilities"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "--node_map"),
        ("{", "holds no node map: Input data was truncated"),
        ("[]", "holds no node map: Expected `object`"),
        ('{"graph": []}', "it has no graph"),
        ('{"graph": [{"op": [{"name": 1}]}]}', r"Expected `str`, got `int` - at `\$.graph\[0\].op\[0\].name`"),
        ('{"graph": [{"op": [{"name": "a", "attr": [{"key": "k"}]}]}]}', "missing required field `value`"),
        (
            '{"graph": [{"op": [{"name": "a", "attr": [{"key": "_datadump_original_op_names", "value": {}}]}]}]}',
            "op 'a' has no list under '_datadump_original_op_names'",
        ),
        (
            '{"graph": [{"op": [{"name": "a", "output_desc": [{"attr": '
            '[{"key": "_datadump_origin_name", "value": {}}]}]}]}]}',
            "op 'a' has no text under '_datadump_origin_name'",
        ),
        (
            '{"graph": [{"op": [{"name": "a", "balanced_origin": {"tensor": "a:0", "shape": [2], "factors": [1]}}]}]}',
            "op 'a' has other factors than the shape",
        ),
        (
            '{"graph": [{"op": [{"name": "a", "balanced_origin": {"tensor": "a:0", "shape": [], "factors": [0]}}]}]}',
            "op 'a' has factors under 'balanced_origin' that are not above 0",
        ),
        ('{"graph": [{"op": [{"name": "a"}]}]}', "lists other nodes than the quantized model"),
    ],
)
def test_node_maps_that_are_none(text, words):
    _, quantized = quantize_small_net()
    file = Path("results/net_quant.json")
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(ModelError, match=words):
        read_mapped_model(quantized)


def test_a_node_map_elsewhere():
    _, quantized = quantize_small_net()
    moved, node_map = Path(quantized).rename("moved.pb"), Path("results/net_quant.json").rename("map.json")
    assert len(read_mapped_model(moved, node_map).layers) == len(SMALL_NET_LAYERS)
    with pytest.raises(ModelError, match=r"does not end in quantized.pb; give its node map"):
        read_mapped_model(moved)


def test_reports():
    comparison = compare(*quantize_small_net())
    document = json.loads(dump_comparison(comparison, "a.pb", "b.pb", {"files": ["x.npy"]}))
    assert [each["name"] for each in document["layers"]] == [each.layer.name for each in comparison.layers]
    assert document["data"] == {"files": ["x.npy"], "batches": 1} and document["divergence"] > 0
    text = format_comparison(comparison, "x.npy")
    assert all(name in text for name in (*SMALL_NET_LAYERS, "output                 probabilities"))
    assert "compared on x.npy; all layers together" in text
    assert "?" not in text.split("\n\n")[0]


def test_the_page_describes_every_key():
    page = (ROOT / "docs" / "file_formats.md").read_text().split("## compare --json\n")[1].split("\n## ")[0]
    document = json.loads(
        dump_comparison(compare(*quantize_small_net()), "a.pb", "b.pb", {"random": [0, 1], "seed": 1})
    )
    keys = {*document, *document["data"], *document["outputs"][0], *document["layers"][0]}
    assert {key for key in keys if f"`{key}`" not in page} == set()


def test_layers_whose_tensors_the_original_does_not_have_are_shown_as_such():
    model, quantized = quantize_small_net()
    file = Path("results/net_quant.json")
    document = json.loads(file.read_text())
    for operation in document["graph"][0]["op"]:
        if operation["name"].startswith(("conv/dequant", "pool/dequant")):
            operation.pop("output_desc", None)
            operation.pop("balanced_origin", None)
    file.write_text(json.dumps(document))
    comparison = compare(model, quantized)
    assert [each.name for each in comparison.unseen] == ["conv/Conv2D", "pool/AvgPool"]
    assert not comparison.in_place_only
    assert "?: for 2 layers" in format_comparison(comparison, "x")
    assert None in [each["damage"] for each in json.loads(dump_comparison(comparison, "", "", {}))["layers"]]


@pytest.mark.parametrize(
    "name",
    [
        "channels_first",
        "convolutions_in_groups",
        "dilated_convolutions",
        "flag_that_must_be_fed",
        "several_inputs_and_outputs",
        "a_transposed_convolution",
        "a_recurrent_network_between_layers",
        "batch_norms_before_layers",
        "functions",
        "keras_convolution_in_groups",
    ],
)
def test_models_of_all_forms(name):
    form = FORMS[name]
    quantize_form(form)
    comparison = compare("float.pb", "results/net_quantized.pb", [form.feeds()], form.outputs)
    assert comparison.layers and comparison.in_place_only == comparison.unseen == ()
    assert all(each.alone.sqnr > 35 and 0 <= each.damage.value < 1e-3 for each in comparison.layers)
    assert all(error.sqnr > 30 for error in comparison.outputs.values())


def in_functions(make_clip=tf.nn.relu6):
    """Layers that a SavedModel keeps in a function in a function; nothing but its call stands in the graph."""

    @tf.function(autograph=False)
    def inner(y):
        return tf.identity(make_clip(tf.nn.conv2d(y, normal((3, 3, 3, 4), 1), 1, "SAME", name="conv")), name="y")

    @tf.function(autograph=False)
    def outer(x):
        pooled = tf.reduce_mean(inner(x), [1, 2])
        return tf.nn.bias_add(tf.matmul(pooled, normal((4, 5), 2), name="scores"), normal((5,), 3))

    tf.identity(outer(tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x")), name="out")


def older_relu6(x):
    return tf.maximum(tf.minimum(tf.nn.relu(x), 6.0), 0.0)


@pytest.mark.parametrize("make_clip", [tf.nn.relu6, tf.nn.relu, older_relu6])
def test_layers_in_functions_have_their_own_names(make_clip):
    graph_def, x = build(lambda: in_functions(make_clip)), normal((8, 8, 8, 3), 4, 2.0)
    calibrate_and_save(graph_def, x)
    comparison = compare("float.pb", "results/net_quantized.pb", [{"x": x}], ["out"])
    names = [each.layer.name for each in comparison.layers]
    assert len(names) == 2 and not any("PartitionedCall" in name.rpartition("/")[2] for name in names)
    assert {name.rpartition("/")[2] for name in names} == {"conv", "scores"}
    assert set(names) == set(read_record("record.txt"))
    assert comparison.in_place_only == comparison.unseen == ()
    assert all(each.alone.sqnr > 35 for each in comparison.layers) and comparison.outputs["out"].sqnr > 30


def test_an_output_that_is_a_layer_has_its_name():
    def make():
        y = tf.nn.relu(tf.nn.conv2d(tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x"), normal((3, 3, 3, 4), 1), 1,
                                    "SAME", name="first"))  # fmt: skip
        tf.nn.conv2d(y, normal((1, 1, 4, 3), 2), 1, "SAME", name="out")

    x = normal((8, 8, 8, 3), 4)
    calibrate_and_save(build(make), x)
    comparison = compare("float.pb", "results/net_quantized.pb", [{"x": x}], ["out"])
    assert {each.layer.name for each in comparison.layers} == {"first", "out"}


def test_balanced_layers_are_compared_in_the_channels_of_the_original():
    """A quantizer that clips for an activation sees other values than the original has at the activation's name."""

    def make():
        loud = np.where(np.arange(16) == 3, 50, 1).astype(np.float32)
        x = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
        y = tf.nn.relu(tf.nn.conv2d(x, normal((3, 3, 3, 16), 2, 0.3) * loud, 1, "SAME", name="first"), name="clip")
        y = tf.nn.conv2d(y, normal((1, 1, 16, 8), 5, 0.3) / loud[:, None], 1, "SAME", name="second")
        tf.identity(y, name="out")

    x = normal((8, 8, 8, 3), 4)
    calibrate_and_save(build(make), x)
    assert list(read_balance("record.txt")) == ["second"]
    comparison = compare("float.pb", "results/net_quantized.pb", [{"x": x}], ["out"])
    assert comparison.in_place_only == comparison.unseen == ()
    first, second = sorted(comparison.layers, key=lambda each: each.layer.name)
    assert (first.layer.value, second.layer.read) == ("first", "clip:0")
    assert first.alone.sqnr > 35 and first.alone.sqnr == pytest.approx(first.in_place.sqnr)  # it is the first
    assert second.alone.sqnr > 35 and second.in_place.sqnr > 30 and comparison.outputs["out"].sqnr > 30
    largest = np.abs(run(tf1.GraphDef.FromString(Path("float.pb").read_bytes()), ["first"], {"x": x})[0]).max()
    assert first.alone.largest < 0.05 * largest  # in units of the original
    assert "clip" in Path("results/net_quant.json").read_text()  # the quantizer still stands for it


def test_a_layer_behind_a_product_that_balances_it_is_compared():
    """The product reads a tensor of the original, and a Reshape hands its values on: both tell what the layer reads."""

    def make():
        loud = np.where(np.arange(16) == 3, 50, 1).astype(np.float32)
        x = tf1.placeholder(tf.float32, [None, 4, 4, 16], name="x")
        y = tf.nn.conv2d(x, normal((3, 3, 16, 16), 2, 0.1) * loud, 1, "SAME", name="first")
        rows = tf.reshape(tf.nn.elu(y, name="elu"), [-1, 16], name="rows")
        y = tf.matmul(rows, normal((16, 8), 5, 0.3) / loud[:, None], name="second")
        tf.identity(y, name="out")

    x = normal((8, 4, 4, 16), 4)
    calibrate_and_save(build(make), x)
    assert "second" in read_balance("record.txt")
    comparison = compare("float.pb", "results/net_quantized.pb", [{"x": x}], ["out"])
    assert comparison.in_place_only == comparison.unseen == ()
    (second,) = (each for each in comparison.layers if each.layer.name == "second")
    assert second.layer.read == "rows:0" and second.layer.read_factors.shape == (1, 16) and second.alone.sqnr > 35


def test_a_dense_layer_behind_which_keras_computes_a_shape_is_compared():
    def make():
        y = tf1.placeholder(tf.float32, [None, None, 6], name="x")
        for index in range(10):  # more than are compared at a time: shapes come from layers that are not
            y = tf.tanh(tf.tensordot(y, normal((6, 6), index), 1, name=f"dense{index}") + normal((6,), 3))
        tf.identity(y, name="out")

    x = normal((8, 5, 6), 4)
    calibrate_and_save(build(make), x)
    comparison = compare("float.pb", "results/net_quantized.pb", [{"x": x}], ["out"])
    assert comparison.in_place_only == comparison.unseen == ()
    assert len(comparison.layers) == 10 and all(each.alone.sqnr > 30 for each in comparison.layers)


def test_node_maps_of_before_do_not_tell_what_is_balanced():
    model, quantized = quantize_small_net()
    file = Path("results/net_quant.json")
    document = json.loads(file.read_text())
    balanced = [each["name"] for each in document["graph"][0]["op"] if each.pop("balanced_origin", None)]
    assert balanced
    file.write_text(json.dumps(document))
    comparison = compare(model, quantized)
    assert [each.layer.name for each in comparison.in_place_only] == list(read_balance("record.txt"))
    assert "?: for" in format_comparison(comparison, "x")


def test_a_convolution_in_groups_that_is_an_output_has_the_name_of_the_configuration():
    def make():
        x = tf1.placeholder(tf.float32, [None, 8, 8, 4], name="x")
        tf.nn.conv2d(x, normal((3, 3, 2, 6), 1), 1, "SAME", name="out")

    x = normal((8, 8, 8, 4), 4)
    calibrate_and_save(build(make), x)
    (layer,) = compare("float.pb", "results/net_quantized.pb", [{"x": x}], ["out"]).layers
    assert [layer.layer.name] == list(read_record("record.txt")) != ["out"]
