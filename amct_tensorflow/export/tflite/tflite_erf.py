"""Writes Erf and Erfc in ops that TensorFlow Lite has kernels of.

It has one of Gelu, into which the converter makes the ops of a Gelu if it recognizes them, but none of these two.
"""

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView

# The rational function by which Eigen, and so TensorFlow, computes the error function of float32:
# x * P(x^2) / Q(x^2), where |x| is at most _BOUND, beyond which the function is 1 in float32. Highest powers first.
_BOUND = 3.832506856900711
_P = (
    -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
    -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02,
)  # fmt: skip
_Q = (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02)


def with_erf_in_small_ops(graph_def: GraphDef) -> GraphDef | None:
    """Returns a graph without Erf and Erfc of float32, which become products, sums and a quotient.

    Values lie within 5e-7 of those of the functions.

    Returns:
        None if there are none.
    """
    editor = GraphEditor(GraphView(graph_def))
    names = [name for name in editor.names_of("Erf", "Erfc") if editor.node(name).attr["T"].type == tf.float32]
    for name in names:
        _Writer(editor, name).write()
    return editor.graph_def() if names else None


class _Writer:
    """Writes one Erf or Erfc anew."""

    def __init__(self, editor: GraphEditor, name: str) -> None:
        self._editor = editor
        self._name = name

    def write(self) -> None:
        """Replaces the node."""
        node = self._editor.node(self._name)
        x = self._add("Maximum", self._add("Minimum", node.input[0], self._const(_BOUND)), self._const(-_BOUND))
        square = self._add("Mul", x, x)
        numerator = self._add("Mul", x, self._polynomial(square, _P))
        erf = (numerator, self._polynomial(square, _Q))
        if node.op == "Erf":
            self._editor.replace_node(make_node(self._name, "RealDiv", erf, T=tf.float32))
        else:
            inputs = [self._const(1.0), self._add("RealDiv", *erf)]
            self._editor.replace_node(make_node(self._name, "Sub", inputs, T=tf.float32))

    def _polynomial(self, x: str, factors: tuple[float, ...]) -> str:
        """Adds a polynomial by Horner's rule."""
        value = self._const(factors[0])
        for factor in factors[1:]:
            value = self._add("AddV2", self._add("Mul", value, x), self._const(factor))
        return value

    def _const(self, value: float) -> str:
        node = make_const(self._editor.unique_name(f"{self._name}/const"), np.array(value, np.float32))
        return self._editor.add(node, like=self._name)

    def _add(self, op: str, *inputs: str) -> str:
        node = make_node(self._editor.unique_name(f"{self._name}/{op}"), op, inputs, T=tf.float32)
        return self._editor.add(node, like=self._name)
