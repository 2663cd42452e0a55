"""Makes freezing reproducible: the same model always gives the same graph.

Resuming, and a record that belongs to a model, rely on it. TensorFlow numbers functions and captured tensors throughout
a process, and its optimizer keeps nodes in no order that lasts::

    model/conv/160                   -> model/conv/captured_0
    __inference__conv_xla_frozen_225 -> __inference__conv_xla_frozen_0

Nodes that no output needs go as well; lowering a loop leaves some behind that are never twice the same.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from tensorflow.core.framework.attr_value_pb2 import NameAttrList
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

# Numbered names of gradients, a note of the optimizer's that is there or not by chance, the settings of the process.
_VARYING_ATTRIBUTES = ("_gradient_op_type", "_has_manual_control_dependencies", "config_proto")


def reproducible(graph_def: GraphDef, outputs: Sequence[str]) -> GraphDef:
    """Returns the part of a graph that outputs need, with an order and names that depend on nothing else.

    Args:
        graph_def: a graph without variables.
        outputs: names of its output nodes; they are kept.
    """
    nodes = {node.name: node for node in graph_def.node}
    library = {function.signature.name: function for function in graph_def.library.function}
    result = GraphDef(versions=graph_def.versions)
    result.node.extend(nodes[name] for name in needed_nodes(nodes, outputs))
    called = called_functions(result.node, {name: function.node_def for name, function in library.items()})
    result.library.function.extend(library[name] for name in called)
    for body in _bodies(result):
        for node in body:
            _strip(node)
    _rename_captured(result)
    _rename_functions(result, {name: re.sub(r"\d+$", str(index), name) for index, name in enumerate(called)})
    return result


def needed_nodes(nodes: Mapping[str, NodeDef], outputs: Sequence[str]) -> list[str]:
    """Returns the nodes on which outputs depend, each after those that it reads (but for edges that close a loop)."""
    found: dict[str, bool] = {}  # whether its inputs are done
    order: list[str] = []
    waiting = list(reversed(outputs))
    while waiting:
        name = waiting[-1]
        if name not in found:
            found[name] = False
            inputs = (producer(text) for text in reversed(_inputs(nodes[name])))
            waiting.extend(each for each in inputs if each not in found)
            continue
        waiting.pop()
        if not found[name]:
            found[name] = True
            order.append(name)
    return order


def _inputs(node: NodeDef) -> list[str]:
    """Returns the inputs of a node: what it reads, then by name the control edges from other nodes than it reads.

    Lowering a condition adds an edge from a node that is read, now and then.
    """
    data = [text for text in node.input if not text.startswith("^")]
    control = {text for text in node.input if text.startswith("^")} - {f"^{producer(text)}" for text in data}
    return [*data, *sorted(control)]


def producer(text: str) -> str:
    """Returns the node that an input names."""
    return re.sub(r":\d+$", "", text.removeprefix("^"))


def called_functions(nodes: Sequence[NodeDef], library: Mapping[str, Sequence[NodeDef]]) -> list[str]:
    """Returns the functions that nodes call, and those that these call, in the order in which they are met."""
    called: dict[str, None] = {}
    bodies = [nodes]
    for body in bodies:  # which grow
        for node in body:
            for name in (node.op, *(function.name for function in _function_attributes(node))):
                if name in library and name not in called:
                    called[name] = None
                    bodies.append(library[name])
    return list(called)


def _function_attributes(node: NodeDef) -> Iterator[NameAttrList]:
    for name in sorted(node.attr):
        value = node.attr[name]
        if value.HasField("func"):
            yield value.func
        yield from value.list.func


def _bodies(graph_def: GraphDef) -> Iterator[Sequence[NodeDef]]:
    yield graph_def.node
    for function in graph_def.library.function:
        yield function.node_def


def _strip(node: NodeDef) -> None:
    """Removes attributes that vary and have no effect on the value."""
    _replace_inputs(node, _inputs(node))
    node.ClearField("experimental_debug_info")
    for name in _VARYING_ATTRIBUTES:
        node.attr.pop(name, None)


def _rename_captured(graph_def: GraphDef) -> None:
    """Numbers anew the nodes whose names are numbers."""
    captured = [node.name for node in graph_def.node if node.op == "Const" and re.search(r"(^|/)\d+$", node.name)]
    names = {name: re.sub(r"\d+$", f"captured_{index}", name) for index, name in enumerate(captured)}
    for node in graph_def.node:
        node.name = names.get(node.name, node.name)
        _replace_inputs(node, [_renamed(text, names) for text in node.input])


def _renamed(text: str, names: Mapping[str, str]) -> str:
    """Returns an input of a node under the new name of the node that it reads; a constant has but one output."""
    name = producer(text)
    return text if name not in names else f"^{names[name]}" if text.startswith("^") else names[name]


def _replace_inputs(node: NodeDef, inputs: Sequence[str]) -> None:
    del node.input[:]
    node.input.extend(inputs)


def _rename_functions(graph_def: GraphDef, names: Mapping[str, str]) -> None:
    for function in graph_def.library.function:
        function.signature.name = names[function.signature.name]
    for body in _bodies(graph_def):
        for node in body:
            node.op = names.get(node.op, node.op)
            for function in _function_attributes(node):
                function.name = names.get(function.name, function.name)
