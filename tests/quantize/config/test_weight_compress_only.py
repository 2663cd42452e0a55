"""weight_compress_only in every form of the configuration."""

import json
from pathlib import Path

import pytest
import tensorflow as tf
from graphs import build, normal, tf1

import amct_tensorflow as amct
from amct_tensorflow.errors import ConfigValueError
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.layers import find_layers
from amct_tensorflow.model.tables import find_tables
from amct_tensorflow.quantize.config.defaults import default_config
from amct_tensorflow.quantize.config.json_file import dump_config, parse_config
from amct_tensorflow.quantize.config.simplified import parse_simplified


def make():
    x = tf1.placeholder(tf.int32, [None, 4], name="x")
    words = tf.constant(normal((500, 16), 1))
    rows = tf.gather(words, x, name="words") + tf.gather(words, x[:, :1], name="first")
    rows += tf1.raw_ops.Gather(params=normal((400, 16), 2), indices=x, name="places")
    rows += tf.gather(normal((8, 16), 3), x, name="few")
    tf.matmul(tf.reshape(rows, [-1, 64]), normal((64, 3), 4), name="dense")


VIEW = GraphView(build(make))
LAYERS, TABLES, TYPES = find_layers(VIEW), find_tables(VIEW), VIEW.op_types()


def read(content):
    text = json.dumps({"dense": {}, **content})
    return parse_config(text, "config.json", LAYERS, TYPES, TABLES)


def simple(text):
    return parse_simplified(text, "net.cfg", LAYERS, TYPES, TABLES)


def test_every_table_that_can_be_stored_so_stands_there_by_default():
    config = default_config(LAYERS, TYPES, tables=TABLES)
    assert dict(config.tables) == {"places": False, "words": False} and config.compressed_tables() == ()
    content = json.loads(dump_config(config))
    assert content["places"] == content["words"] == {"weight_compress_only": False}
    assert list(content)[-3:] == ["dense", "places", "words"]
    assert default_config(LAYERS, TYPES, tables=TABLES, compress=True).compressed_tables() == ("places", "words")


@pytest.mark.parametrize("chosen", [(), ("places",), ("places", "words")])
def test_what_is_written_is_read(chosen):
    config = read({name: {"weight_compress_only": True} for name in chosen})
    assert config.compressed_tables() == chosen
    assert read(json.loads(dump_config(config))) == config


def test_a_table_may_be_called_by_any_of_its_lookups():
    assert read({"first": {"weight_compress_only": True}}).compressed_tables() == ("words",)
    assert simple(override("first", "true")).compressed_tables() == ("words",)


def override(name, value):
    return f'override_layer_configs {{ layer_name: "{name}" calibration_config {{ weight_compress_only: {value} }} }}'


def by_type(op_type, value):
    return f'override_layer_types {{ layer_type: "{op_type}" calibration_config {{ weight_compress_only: {value} }} }}'


COMMON = "common_config { weight_compress_only: true }"


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("", ()),
        (COMMON, ("places", "words")),
        (override("words", "true"), ("words",)),
        (COMMON + override("words", "false"), ("places",)),
        (COMMON + by_type("GatherV2", "false"), ("places",)),
        (by_type("Gather", "true"), ("places",)),
        (by_type("Gather", "true") + override("places", "false"), ()),
        (COMMON + by_type("GatherV2", "false") + override("words", "true"), ("places", "words")),
        (COMMON + override("few", "false"), ("places", "words")),
    ],
)
def test_the_most_specific_message_counts(text, chosen):
    config = simple(text)
    assert config.compressed_tables() == chosen
    assert config.layers == simple("").layers


def test_common_config_tells_that_layers_stay_as_they_are(messages):
    simple(COMMON)
    assert "weight_compress_only of common_config is for tables, of which 2 are stored in int8" in "\n".join(messages)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"few": {"weight_compress_only": True}}, "'few' looks up cannot be stored in int8: it takes 512 bytes"),
        ({"words": {"quant_enable": True}}, "quant_enable"),
        ({"words": {}, "first": {}}, "'words' and 'first' look up the same table"),
        ({"x": {"weight_compress_only": True}}, "'x' is a node that cannot be quantized"),
        ({"dense": {"weight_compress_only": True}}, "weight_compress_only"),
    ],
)
def test_mistakes_in_json(content, words):
    with pytest.raises(ConfigValueError, match=words):
        read(content)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (override("few", "true"), "override of 'few'.*it takes 512 bytes"),
        (override("words", "true") + override("first", "false"), "'words' looks up the same table"),
        (override("dense", "true"), "override of 'dense'.*must be false for layers"),
        (by_type("MatMul", "true"), "override of 'MatMul'.*must be false for layers"),
        ("fc_calibration_config { weight_compress_only: true }", "fc_calibration_config.*must be false for layers"),
        ('override_layer_types { layer_type: "Gather" calibration_config { ifmr_quantize {} } }',
         "override of 'Gather': ifmr_quantize is for layers"),
        ('skip_layers: "words"', "'words', which cannot be quantized"),
    ],
)  # fmt: skip
def test_mistakes_in_a_simplified_configuration(text, words):
    with pytest.raises(ConfigValueError, match=words):
        simple(text)


def test_who_asks_in_vain_is_told(tmp_path, monkeypatch, messages):
    monkeypatch.chdir(tmp_path)

    def without():
        x = tf1.placeholder(tf.int32, [None, 4], name="x")
        tf.matmul(tf.reshape(tf.gather(normal((8, 16), 3), x, name="few"), [-1, 64]), normal((64, 3), 4), name="dense")

    with tf.Graph().as_default() as graph:
        without()
    amct.create_quant_config("config.json", graph, weight_compress_only=True)
    assert "weight_compress_only has no effect: no table can be stored in int8 ('few': it takes 512 bytes" in "\n".join(
        messages
    )
    assert "weight_compress_only" not in Path("config.json").read_text()
