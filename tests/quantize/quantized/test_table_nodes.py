"""Tables in int8 go through the public steps: what the files hold, and that the model computes with it."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, node_of, normal, ops_of, run, save, tf1

import amct_tensorflow as amct
from amct_tensorflow.errors import RecordError
from amct_tensorflow.graph.view import GraphView, const_value
from amct_tensorflow.quantize.quantized.node_map import read_node_map
from amct_tensorflow.quantize.quantized.table_nodes import quantize_rows
from amct_tensorflow.quantize.record.record_file import read_tables

ROWS, WIDTH = 1000, 16
TABLE = normal((ROWS, WIDTH), 1) * np.exp(normal((ROWS, 1), 2, 2.0))
TABLE[5] = 0
IDS = np.random.default_rng(0).integers(0, ROWS, (6, 4)).astype(np.int32)
IDS[0] = [5, 0, ROWS - 1, 5]


def classify(rows):
    """Adds what makes of looked up rows, [n, 4, WIDTH], the output ``out``."""
    rows = tf.reshape(tf.cast(rows, tf.float32), [-1, 4 * WIDTH])
    y = tf.nn.relu(tf.matmul(rows, normal((4 * WIDTH, 8), 3), name="dense"))
    tf.nn.softmax(tf.matmul(y, normal((8, 3), 4)), name="out")


def placeholder():
    return tf1.placeholder(tf.int32, [None, 4], name="x")


def model(dtype=tf.float32):
    def make():
        classify(tf.gather(tf.constant(TABLE, dtype, name="table"), placeholder(), name="words"))

    return build(make)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def expected_rows(dtype=tf.float32):
    integers, scales = quantize_rows(np.asarray(tf.cast(tf.constant(TABLE), dtype)))
    return (integers * scales)[IDS]


def test_rows_are_looked_up_as_integers_and_scaled():
    quantized = calibrate_and_save(model(), IDS, weight_compress_only=True)
    view = GraphView(quantized)
    assert view.nodes["words"].op == "Mul"
    stored = [const_value(node) for node in quantized.node if node.op == "Const" and node.name.startswith("words/row")]
    assert sorted(each.dtype.name for each in stored) == ["float32", "int8"]
    np.testing.assert_array_equal(next(each for each in stored if each.dtype == np.int8), quantize_rows(TABLE)[0])
    assert "table" not in view.nodes
    assert not any(node.op == "Const" and const_value(node).nbytes > 2 * TABLE.nbytes // 5 for node in quantized.node)
    (found,) = run(quantized, ["words"], {"x": IDS})
    np.testing.assert_array_equal(found, expected_rows())
    (exact,) = run(model(), ["words"], {"x": IDS})
    steps = np.abs(exact).max(-1, keepdims=True) / 127
    assert np.all(np.abs(found - exact) <= 0.5001 * steps)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_a_table_of_another_type_stays_one_for_its_readers(dtype):
    quantized = calibrate_and_save(model(dtype), IDS, weight_compress_only=True)
    (found,) = run(quantized, ["words"], {"x": IDS})
    assert found.dtype == dtype.as_numpy_dtype
    np.testing.assert_array_equal(found, expected_rows(dtype).astype(dtype.as_numpy_dtype))


def test_a_shared_table_is_stored_once():
    def make():
        table, x = tf.constant(TABLE, name="table"), placeholder()
        classify(tf.gather(table, x, name="first") + tf1.raw_ops.Gather(params=tf.identity(table), indices=x[:, :1]))

    quantized = calibrate_and_save(build(make), IDS, weight_compress_only=True)
    integers = [node for node in quantized.node if node.op == "Const" and const_value(node).shape == (ROWS, WIDTH)]
    assert [const_value(node).dtype for node in integers] == [np.int8]
    assert ops_of(quantized).count("GatherV2") == 2 and ops_of(quantized).count("Gather") == 2


def test_one_with_rows_of_two_axes():
    def make():
        classify(tf.reshape(tf.gather(TABLE.reshape(ROWS, 4, 4), placeholder(), name="words"), [-1, 4, WIDTH]))

    quantized = calibrate_and_save(build(make), IDS, weight_compress_only=True)
    (found,) = run(quantized, ["words"], {"x": IDS})
    np.testing.assert_array_equal(found, expected_rows().reshape(6, 4, 4, 4))


def test_a_lookup_may_be_an_output():
    def make():
        rows = tf.gather(TABLE, placeholder(), name="out")
        tf.matmul(tf.reshape(rows, [-1, 4 * WIDTH]), normal((4 * WIDTH, 8), 3), name="dense")

    graph_def = build(make)
    amct_model = save(graph_def, Path("float.pb"))
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    amct.create_quant_config("config.json", graph, weight_compress_only=True)
    amct.quantize_model(graph, "config.json", "record.txt", ["out", "dense"])
    with tf1.Session(graph=graph) as session:
        session.run("dense:0", {"x:0": IDS})
    amct.save_model(amct_model, ["out", "dense"], "record.txt", "net")
    quantized = tf1.GraphDef.FromString(Path("net_quantized.pb").read_bytes())
    np.testing.assert_array_equal(run(quantized, ["out"], {"x": IDS})[0], expected_rows())


def test_a_wait_for_the_table_does_not_keep_it():
    graph_def = model()
    node_of(graph_def, "dense").input.append("^table")
    assert "table" not in GraphView(calibrate_and_save(graph_def, IDS, weight_compress_only=True)).nodes


def test_without_the_option_nothing_changes():
    quantized = calibrate_and_save(model(), IDS)
    assert node_of(quantized, "words").op == "GatherV2"
    assert "wts_type" not in Path("record.txt").read_text()


def test_the_record_names_the_table_and_gives_the_same_bytes_again():
    calibrate_and_save(model(), IDS, weight_compress_only=True)
    text = Path("record.txt").read_text()
    assert text.endswith('record {\n  key: "words"\n  value {\n    wts_type: "INT8"\n  }\n}\n')
    assert read_tables("record.txt") == ["words"]
    amct.save_model("float.pb", ["out"], "record.txt", "again")
    assert Path("again_quantized.pb").read_bytes() == Path("results/net_quantized.pb").read_bytes()
    amct.convert_model("float.pb", ["out"], "record.txt", "converted")
    converted = GraphView(tf1.GraphDef.FromString(Path("converted_quantized.pb").read_bytes()))
    saved = GraphView(tf1.GraphDef.FromString(Path("results/net_quantized.pb").read_bytes()))
    for name in ("words/row_quant/table", "words/row_quant/scales"):
        assert converted.nodes[name].SerializeToString() == saved.nodes[name].SerializeToString()


def test_the_node_map_knows_the_lookup():
    quantized = calibrate_and_save(model(), IDS, weight_compress_only=True)
    node_map = read_node_map("results/net_quant.json", GraphView(quantized))
    assert node_map.originals["words"] == ("words",) and node_map.values["words"] == "words"
    assert {node_map.originals[name] for name in node_map.originals if name.startswith("words/row_quant")} == {()}


def test_the_record_of_another_model_is_refused():
    calibrate_and_save(model(), IDS, weight_compress_only=True)
    text = Path("record.txt").read_text()
    Path("record.txt").write_text(text.replace('key: "words"', 'key: "dense_1"'))
    with pytest.raises(RecordError, match="'dense_1' looks no table up"):
        amct.save_model("float.pb", ["out"], "record.txt", "again")
    changed = model()
    value = TABLE.copy()
    value[3, 3] = np.nan
    node_of(changed, "table").attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    save(changed, Path("changed.pb"))
    Path("record.txt").write_text(text)
    with pytest.raises(RecordError, match="'words' cannot be stored in int8: its row 3 hold"):
        amct.convert_model("changed.pb", ["out"], "record.txt", "again")
