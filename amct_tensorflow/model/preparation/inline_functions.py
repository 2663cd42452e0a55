"""Replaces a call by the nodes of the function.

    x --> StatefulPartitionedCall(f) --> y
    f(a): Conv2D(a) --> Relu                    becomes      x --> call/Conv2D --> call/Relu --> y

Keras 3 puts grouped convolutions into functions (findings/keras3_freezes_a_grouped_convolution_to_a_call.sh), exporters
whole models. What stands in a function cannot be quantized, nor can a BatchNorm behind a call be folded into it. A call
of one of several functions (``If``, ``Case``) is one of the function that a constant chooses; where none does, the call
stays.
"""

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

import numpy as np
from tensorflow.core.framework.attr_value_pb2 import AttrValue, NameAttrList
from tensorflow.core.framework.function_pb2 import FunctionDef, FunctionDefLibrary
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.function_body import FunctionBody
from amct_tensorflow.graph.names import PreparedName
from amct_tensorflow.graph.op_definitions import functions_named
from amct_tensorflow.graph.view import GraphView, attribute, data_inputs, parse_tensor_name
from amct_tensorflow.model.preparation.prepared import Origins, PreparedGraph
from amct_tensorflow.ops import trait
from amct_tensorflow.ops.traits import Call


def inline_functions(graph: PreparedGraph) -> PreparedGraph:
    """Inlines every call of a function, those inside functions too.

    Raises:
        ModelError: a function is missing, calls itself, or is called with other arguments than it takes.
    """
    while calls := list(_calls(graph.view)):
        _check_recursion(graph.view.graph_def.library)
        graph = _inline(graph, calls)
    return graph


class _Call(NamedTuple):
    """A call: the called function, the attributes that fix its types, and the input that is the first argument."""

    name: str
    function: FunctionDef
    attributes: Mapping[str, AttrValue]
    first_argument: int


def _calls(view: GraphView) -> Iterator[_Call]:
    functions = {function.signature.name: function for function in view.graph_def.library.function}
    for node in view.nodes.values():
        called, first = _called(view, node, functions)
        if called is None:
            continue
        if called.name not in functions:
            raise ModelError(
                f"Node {node.name!r} calls function {called.name!r}, which the model does not contain. Export it again."
            )
        yield _Call(str(node.name), functions[called.name], called.attr, first)


def _called(view: GraphView, node: NodeDef, functions: Mapping[str, Any]) -> tuple[NameAttrList | None, int]:
    """Returns which function a node calls, None if none or an undecided one; and which input is the first argument."""
    if node.op in functions:
        return NameAttrList(name=node.op, attr=node.attr), 0
    kind = trait(node.op, Call)
    if kind is Call.DIRECT:
        return attribute(node, "f").func, 0
    if kind is Call.IF:
        condition = view.constant(node.input[0])
        if condition is not None:
            return attribute(node, "then_branch" if _is_true(condition) else "else_branch").func, 1
    if kind is Call.CASE:
        index, branches = view.constant(node.input[0]), attribute(node, "branches").list.func
        if index is not None and branches:
            return branches[int(index) if 0 <= int(index) < len(branches) else -1], 1
    return None, 0


def _is_true(condition: np.ndarray) -> bool:
    """What is no scalar is true unless it is empty, as the op ``If`` has it."""
    return bool(condition) if condition.ndim == 0 else condition.size > 0


def _check_recursion(library: FunctionDefLibrary) -> None:
    callees = {
        function.signature.name: {name for node in function.node_def for name in functions_named(node)}
        for function in library.function
    }
    try:
        TopologicalSorter(callees).prepare()
    except CycleError as error:
        cycle = " -> ".join(reversed(error.args[1]))
        raise ModelError(
            f"The model has functions that call each other in a circle: {cycle}. Export it again."
        ) from error


def _inline(graph: PreparedGraph, calls: list[_Call]) -> PreparedGraph:
    editor = graph.editor()
    library = graph.view.graph_def.library
    origins: Origins = {}
    for call in calls:
        inputs = editor.node(call.name).input
        arguments = data_inputs(inputs)[call.first_argument :]
        body = FunctionBody(call.function, call.attributes, arguments, library, editor, call.name)
        body.wait(
            [text for text in inputs if text.startswith("^")], for_arguments=call.name in graph.view.uncertain_nodes
        )
        for node in body.nodes():
            origins[editor.add(node, like=call.name)] = graph.original_names(PreparedName(call.name))
        editor.replace_tensors({f"{call.name}:{port}": text for port, text in enumerate(body.results)})
        editor.replace_waits(call.name, body.effects or [parse_tensor_name(text).node for text in body.results])
        if call.name in graph.kept:
            editor.replace_node(body.stand_in(call.name))
        else:
            editor.remove(call.name)
    return graph.edited(editor, origins)
