"""Puts the nodes of a function in the place of its call.

    x --> StatefulPartitionedCall(f) --> y
    f(a): Conv2D(a) --> Relu                    becomes      x --> call/Conv2D --> call/Relu --> y

Keras 3 puts grouped convolutions into functions, exporters whole models. What stands in a function cannot be
quantized, nor can a BatchNorm behind a call be folded into it. A call of one of several functions (``If``, ``Case``)
is one of the function that a constant chooses; where none does, the call stays.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.function_body import FunctionBody
from amct_tensorflow.graph.nodes import make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView, attribute, data_inputs, parse_tensor_name
from amct_tensorflow.preparation.prepared import PreparedGraph

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_DEEPEST = 50


def inline_functions(graph: PreparedGraph) -> PreparedGraph:
    """Inlines every call of a function, those inside functions too.

    Raises:
        ModelError: functions call each other without end.
    """
    for _ in range(_DEEPEST):
        calls = list(_calls(graph.view))
        if not calls:
            return graph
        graph = _inline(graph, calls)
    raise ModelError(
        f"The functions of the model call each other more than {_DEEPEST} deep, as at node {calls[0].name!r}. "
        "Export it without recursion."
    )


class _Call(NamedTuple):
    """A call, what it calls, and which of its inputs is the first argument."""

    name: str
    function: FunctionDef
    first_argument: int


def _calls(view: GraphView) -> Iterator[_Call]:
    functions = {function.signature.name: function for function in view.graph_def.library.function}
    if not functions:
        return
    for node in view.nodes.values():
        name, first = _called(view, node, functions)
        if name in functions:
            yield _Call(str(node.name), functions[name], first)


def _called(view: GraphView, node: NodeDef, functions: Mapping[str, FunctionDef]) -> tuple[str, int]:
    """Returns the name of the function that a node calls, and which of its inputs is the first argument."""
    if node.op in functions:
        return str(node.op), 0
    if node.op in _CALLS:
        return str(attribute(node, "f").func.name), 0
    if node.op in ("If", "StatelessIf"):
        condition = view.constant(node.input[0])
        branch = "" if condition is None else "then_branch" if condition.any() else "else_branch"
        return str(attribute(node, branch).func.name), 1
    if node.op in ("Case", "StatelessCase"):
        index, branches = view.constant(node.input[0]), attribute(node, "branches").list.func
        if index is not None and branches:
            chosen = int(index) if 0 <= int(index) < len(branches) else len(branches) - 1
            return str(branches[chosen].name), 1
    return "", 0


def _inline(graph: PreparedGraph, calls: list[_Call]) -> PreparedGraph:
    editor = GraphEditor(graph.view)
    origins: dict[str, tuple[str, ...]] = {}
    for call in calls:
        caller = editor.node(call.name)
        arguments = data_inputs(caller.input)[call.first_argument :]
        body = FunctionBody(editor, graph.view.graph_def.library, caller, call.function, arguments)
        for node in body.nodes():
            origins[editor.add(node, like=call.name)] = graph.original_names(call.name)
        results = body.results()
        editor.replace_tensors({f"{call.name}:{port}": text for port, text in enumerate(results)})
        editor.replace_waits(call.name, body.side_effects() or [parse_tensor_name(text).node for text in results])
        if call.name in graph.kept:
            editor.replace_node(_stand_in(call, results))
        else:
            editor.remove(call.name)
    return graph.edited(editor, origins)


def _stand_in(call: _Call, results: list[str]) -> NodeDef:
    """Returns a node of the name of a call, for whoever asks for it."""
    if not results:
        return make_node(call.name, "NoOp", ())
    node = make_node(call.name, "Identity", [results[0]])
    node.attr["T"].type = call.function.signature.output_arg[0].type
    return node
