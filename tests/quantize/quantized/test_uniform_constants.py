"""Constants that are all the same are stored as one number, bit for bit and of every type, where that is shorter."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, run, tf1

from amct_tensorflow.graph.nodes import make_node
from amct_tensorflow.quantize.quantized.uniform_constants import store_as_numbers

NUMBERS = [
    tf.float32, tf.float64, tf.float16, tf.bfloat16, tf.bool,
    tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64,
]  # fmt: skip
QUANTIZED = [tf.qint8, tf.qint16, tf.qint32, tf.quint8, tf.quint16]


def const(dtype, bits, shape):
    """A graph of one constant, whose content is given."""
    tensor = tf1.make_tensor_proto(0).__class__(dtype=dtype.as_datatype_enum, tensor_content=bits)
    tensor.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    node = make_node("same", "Const", (), dtype=dtype)
    node.attr["value"].tensor.CopyFrom(tensor)
    graph = tf1.GraphDef()
    graph.node.append(node)
    return graph


def content(graph):
    return graph.node[0].attr["value"].tensor.tensor_content


def value(graph):
    """What TensorFlow makes of the constant, as bytes."""
    return run(graph, ["same"], {})[0].tobytes()


@pytest.mark.parametrize("number", [0, 1, -1])
@pytest.mark.parametrize("dtype", NUMBERS, ids=lambda dtype: dtype.name)
def test_every_type_of_number_is_stored_once_and_read_as_before(dtype, number):
    bits = np.full(200, number).astype(dtype.as_numpy_dtype).tobytes()
    graph = const(dtype, bits, (10, 20))
    store_as_numbers(graph)
    assert not content(graph) and graph.node[0].ByteSize() < 80
    assert value(graph) == bits


@pytest.mark.parametrize("dtype", QUANTIZED, ids=lambda dtype: dtype.name)
def test_quantized_types_are_stored_once_and_read_as_before(dtype):
    bits = b"\xfe" * 200 * dtype.size
    graph = const(dtype, bits, (10, 20))
    before = tf.make_ndarray(graph.node[0].attr["value"].tensor)
    store_as_numbers(graph)
    assert not content(graph)
    assert np.array_equal(tf.make_ndarray(graph.node[0].attr["value"].tensor), before)
    with tf1.Session(graph=tf.Graph()) as session:
        tf1.import_graph_def(graph, name="")
        bitcast = tf.bitcast(session.graph.get_tensor_by_name("same:0"), tf.dtypes.as_dtype(dtype.name[1:]))
        assert session.run(bitcast).tobytes() == bits


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        (tf.float32, np.float32(-0.0).tobytes()),
        (tf.float16, np.float16(-0.0).tobytes()),
        (tf.float32, np.float32(np.nan).tobytes()),
        (tf.float32, np.uint32(0xFFC12345).tobytes()),  # a NaN that carries bits
        (tf.float32, np.uint32(0x7F812345).tobytes()),  # a signaling one
        (tf.float64, np.uint64(0x7FF0000000000001).tobytes()),
        (tf.float32, np.float32(1e-45).tobytes()),  # the least denormal
        (tf.float64, np.float64(np.inf).tobytes()),
        (tf.uint64, np.uint64(2**64 - 1).tobytes()),
    ],
    ids=str,
)
def test_no_bit_changes(dtype, bits):
    graph = const(dtype, bits * 200, (200,))
    store_as_numbers(graph)
    assert value(graph) == bits * 200


@pytest.mark.parametrize("dtype", [tf.complex64, tf.complex128], ids=lambda dtype: dtype.name)
def test_complex_numbers_stay(dtype):
    bits = np.full(200, 1 + 2j).astype(dtype.as_numpy_dtype).tobytes()
    graph = const(dtype, bits, (200,))
    store_as_numbers(graph)
    assert content(graph) == bits == value(graph)


def test_strings_numbers_of_no_elements_and_different_ones_stay():
    graph = tf1.GraphDef()
    for index, each in enumerate(
        [np.array([b"a", b"a"]), np.zeros((0, 3), np.float32), np.array(2.0), np.arange(9), np.array([1, 1, 1, 2])]
    ):
        graph.node.append(make_node(f"c{index}", "Const", (), dtype=tf.as_dtype(each.dtype), value=each))
    before = graph.SerializeToString(deterministic=True)
    store_as_numbers(graph)
    assert graph.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("bits", [b"\x01" * 3, b"\x01", b"\x01" * 396, b"\x01" * 404])
def test_content_of_another_size_than_the_shape_is_left_to_tensorflow(bits):
    graph = const(tf.float32, bits, (100,))
    store_as_numbers(graph)
    assert content(graph) == bits


def test_what_is_shorter_element_by_element_stays_so():
    bits = b"\xff" * 2  # as a number, -1 takes ten bytes
    graph = const(tf.int8, bits, (2,))
    store_as_numbers(graph)
    assert content(graph) == bits


def test_a_fill_that_preparation_computes_takes_no_more_than_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make():
        x = tf1.placeholder(tf.float32, [None, 64], name="x")
        y = tf.matmul(x, normal((64, 64), 1), name="layer")
        tf.add(tf.reshape(y, [-1, 8, 8]), tf.fill([64, 8, 8], tf.constant(2.5)), name="out")

    graph_def = build(make)
    x = normal((64, 64), 2)
    quantized = calibrate_and_save(graph_def, x)
    assert quantized.ByteSize() < 0.55 * graph_def.ByteSize()  # the functions alone are a sixth
    expected, actual = (run(each, ["out"], {"x": x})[0] for each in (graph_def, quantized))
    assert np.corrcoef(expected.ravel(), actual.ravel())[0, 1] > 0.999
