"""An Einsum of two computed operands becomes a product of matrices per member of the batch; others stay."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal, prepared, run, tf1

from amct_tensorflow.model.preparation.einsum_to_batch_matmul import einsum_to_batch_matmul

LENGTHS = dict(zip("abcdef", (2, 3, 4, 5, 6, 7), strict=True))


def einsum(equation, unknown):
    """A graph with the Einsum ``layer``; axes whose labels are ``unknown`` have no static length."""
    labels = equation.split("->")[0].split(",")

    def make():
        inputs = [
            tf1.placeholder(tf.float32, [None if label in unknown else LENGTHS[label] for label in each], name=name)
            for name, each in zip("xy", labels, strict=True)
        ]
        tf.identity(tf.raw_ops.Einsum(inputs=inputs, equation=equation, name="layer"), name="out")

    values = {name: normal([LENGTHS[label] for label in each], 1) for name, each in zip("xy", labels, strict=True)}
    return build(make), values


EQUATIONS = {
    "abcd,aecd->acbe": ["BatchMatMulV2"],
    "aecd,abcd->acbe": ["BatchMatMulV2"],
    "acbe,aecd->abcd": ["BatchMatMulV2"],
    "abc,acd->adb": ["BatchMatMulV2"],
    "abcd,aecd->abe": ["BatchMatMulV2", "Reshape", "Reshape"],
    "abcd,aefd->abcef": ["BatchMatMulV2", "Reshape", "Reshape", "Reshape"],
    "ab,cb->ac": ["MatMul"],
}


@pytest.mark.parametrize("unknown", ["", "a"])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_a_product_of_two_computed_operands(equation, unknown):
    graph_def, values = einsum(equation, unknown)
    for keep in ("out", "layer"):
        rewritten, added = prepared(graph_def, einsum_to_batch_matmul, keep=(keep,))
        ops = sorted(node.op for node in rewritten.node if node.op in ("Einsum", "MatMul", "BatchMatMulV2", "Reshape"))
        assert ops == sorted(EQUATIONS[equation]) and set(added.values()) == {("layer",)}
        (expected,), (actual,) = (run(each, [keep], values) for each in (graph_def, rewritten))
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("equation", "unknown"), [("abc,ac->ab", ""), ("abc,abc->ab", ""), ("ab,ac->abc", ""), ("abcd,aecd->abe", "bc")]
)
def test_others_stay(equation, unknown):
    """They have no columns, no rows, no inner axis, or axes of unknown lengths that would have to become one."""
    graph_def, _ = einsum(equation, unknown)
    rewritten, added = prepared(graph_def, einsum_to_batch_matmul)
    assert added == {} and rewritten == graph_def
