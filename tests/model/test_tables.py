"""Which constants are tables that can be stored in int8, and why others are none."""

import json

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, build_v1, normal, save, tf1

from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.inspection import inspect_model
from amct_tensorflow.model.inspection_output import dump_inspection, format_inspection
from amct_tensorflow.model.tables import find_tables

ROWS, WIDTH = 500, 16
TABLE = normal((ROWS, WIDTH), 1)


def ids(shape=(None, 4)):
    return tf1.placeholder(tf.int32, shape, name="ids")


def only(make, outputs=(), builder=build):
    (table,) = find_tables(GraphView(builder(make)), outputs)
    return table


def test_an_embedding():
    table = only(lambda: tf.identity(tf.gather(TABLE, ids(), name="words"), name="out"))
    assert (table.name, table.op_type, table.lookups, table.fits) == ("words", "GatherV2", ("words",), True)
    assert (table.shape, table.dtype) == ((ROWS, WIDTH), tf.float32)
    assert table.float_bytes == ROWS * WIDTH * 4 and table.int8_bytes == ROWS * WIDTH + ROWS * 4
    assert table.gain == table.float_bytes - table.int8_bytes


def test_the_lookup_of_tensorflow_1_has_no_axis():
    table = only(lambda: tf1.raw_ops.Gather(params=TABLE, indices=ids(), name="words"))
    assert (table.op_type, table.reason) == ("Gather", None)


def test_a_table_is_one_however_many_look_it_up():
    def make():
        table, x = tf.constant(TABLE, name="table"), ids()
        tf.gather(table, x, name="first")
        tf.gather(tf.identity(table), x[:, :1], name="second")

    table = only(make)
    assert (table.name, table.lookups, table.constant) == ("first", ("first", "second"), "table")
    assert table.fits


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_tables_of_other_types_and_behind_casts(dtype):
    def make():
        tf.gather(tf.cast(tf.identity(tf.constant(TABLE, dtype)), tf.float32), ids(), name="words")

    table = only(make)
    assert (table.dtype, table.fits, table.float_bytes) == (dtype, True, ROWS * WIDTH * dtype.size)


def tied():
    table = tf.constant(TABLE, name="table")
    y = tf.reshape(tf.gather(table, ids(), name="words"), [-1, WIDTH])
    tf.matmul(y, table, transpose_b=True, name="logits")


def batched():
    tf.gather(tf.constant(normal((8, 100, 16))), ids([8, 4]), batch_dims=1, name="words")


def in_loop():
    table = tf.constant(TABLE)
    x = ids()
    tf.while_loop(lambda i, s: i < 3, lambda i, s: (i + 1, s + tf.gather(table, x, name="words")),
                  [0, tf.zeros([2, 4, WIDTH])])  # fmt: skip


def with_row(value):
    table = TABLE.copy()
    table[[7, 9], 3] = value
    return lambda: tf.gather(table, ids(), name="words")


NO_TABLES = {
    "tied": (tied, "'logits' (MatMul) reads it, too, and not by rows"),
    "axis": (lambda: tf.gather(TABLE, ids(), axis=1, name="words"),
             "'words' looks up along axis 1, and a scale belongs to a row of the first one"),
    "axis_fed": (lambda: tf.gather(TABLE, ids(), axis=tf1.placeholder(tf.int32, [], name="axis"), name="words"),
                 "a value in the graph says along which axis 'words' looks up"),
    "batch_dims": (batched, "'words' looks up in each of several tables (batch_dims)"),
    "coordinates": (lambda: tf.gather_nd(TABLE, ids([None, 2]), name="words"),
                    "'words' (GatherNd) looks up by coordinates"),
    "small": (lambda: tf.gather(TABLE[:80], ids(), name="words"),
              "it takes 5120 bytes, of which int8 would save 3520"),
    "thin": (lambda: tf.gather(normal((4000, 1)), ids(), name="words"),
             "it takes 16000 bytes, of which int8 would save 0"),
    "vector": (lambda: tf.gather(normal((9000,)), ids(), name="words"), "a row is a single number"),
    "nan": (with_row(np.nan), "its row 7 and 1 more hold NaN or Inf"),
    "inf": (with_row(-np.inf), "its row 7 and 1 more hold NaN or Inf"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_TABLES)
def test_what_is_no_table(name):
    make, reason = NO_TABLES[name]
    table = only(make)
    assert not table.fits and table.reason.startswith(reason)


def test_a_table_in_a_loop_or_branch_stays_in_float():
    assert only(in_loop, builder=build_v1).reason == "it runs inside a loop, any number of times per batch"


def test_a_table_that_is_asked_for_stays_in_float():
    def make():
        tf.gather(tf.identity(tf.constant(TABLE), name="all"), ids(), name="words")

    assert only(make, ["words"]).fits
    assert only(make, ["all"]).reason == "it is an output of the model, as 'all'"


def test_other_lookups_are_no_tables():
    def make():
        x = ids()
        tf.gather(tf.constant(np.arange(9000, dtype=np.int32)), x)
        tf.gather(tf1.placeholder(tf.float32, [ROWS, WIDTH]), x)

    assert find_tables(GraphView(build(make))) == []


def test_axis_from_behind_and_rows_of_more_axes():
    assert only(lambda: tf.gather(TABLE, ids(), axis=-2, name="words")).fits
    assert only(lambda: tf.gather(TABLE.reshape(ROWS, 4, 4), ids(), name="words")).int8_bytes == ROWS * WIDTH + ROWS * 4


@pytest.mark.parametrize("strategy", ["mod", "div"])
def test_a_table_in_parts_is_several(strategy):
    def make():
        parts = [tf.constant(part) for part in np.array_split(TABLE, 2)]
        tf.identity(tf1.nn.embedding_lookup(parts, ids(), partition_strategy=strategy), name="out")

    tables = find_tables(GraphView(build(make)))
    assert len(tables) == 2 and all(table.fits and table.shape == (ROWS // 2, WIDTH) for table in tables)


def test_one_that_is_all_alike_takes_no_room():
    graph_def = build(lambda: tf.gather(TABLE, ids(), name="words"))
    (constant,) = (node for node in graph_def.node if node.op == "Const" and node.attr["dtype"].type == 1)
    constant.attr["value"].tensor.ClearField("tensor_content")
    constant.attr["value"].tensor.float_val.append(0.5)
    (table,) = find_tables(GraphView(graph_def))
    assert "of which int8 would save 0" in table.reason


def keras_embedding():
    x = tf.keras.Input([5], dtype="int32", name="ids")
    y = tf.keras.layers.Embedding(ROWS, WIDTH, name="words")(x)
    return tf.keras.Model(x, tf.keras.layers.Dense(3, name="scores")(tf.keras.layers.Flatten()(y)))


def test_an_embedding_of_keras(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras_embedding().save("net.keras")
    (table,) = FloatModel.load("net.keras", []).tables
    assert table.fits and table.shape == (ROWS, WIDTH)


def test_inspection_tells_of_tables_and_of_what_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make():
        x = ids()
        tf.add(tf.reduce_sum(tf.gather(TABLE, x, name="words"), 1),
               tf.reduce_sum(tf.gather(TABLE[:8], tf.math.floormod(x, 8), name="places"), 1), name="out")  # fmt: skip
        tf.gather(TABLE + 1, x, name="unused")

    inspection = inspect_model(FloatModel.load(save(build(make), tmp_path / "net.pb"), ["out"]))
    words, places = json.loads(dump_inspection(inspection))["tables"]
    assert words == {"name": "words", "type": "GatherV2", "lookups": ["words"], "shape": [ROWS, WIDTH],
                     "dtype": "float32", "bytes": 32000, "int8_bytes": 10000, "compressible": True,
                     "reason": None}  # fmt: skip
    assert not places["compressible"] and places["reason"].startswith("it takes 512 bytes")
    text = format_inspection(inspection)
    assert ("Table 'words', 500x16 float32, 0.03 MB, stays in float; with weight_compress_only it takes 0.01 MB."
            in text)  # fmt: skip
    assert "Table 'places', 8x16 float32, 0.00 MB, stays in float: it takes 512 bytes" in text


def test_a_table_in_the_body_of_a_loop_is_told(tmp_path):
    def make():
        table, x = tf.constant(TABLE), ids()
        y = tf.while_loop(lambda i, s: i < 3, lambda i, s: (i + 1, s + tf.gather(table, x, name="words")),
                          [0, tf.zeros([2, 4, WIDTH])])[1]  # fmt: skip
        tf.identity(y, name="out")

    (table,) = inspect_model(FloatModel.load(save(build(make), tmp_path / "net.pb"), ["out"])).tables
    assert table.reason == "it runs inside a loop, any number of times per batch"
