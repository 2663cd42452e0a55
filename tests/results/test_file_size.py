"""What the bytes of a quantized file are is told where it is not as small as one expects."""

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, tf1

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
