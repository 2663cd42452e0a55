"""A graph in which the functions that could not be inlined lie open, to be looked into and never to be run.

    While(body)  <--  x                  While(body)  <--  x  -->  While/MatMul  -->  ...
    body(a): MatMul(a)      becomes

The nodes of a function stand beside the node that calls it, and read what that reads.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.function_body import FunctionBody
from amct_tensorflow.graph.layers import IN_BRANCH, IN_LOOP
from amct_tensorflow.graph.nodes import make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView, data_inputs, upstream

_LOOPS = frozenset({"While", "StatelessWhile"})
_BRANCHES = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_IN_FUNCTION = "it stands in a function, which is called in a way that cannot be inlined"
_REASONS = {**dict.fromkeys(_LOOPS, IN_LOOP), **dict.fromkeys(_BRANCHES, IN_BRANCH)}
# Functions may call themselves in a loop.
_DEEPEST = 5


class OpenGraph(NamedTuple):
    """A graph with its functions open.

    Attributes:
        view: the graph; what stands in functions has no consumers outside of it.
        names: the nodes on which the outputs depend, and those that stand in the functions that these call.
        inside: per node that stands in a function, why it cannot be quantized, as ``obstacle`` says it.
    """

    view: GraphView
    names: frozenset[str]
    inside: Mapping[str, str]


def open_functions(view: GraphView, outputs: Sequence[str]) -> OpenGraph:
    """Opens the functions that the nodes call on which ``outputs`` depend.

    Raises:
        ModelError: a function reads what it does not contain.
    """
    needed = upstream(view.nodes, outputs)
    functions = {function.signature.name: function for function in view.graph_def.library.function}
    calls = [view.nodes[name] for name in needed if any(_functions(view.nodes[name], functions))]
    if not calls:
        return OpenGraph(view, frozenset(needed), {})
    editor = GraphEditor(view)
    inside: dict[str, str] = {}
    for _ in range(_DEEPEST):
        opened = [node for call in calls for node in _open(editor, view, call, functions, inside)]
        calls = [node for node in opened if any(_functions(node, functions))]
    names = upstream({name: editor.node(name) for name in (*view.nodes, *inside)}, [*outputs, *inside])
    return OpenGraph(GraphView(editor.graph_def_of(names)), frozenset(names), inside)


def _functions(node: NodeDef, functions: Mapping[str, FunctionDef]) -> Iterator[FunctionDef]:
    """Yields the functions that a node calls."""
    names = [node.op] if node.op in functions else []
    for value in node.attr.values():
        names += [function.name for function in [value.func, *value.list.func] if function.name]
    yield from (functions[name] for name in names if name in functions)


def _open(
    editor: GraphEditor,
    view: GraphView,
    call: NodeDef,
    functions: Mapping[str, FunctionDef],
    inside: dict[str, str],
) -> list[NodeDef]:
    """Adds the nodes of the functions that a node calls; returns them, and says where they stand."""
    reason = (
        IN_LOOP if call.op in _LOOPS else IN_BRANCH if call.op in _BRANCHES else inside.get(call.name, _IN_FUNCTION)
    )
    opened = []
    library = view.graph_def.library
    for function in _functions(call, functions):
        arguments = _arguments(editor, call, function, functions.keys())
        for node in FunctionBody(function, call.attr, arguments, library, editor, str(call.name)).nodes():
            inside[editor.add(node, like=call.name)] = reason
            opened.append(node)
    return opened


def _arguments(editor: GraphEditor, call: NodeDef, function: FunctionDef, functions: Collection[str]) -> list[str]:
    """Returns with what a function is called; tensors of which nothing is known where the op does not tell."""
    inputs = data_inputs(call.input)
    if call.op in _LOOPS or call.op in _CALLS or call.op in functions:
        return inputs
    if call.op in _BRANCHES:
        return inputs[1:]
    return [editor.add(_unknown(editor.unique_name(f"{call.name}/argument"), each.type), like=call.name)
            for each in function.signature.input_arg]  # fmt: skip


def _unknown(name: str, dtype: int) -> NodeDef:
    """Makes a node that yields a tensor of unknown shape; float32 where the type is unknown, too."""
    return make_node(name, "Placeholder", (), dtype=tf.as_dtype(dtype or tf.float32))
