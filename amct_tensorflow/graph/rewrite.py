"""Edits a GraphDef: the primitive edits of which fusion and quantization are made."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

import tensorflow as tf
from tensorflow.core.framework.function_pb2 import FunctionDefLibrary
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.op_definitions import functions_named
from amct_tensorflow.graph.view import CONTROL, GraphView, full_tensor_name, parse_tensor_name, upstream

_Name = TypeVar("_Name", bound=str)


def subgraph(graph_def: GraphDef, outputs: Iterable[str]) -> GraphDef:
    """Returns a copy of the part of a graph on which the nodes ``outputs`` depend."""
    nodes = {node.name: node for node in graph_def.node}
    return _assemble(graph_def, nodes, upstream(nodes, outputs))


def _assemble(header: GraphDef, nodes: Mapping[str, NodeDef], names: Collection[str]) -> GraphDef:
    """Returns a graph with the versions of ``header``, copies of the nodes named, and the functions that they call.

    Colocation hints are dropped: they may name nodes that have gone, and they mean nothing for a frozen graph.
    """
    result = GraphDef()
    result.versions.CopyFrom(header.versions)
    for name, node in nodes.items():
        if name in names:
            added = result.node.add()
            added.CopyFrom(node)
            if "_class" in added.attr:
                del added.attr["_class"]
    _copy_functions(header.library, result)
    return result


def _copy_functions(library: FunctionDefLibrary, graph_def: GraphDef) -> None:
    """Copies the functions that a graph calls, and those that these call; what others hold would only take space."""
    functions = {function.signature.name: function for function in library.function}
    called: set[str] = set()
    waiting = [name for node in graph_def.node for name in functions_named(node)] if functions else []
    while waiting:
        name = waiting.pop()
        if name in functions and name not in called:
            called.add(name)
            waiting.extend(other for node in functions[name].node_def for other in functions_named(node))
    graph_def.library.function.extend(function for name, function in functions.items() if name in called)
    gradients = (each for each in library.gradient if each.function_name in called and each.gradient_func in called)
    graph_def.library.gradient.extend(gradients)


class GraphEditor:
    """A graph under edit; nodes are copied when they are first changed, so that the indexed original stays as it is."""

    def __init__(self, view: GraphView, reserved: Collection[str] = ()) -> None:
        """Takes a graph, and names that no new node may get."""
        self._original = view.graph_def
        self._edges = view.consumers
        self._nodes = dict(view.nodes)
        self._copied: set[str] = set()
        self._taken = {*view.nodes, *reserved}

    def find(self, name: str) -> NodeDef | None:
        """Returns a node for reading, None if it is not there."""
        return self._nodes.get(name)

    def node(self, name: str) -> NodeDef:
        """Returns a node for reading."""
        return self._nodes[name]

    def names_of(self, *op_types: str) -> list[str]:
        """Returns the names of the nodes of some op types."""
        return [name for name, node in self._nodes.items() if node.op in op_types]

    def readers(self, outputs: Iterable[str]) -> dict[str, set[str]]:
        """Returns per node its readers, control edges included, as far as ``outputs`` depend on them."""
        found: dict[str, set[str]] = {}
        for name in upstream(self._nodes, outputs):
            for text in self._nodes[name].input:
                found.setdefault(parse_tensor_name(text).node, set()).add(name)
        return found

    def unique_name(self, name: str) -> str:
        """Returns ``name``, or ``name_1`` and so on if it was ever taken; the result counts as taken."""
        candidate, suffix = name, 0
        while candidate in self._taken:
            suffix += 1
            candidate = f"{name}_{suffix}"
        self._taken.add(candidate)
        return candidate

    def unique_scope(self, scope: str, leaves: Collection[str]) -> str:
        """Returns ``scope`` with the suffix that TensorFlow would give it, so that no ``scope/leaf`` is taken."""
        candidate, suffix = scope, 0
        while any(f"{candidate}/{leaf}" in self._taken for leaf in leaves):
            suffix += 1
            candidate = f"{scope}_{suffix}"
        self._taken.update(f"{candidate}/{leaf}" for leaf in leaves)
        return candidate

    def add(self, node: NodeDef, like: str) -> str:
        """Adds a node on the device of node ``like``; returns its name."""
        node.device = self._nodes[like].device
        return self.put(node)

    def remove(self, name: str) -> None:
        """Removes a node."""
        del self._nodes[name]

    def replace_input(self, name: str, index: int, text: str) -> None:
        """Sets one input of a node."""
        self._editable(name).input[index] = text

    def replace_constant(self, name: str, index: int, const: str, keep: Collection[str] = ()) -> None:
        """Makes a node read another constant, and drops the one before if nothing else reads it, as it may be large.

        Args:
            name: the node.
            index: which input.
            const: the other constant.
            keep: nodes that are asked for themselves.
        """
        before = parse_tensor_name(self._nodes[name].input[index]).node
        self.replace_input(name, index, const)
        if self._nodes[before].op == "Const" and len(self._edges(before)) == 1 and before not in keep:
            self.remove(before)

    def set_type(self, name: str, dtype: tf.DType) -> None:
        """Makes a node compute with another type: sets its attribute ``T``."""
        self._editable(name).attr["T"].type = dtype.as_datatype_enum

    def redirect(
        self,
        replacements: Mapping[_Name, str],
        exempt: Collection[str] = (),
        *,
        among: Collection[str] | None = None,
        control: bool = False,
    ) -> None:
        """Makes every reader of output 0 of a node read another node instead, except the ``exempt`` readers.

        Args:
            replacements: per node, the other one.
            exempt: readers that stay as they are.
            among: the nodes that are looked at; None for all.
            control: whether readers by control edges wait for the other node, too.
        """
        others: dict[str, str] = dict(replacements.items())
        for name in (self._nodes.keys() if among is None else set(among)) - set(exempt):
            for index, text in enumerate(self._nodes[name].input):
                source = parse_tensor_name(text)
                if source.node in others and (source.port == 0 or (control and source.port == CONTROL)):
                    mark = "^" if source.port == CONTROL else ""
                    self.replace_input(name, index, mark + others[source.node])

    def replace_tensors(self, replacements: Mapping[str, str]) -> None:
        """Makes every reader of a tensor read another one; control edges stay as they are.

        Args:
            replacements: per full name of a tensor, the other one as GraphDef writes an input. None of the others may
                be replaced itself.
        """
        for name in list(self._nodes):
            for index, text in enumerate(self._nodes[name].input):
                if not text.startswith("^") and (other := replacements.get(full_tensor_name(text))) is not None:
                    self.replace_input(name, index, other)

    def replace_waits(self, name: str, others: Collection[str]) -> None:
        """Makes every node that waits for a node, by a control edge, wait for other nodes instead."""
        edges = [f"^{other}" for other in others]
        for reader in list(self._nodes):
            inputs = list(self._nodes[reader].input)
            if f"^{name}" in inputs:
                kept = [text for text in inputs if text != f"^{name}"]
                self.replace_inputs(reader, list(dict.fromkeys([*kept, *edges])))

    def replace_inputs(self, name: str, texts: Sequence[str]) -> None:
        """Sets all inputs of a node."""
        node = self._editable(name)
        del node.input[:]
        node.input.extend(texts)

    def replace_node(self, node: NodeDef) -> None:
        """Puts a node, on the same device, in the place of the one of its name."""
        self.add(node, like=node.name)

    def rename(self, old: str, new: str) -> None:
        """Renames a node; its readers keep the old name."""
        node = self._editable(old)
        del self._nodes[old]
        node.name = new
        self.put(node)

    def graph_def(self) -> GraphDef:
        """Returns the edited graph."""
        return _assemble(self._original, self._nodes, self._nodes.keys())

    def graph_def_for(self, outputs: Iterable[str]) -> GraphDef:
        """Returns the part of the edited graph on which ``outputs``, as far as they are still there, depend."""
        present = [name for name in outputs if name in self._nodes]
        return _assemble(self._original, self._nodes, upstream(self._nodes, present))

    def graph_def_of(self, names: Collection[str]) -> GraphDef:
        """Returns the nodes named, whatever they read."""
        return _assemble(self._original, self._nodes, names)

    def put(self, node: NodeDef) -> str:
        """Adds a node, in the place of one of its name if there is one; returns its name."""
        name = str(node.name)
        self._taken.add(name)
        self._copied.add(name)
        self._nodes[name] = node
        return name

    def _editable(self, name: str) -> NodeDef:
        if name not in self._copied:
            copy = NodeDef()
            copy.CopyFrom(self._nodes[name])
            self._nodes[name] = copy
            self._copied.add(name)
        return self._nodes[name]
