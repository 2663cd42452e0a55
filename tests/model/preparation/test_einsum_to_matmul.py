"""An Einsum with constant weights becomes a product of matrices that can be quantized; others stay."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, prepared, run, signal_to_noise, tf1
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.model.preparation.einsum_to_matmul import einsum_to_matmul

LENGTHS = dict(zip("abcdefg", (2, 3, 4, 5, 6, 7, 8), strict=True))


def einsum(equation, unknown="a", weights_first=False, behind=lambda y: y):
    """A graph with the Einsum ``layer``; the axes of the data whose labels are ``unknown`` have no static length."""
    data, weights = reversed(terms(equation)) if weights_first else terms(equation)

    def make():
        x = tf1.placeholder(tf.float32, [None if label in unknown else LENGTHS[label] for label in data], name="x")
        constant = tf.constant(normal([LENGTHS[label] for label in weights], 1))
        inputs = [constant, x] if weights_first else [x, constant]
        y = tf.raw_ops.Einsum(inputs=inputs, equation=equation, name="layer")
        tf.identity(behind(y), name="out")

    return build(make), normal([LENGTHS[label] for label in data], 2)


def terms(equation):
    return equation.split("->")[0].split(",")


def ops(graph_def):
    return [node.op for node in graph_def.node]


def check_equal(graph_def, rewritten, x, fetch="out"):
    (expected,), (actual,) = (run(each, [fetch], {"x": x}) for each in (graph_def, rewritten))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


EQUATIONS = [
    ("ab,bc->ac", ["MatMul"]),
    ("abc,cd->abd", ["BatchMatMulV2"]),
    ("abcd,de->abce", ["BatchMatMulV2"]),
    ("abc,cde->abde", ["BatchMatMulV2", "Reshape"]),
    ("abcd,cde->abe", ["BatchMatMulV2", "Reshape"]),
    ("abcd,dce->abe", ["BatchMatMulV2", "Reshape"]),
    ("abcd,cdef->abef", ["BatchMatMulV2", "Reshape", "Reshape"]),
    ("abc,dc->abd", ["BatchMatMulV2"]),
    ("abc,bd->acd", ["BatchMatMulV2", "Transpose"]),
    ("abc,bd->adc", ["BatchMatMulV2", "Transpose", "Transpose"]),
    ("abc,cde->aebd", ["BatchMatMulV2", "Reshape", "Transpose"]),
    ("ab,b->a", ["MatMul", "Reshape"]),
    ("abc,bcd->ad", ["MatMul", "Reshape"]),
]


@pytest.mark.parametrize("unknown", ["", "a", "abc"])
@pytest.mark.parametrize(
    ("equation", "reshapes"),
    [("ahbc,cd->ahbd", 1), ("ahbc,cde->ahbde", 1), ("ahbc,cd->adhb", 1), ("ahbcd,cde->ahbe", 2)],
)
def test_a_second_axis_of_length_1_is_left_out_of_the_product(monkeypatch, equation, reshapes, unknown):
    """Kernels of TensorFlow's corrupt memory there."""
    monkeypatch.setitem(LENGTHS, "h", 1)
    graph_def, x = einsum(equation, unknown)
    rewritten, _ = prepared(graph_def, einsum_to_matmul)
    assert ops(rewritten).count("Squeeze") == 1 and ops(rewritten).count("Reshape") == reshapes
    assert ops(rewritten).count("BatchMatMulV2") == 1
    check_equal(graph_def, rewritten, x)
    asked, _ = prepared(graph_def, einsum_to_matmul, keep=("layer", "out"))
    check_equal(graph_def, asked, x, "layer")


@pytest.mark.parametrize(("equation", "expected"), EQUATIONS)
@pytest.mark.parametrize("unknown", ["", "a", "abc"])
def test_a_product_with_one_matrix(equation, expected, unknown):
    graph_def, x = einsum(equation, unknown)
    rewritten, added = prepared(graph_def, einsum_to_matmul)
    check_equal(graph_def, rewritten, x)
    assert sorted(set(ops(rewritten)) & {"MatMul", "BatchMatMulV2", "Reshape", "Transpose"}) == sorted(set(expected))
    (layer,) = [node for node in rewritten.node if node.name == "layer"]
    assert layer.op in ("MatMul", "BatchMatMulV2")
    assert set(added.values()) == {("layer",)}
    assert {node.name for node in rewritten.node} == {"x", "layer", "out", *added}
    # Comparison tools are told of a value under the Einsum's name only where it is the Einsum's.
    values = [run(each, ["layer"], {"x": x})[0] for each in (graph_def, rewritten)]
    same = values[0].shape == values[1].shape and np.allclose(*values, atol=1e-4)
    assert ("layer" in added) is not same


@pytest.mark.parametrize("equation", ["cde,abc->abde", "cde,abcd->abe", "dc,abc->adb"])
def test_the_weights_may_come_first(equation):
    graph_def, x = einsum(equation, weights_first=True)
    rewritten, _ = prepared(graph_def, einsum_to_matmul)
    check_equal(graph_def, rewritten, x)
    assert "Einsum" not in ops(rewritten)


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 4), (2, 3, 5, 4)])
@pytest.mark.parametrize("equation", ["...c,cd->...d", "a...c,cde->a...ed", "...c,dc->d..."])
def test_an_ellipsis(equation, shape):
    """Compared with NumPy: of four axes, TensorFlow 2.16 with oneDNN computes the Einsum itself wrongly."""
    weights = normal([{"c": 4, "d": 6, "e": 7}[label] for label in terms(equation)[1]])

    def make():
        x = tf1.placeholder(tf.float32, [None, *shape[1:]], name="x")
        tf.identity(tf.raw_ops.Einsum(inputs=[x, tf.constant(weights)], equation=equation, name="layer"), name="out")

    graph_def = build(make)
    rewritten, _ = prepared(graph_def, einsum_to_matmul)
    x = normal(shape, 3)
    (actual,) = run(rewritten, ["out"], {"x": x})
    np.testing.assert_allclose(actual, np.einsum(equation, x, weights), rtol=1e-5, atol=1e-5)
    assert "Einsum" not in ops(rewritten)


@pytest.mark.parametrize(("equation", "_ops"), EQUATIONS)
def test_an_einsum_that_is_requested_keeps_its_value(equation, _ops):
    for unknown in ("a", "abc"):
        graph_def, x = einsum(equation, unknown)
        rewritten, added = prepared(graph_def, einsum_to_matmul, ["layer", "out"])
        check_equal(graph_def, rewritten, x)
        check_equal(graph_def, rewritten, x, "layer")
        assert set(added.values()) == {("layer",)} and "layer" not in added


@pytest.mark.parametrize("equation", ["abc,abd->abcd", "abc,bcd->abd", "abc,cd->ad", "abc,cde->abd", "ab,cd->abcd"])
def test_what_is_no_product_with_one_matrix_stays(equation):
    graph_def, _ = einsum(equation)
    rewritten, added = prepared(graph_def, einsum_to_matmul)
    assert added == {} and rewritten == graph_def


def test_a_product_of_two_computed_tensors_stays():
    def make():
        x = tf1.placeholder(tf.float32, [None, 3, 4], name="x")
        tf.identity(tf.raw_ops.Einsum(inputs=[x, x], equation="abc,adc->abd"), name="out")

    _, added = prepared(build(make), einsum_to_matmul)
    assert added == {}


@pytest.mark.parametrize("equation", ["abc,cde->abde", "abcd,cde->abe", "abc,bd->adc"])
def test_an_einsum_is_calibrated_and_saved(equation):
    """Through the whole of preparation: a bias is taken in, too."""
    graph_def, x = einsum(equation, behind=lambda y: tf.nn.relu(y + normal((y.shape[-1],), 3)))
    quantized = calibrate_and_save(graph_def, x)
    (expected,), (actual,) = (run(each, ["out"], {"x": x}) for each in (graph_def, quantized))
    assert signal_to_noise(expected, actual) > 30
    assert {"AscendQuant", "BatchMatMulV2", "AscendDequant"} <= set(ops(quantized)) and "Einsum" not in ops(quantized)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_equation_means_the_same_afterwards(data):
    labels = st.lists(st.sampled_from("abcde"), min_size=1, max_size=4, unique=True)
    operands = data.draw(labels), data.draw(labels)
    output = data.draw(st.permutations(sorted({*operands[0], *operands[1]})))
    summed = data.draw(st.integers(0, len(output)))
    equation = f"{''.join(operands[0])},{''.join(operands[1])}->{''.join(output[summed:])}"
    graph_def, x = einsum(equation, data.draw(st.sampled_from(["", "a", "abcde"])))
    rewritten, _ = prepared(graph_def, einsum_to_matmul)
    check_equal(graph_def, rewritten, x)
