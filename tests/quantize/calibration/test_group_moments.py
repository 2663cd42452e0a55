"""Equalization groups whose small channels one scale would lose are balanced unasked."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal, rng, run, save, signal_to_noise, tf1, unoptimized

import amct_tensorflow as amct
from amct_tensorflow.quantize.record.record_file import read_balance

SIZES = np.float32(4.0) ** -np.arange(8, dtype=np.float32)


def dense(sizes):
    def make():
        y = tf.nn.relu(tf.matmul(tf1.placeholder(tf.float32, [None, 16], name="x"), normal((16, 8), 1) * sizes))
        tf.identity(tf.matmul(y, normal((8, 4), 2) / sizes[:, np.newaxis], name="second"), name="out")

    return build(make), rng(3).uniform(-1, 1, (64, 16)).astype(np.float32)


def convolutions(sizes):
    def make():
        x = tf1.placeholder(tf.float32, [None, 3, 3, 8], name="x")
        y = tf.nn.relu(tf.nn.conv2d(x, normal((3, 3, 8, 8), 1) * sizes, 1, "SAME"))
        y = tf.nn.conv2d(y, normal((1, 1, 8, 4), 2) / sizes[:, np.newaxis], 1, "SAME", name="second")
        tf.identity(y, name="out")

    return build(make), rng(3).uniform(0, 1, (32, 3, 3, 8)).astype(np.float32)


def quantize(graph_def, x, outputs=("out",), **config):
    """Takes a model through the public steps; returns the signal-to-noise ratio of its output in decibels."""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    amct.create_quant_config("config.json", graph)
    content = {**json.loads(Path("config.json").read_text()), **config}
    Path("config.json").write_text(json.dumps(content))
    amct.quantize_model(graph, "config.json", "record.txt", list(outputs) or None)
    with tf1.Session(graph=graph) as session:
        session.run("out:0", {"x:0": x})
    amct.save_model(save(graph_def, Path("float.pb")), list(outputs) or ["out"], "record.txt", "results/net")
    quantized = tf1.GraphDef.FromString(Path("results/net_quantized.pb").read_bytes())
    (expected,), (actual,) = (run(each, ["out"], {"x": x}, unoptimized()) for each in (graph_def, quantized))
    return signal_to_noise(expected - expected.mean(), actual - expected.mean())


@pytest.mark.parametrize("make", [dense, convolutions])
def test_channels_of_different_size_are_all_kept(make, workdir):
    assert quantize(*make(SIZES)) > 35
    assert list(read_balance("record.txt")) == ["second"]
    assert quantize(*make(SIZES), input_balancing=False) < 10
    assert not read_balance("record.txt")


def test_channels_of_one_size_keep_their_record(workdir):
    model = dense(np.ones(8, np.float32))
    quantize(*model)
    record = Path("record.txt").read_bytes()
    quantize(*model, input_balancing=False)
    assert Path("record.txt").read_bytes() == record


def test_nothing_is_balanced_where_outputs_are_not_known(workdir):
    """What stands between the layers might be one."""
    quantize(*dense(SIZES), outputs=())
    assert not read_balance("record.txt")


def test_what_is_an_output_keeps_its_values(workdir):
    """A product in front of the reader takes the factors."""
    graph_def, x = dense(SIZES)
    assert quantize(graph_def, x, outputs=("out", "Relu")) > 35
    assert list(read_balance("record.txt")) == ["second"]
    saved = tf1.GraphDef.FromString(Path("results/net_quantized.pb").read_bytes())
    (expected,), (actual,) = (run(each, ["Relu"], {"x": x}, unoptimized()) for each in (graph_def, saved))
    assert signal_to_noise(expected[:, 0], actual[:, 0]) > 35  # the first layer is quantized, and not scaled
    (product,) = (node for node in saved.node if node.op == "Mul")
    assert product.name == "second/balanced_input" and product.input[0] == "Relu"


def test_a_model_input_is_balanced_by_a_product(workdir):
    """Nothing stands before it that could take factors."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 8], name="x")
        tf.identity(tf.matmul(x, normal((8, 4), 2) / SIZES[:, np.newaxis], name="first"), name="out")

    x = rng(3).uniform(-1, 1, (64, 8)).astype(np.float32) * SIZES
    assert quantize(build(make), x) > 35
    assert quantize(build(make), x, input_balancing=False) < 10


def block(outliers):
    """A LayerNorm in front of three dense layers and a residual sum; some channels of it are much larger."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 6, 48], name="x")
        centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        deviation = tf.sqrt(tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True) + 1e-6)
        normed = tf.identity(centred / deviation * outliers, name="normed")
        sizes = outliers[:, np.newaxis]
        read = [tf.einsum("bti,io->bto", normed, normal((48, 32), k) / sizes, name=f"read{k}") for k in (1, 2, 3)]
        mixed = tf.nn.softmax(read[0] @ tf.transpose(read[1], [0, 2, 1]) / 48) @ read[2]
        yields = tf.einsum("bti,io->bto", mixed, normal((32, 48), 4), name="yields")
        tf.identity(yields + normed / sizes[:, 0], name="out")

    return build(make), rng(3).normal(size=(64, 6, 48)).astype(np.float32)


def test_large_channels_of_a_normalization_are_balanced_for_all_that_read_them(workdir):
    """The residual sum reads them as they are."""
    model = block(np.where(np.arange(48) % 16, 1, 24).astype(np.float32))
    balanced = quantize(*model)
    balance = {name.split("/")[0]: values for name, values in read_balance("record.txt").items()}
    assert {"read1", "read2", "read3"} <= set(balance)
    assert balance["read1"] == balance["read2"] == balance["read3"]
    assert balanced > quantize(*model, input_balancing=False) + 3


def test_a_gain_that_a_product_is_not_worth_is_left(workdir):
    quantize(*block(np.ones(48, np.float32)))
    assert not read_balance("record.txt")


def test_the_factors_are_the_same_in_any_split_into_batches(workdir):
    graph_def, x = dense(SIZES)
    quantize(graph_def, x)
    whole = read_balance("record.txt")
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    amct.create_quant_config("config.json", graph, batch_num=4)
    amct.quantize_model(graph, "config.json", "record.txt", ["out"])
    with tf1.Session(graph=graph) as session:
        for part in np.split(x, 4):
            session.run("out:0", {"x:0": part})
    assert list(read_balance("record.txt")) == list(whole) == ["second"]
    np.testing.assert_allclose(read_balance("record.txt")["second"], whole["second"], rtol=1e-5)


def test_what_stands_behind_a_product_is_calibrated_on_divided_values(workdir):
    """A Reshape that the layers read stands behind the product: its values of before must not be replayed."""
    outliers = np.where(np.arange(48) % 16, 1, 24).astype(np.float32)

    def make():
        x = tf1.placeholder(tf.float32, [8, 6, 48], name="x")
        normed = x * tf.nn.sigmoid(x)
        rows = tf.reshape(normed, [48, 48], name="rows")
        y = tf.nn.relu(tf.matmul(rows, normal((48, 32), 1) / outliers[:, np.newaxis], name="first"))
        y = tf.matmul(y, normal((32, 48), 2), name="second")
        tf.identity(tf.reshape(y, [8, 6, 48]) + normed / outliers, name="out")

    x = np.abs(rng(3).normal(size=(8, 6, 48))).astype(np.float32) * outliers
    balanced = quantize(build(make), x)
    assert "first" in read_balance("record.txt")
    assert balanced > quantize(build(make), x, input_balancing=False) + 12
