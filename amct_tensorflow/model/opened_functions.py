"""Opens the functions that could not be inlined, so that inspection sees their nodes; the result is never run.

    While(body)  <--  x                  While(body)  <--  x  -->  While/MatMul  -->  ...
    body(a): MatMul(a)      becomes

The nodes of a function stand beside the node that calls it, and read what that reads.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import NameAttrList
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.function_body import FunctionBody
from amct_tensorflow.graph.nodes import make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView, data_inputs, upstream
from amct_tensorflow.model.layers import IN_BRANCH, IN_LOOP
from amct_tensorflow.ops import trait
from amct_tensorflow.ops.traits import Call

_IN_FUNCTION = "it stands in a function, which is called in a way that cannot be inlined"
_REASONS = {Call.WHILE: IN_LOOP, Call.IF: IN_BRANCH, Call.CASE: IN_BRANCH}
# Functions may call themselves in a loop.
_DEEPEST = 5


class OpenGraph(NamedTuple):
    """A graph with its functions open.

    Attributes:
        view: the graph; nodes of a function have no consumers outside of it.
        names: the nodes on which the outputs depend, and the nodes of the functions that these call.
        inside: per node of a function, why it cannot be quantized, as ``why_not_quantizable`` says it.
    """

    view: GraphView
    names: frozenset[str]
    inside: Mapping[str, str]


def open_functions(view: GraphView, outputs: Sequence[str]) -> OpenGraph:
    """Opens the functions on which ``outputs`` depend.

    Raises:
        ModelError: a call does not fit its function, or a function reads what it does not contain.
    """
    needed = upstream(view.nodes, outputs)
    opener = _Opener(view)
    calls = [view.nodes[name] for name in needed if opener.called(view.nodes[name])]
    if not calls:
        return OpenGraph(view, frozenset(needed), {})
    for _ in range(_DEEPEST):
        calls = [node for call in calls for node in opener.open(call) if opener.called(node)]
    return opener.result(outputs)


class _Opener:
    def __init__(self, view: GraphView) -> None:
        self._library = view.graph_def.library
        self._functions = {str(function.signature.name): function for function in self._library.function}
        self._editor = GraphEditor(view)
        self._inside: dict[str, str] = {}

    def called(self, node: NodeDef) -> list[NameAttrList]:
        """Returns the functions that a node calls."""
        if not self._functions:
            return []
        values = [each for value in node.attr.values() for each in (value.func, *value.list.func)]
        return [each for each in (NameAttrList(name=node.op, attr=node.attr), *values) if each.name in self._functions]

    def open(self, call: NodeDef) -> list[NodeDef]:
        """Adds the nodes of the functions that a node calls, and returns them."""
        opened: list[NodeDef] = []
        for called in self.called(call):
            function = self._functions[called.name]
            arguments = self._arguments(call, function)
            body = FunctionBody(function, called.attr, arguments, self._library, self._editor, str(call.name))
            opened.extend(self._editor.node(self._put(node, call)) for node in body.nodes())
        return opened

    def result(self, outputs: Sequence[str]) -> OpenGraph:
        """Returns the graph, as far as ``outputs``, or what stands in functions, depend on it."""
        view = GraphView(self._editor.graph_def())
        names = upstream(view.nodes, [*outputs, *self._inside])
        return OpenGraph(view, frozenset(names), self._inside)

    def _arguments(self, call: NodeDef, function: FunctionDef) -> list[str]:
        """Returns the arguments of a call; tensors of unknown shape where the op does not tell them."""
        inputs = data_inputs(call.input)
        kind = trait(call.op, Call)
        if kind in (Call.WHILE, Call.DIRECT) or call.op in self._functions:
            return inputs
        if kind in (Call.IF, Call.CASE):
            return inputs[1:]
        return [self._put(self._unknown(call, each.type), call) for each in function.signature.input_arg]

    def _unknown(self, call: NodeDef, dtype: int) -> NodeDef:
        """Makes a node that yields a tensor of unknown shape; float32 where the type is unknown, too."""
        name = self._editor.unique_name(f"{call.name}/argument")
        return make_node(name, "Placeholder", (), dtype=tf.as_dtype(dtype or tf.float32))

    def _put(self, node: NodeDef, call: NodeDef) -> str:
        """Adds a node of a called function; returns its name."""
        kind = trait(call.op, Call)
        found = (self._inside.get(str(call.name)), _REASONS.get(kind) if kind is not None else None)
        reasons = [reason for reason in found if reason is not None]
        name = self._editor.add(node, like=call.name)
        self._inside[name] = IN_LOOP if IN_LOOP in reasons else next(iter(reasons), _IN_FUNCTION)
        return name
