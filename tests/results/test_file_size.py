"""What the bytes of a quantized file are is told where it is not as small as one expects."""

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, save, tf1
from saved_models import save_as_tensorflow_1
from tfjs_models import write_graph_model

import amct_tensorflow as amct
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.quantize.quantized.file_bytes import content_of
from amct_tensorflow.quantize.quantized.model_files import FileContent
from amct_tensorflow.results.report.wording import content_sentence


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def net(width=64, scope="a/scope", table=0):
    """A dense layer with a bias, a product with floats that stays in float, and perhaps a table."""

    def make():
        x = tf1.placeholder(tf.float32, [None, width], name="x")
        with tf1.name_scope(scope):
            y = tf.nn.bias_add(tf.matmul(x, normal((width, width), 1), name="layer"), normal((width,), 2))
            y = tf.tanh(y) * tf.constant(normal((width,), 3), name="floats")
            if table:
                words = tf.constant(normal((table, width), 4), name="words")
                y += tf.gather(words, tf.cast(tf.abs(x[:, 0]), tf.int32), name="lookup")
        tf.identity(y, name="out")

    return build(make)


@pytest.mark.parametrize("bits", [8, 16])
def test_the_parts_are_the_file(bits):
    simplified = "common_config: { ifmr_quantize: { dst_type: INT16 } }" if bits == 16 else ""
    quantized = calibrate_and_save(net(), normal((16, 64), 9), simplified=simplified)
    content = content_of(quantized)
    assert sum(astuple(content)) == Path("results/net_quantized.pb").stat().st_size
    assert 64 * 64 + 1 < content.int8_weights < 64 * 64 + 60
    assert 64 * 4 < content.float_weights < 64 * 4 + 30  # the bias of the layer in int8 is not among them
    assert content.other_constants > 64 * 4 + 64 * 5  # that bias, and scales
    names = sum(len(node.name) + sum(map(len, node.input)) for node in quantized.node)
    assert content.names == names


def test_a_small_file_says_nothing(messages):
    calibrate_and_save(net(512), normal((16, 512), 9))
    assert not any("quantized file takes" in line for line in messages)


def test_a_table_that_int8_would_store_is_named(messages):
    calibrate_and_save(net(table=500), np.abs(normal((16, 64), 9)))
    (told,) = [line for line in messages if "quantized file takes" in line]
    # 500 rows of 64 floats, against as many bytes and a scale per row.
    assert "weights in float" in told and "With weight_compress_only, tables take 94.0 kB less." in told
    messages.clear()
    calibrate_and_save(net(table=500), np.abs(normal((16, 64), 9)), weight_compress_only=True)
    assert not any("weight_compress_only, tables take" in line for line in messages)


def test_names_that_take_more_than_weights_are_told(messages):
    calibrate_and_save(net(8, "/".join(["a_scope_of_a_model"] * 8)), normal((16, 8), 9))
    (told,) = [line for line in messages if "quantized file takes" in line]
    assert "% names of nodes" in told and "with shorter scopes" in told


def test_the_sentence_begins_with_the_most():
    assert content_sentence(FileContent(20, 0, 10, 60, 10)) == (
        "It consists of 60 % names of nodes, 20 % weights in int8, 10 % scales, biases and other constants, "
        "10 % ops, attributes and functions."
    )


def test_a_file_is_measured_by_the_frozen_graph_or_by_the_files_given_whichever_takes_less(tmp_path):
    graph_def = net(128)
    given = write_graph_model(tmp_path / "js", graph_def, {"out": "out"})
    quantized = write_graph_model(tmp_path / "bytes", graph_def, {"out": "out"}, quantize="uint8")
    (given / "notes.txt").write_text("no part of the model" * 1000)
    for folder in (given, quantized):
        model = FloatModel.load(folder, ["out"])
        files = sum(each.stat().st_size for each in folder.iterdir() if each.suffix != ".txt")
        assert model.given_bytes == files == FloatModel.load(folder / "model.json", ["out"]).given_bytes
        assert model.original_bytes == min(files, model.graph_def.ByteSize()) == model.with_outputs([]).original_bytes
    assert FloatModel.load(quantized, ["out"]).original_bytes < 0.5 * FloatModel.load(given, ["out"]).original_bytes


def test_a_saved_model_takes_its_graph_and_its_variables(tmp_path):
    save_as_tensorflow_1(tmp_path / "saved", use_resource=True)
    (tmp_path / "saved/assets").mkdir()
    (tmp_path / "saved/assets/vocabulary.txt").write_text("word\n" * 1000)
    model = FloatModel.load(tmp_path / "saved", ["Predictions/Mean"])
    parts = [tmp_path / "saved/saved_model.pb", *(tmp_path / "saved/variables").iterdir()]
    assert len(parts) == 3
    assert model.given_bytes == sum(part.stat().st_size for part in parts)
    assert model.original_bytes == model.graph_def.ByteSize() < model.given_bytes


def test_a_frozen_graph_takes_what_its_file_takes(tmp_path):
    path = Path(save(net(), tmp_path / "net.pb"))
    model = FloatModel.load(path, ["out"])
    assert model.given_bytes is None and model.original_bytes == path.stat().st_size


def test_a_file_that_grows_against_the_files_given_is_told(tmp_path, messages):
    """Weights of TensorFlow.js in bytes are no larger than ours, whose file has functions besides."""
    folder = write_graph_model(tmp_path / "bytes", net(64), {"out": "out"}, quantize="uint8")
    calibrate_and_save(FloatModel.load(folder, ["out"]).graph_def, normal((16, 64), 9))
    messages.clear()
    amct.save_model(str(folder), ["out"], "record.txt", "results/net")
    (told,) = [line for line in messages if "quantized file takes" in line]
    taken, original = Path("results/net_quantized.pb").stat().st_size, FloatModel.load(folder, ["out"]).original_bytes
    assert f"{100 * taken / original:.0f} % of the original" in told
