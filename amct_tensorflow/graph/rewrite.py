"""Editing a GraphDef: the few primitive edits that fusion and quantization are made of."""

from collections.abc import Collection, Mapping

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, parse_tensor_name


def keep_needed(graph_def: GraphDef, outputs: Collection[str]) -> None:
    """Removes, in place, every node that no output depends on."""
    inputs = {node.name: [parse_tensor_name(text).node for text in node.input] for node in graph_def.node}
    needed: set[str] = set()
    waiting = list(outputs)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting.extend(inputs[name])
    kept = [node for node in graph_def.node if node.name in needed]
    del graph_def.node[:]
    graph_def.node.extend(kept)


class GraphEditor:
    """A copy of a graph under edit; the indexed original stays as it is."""

    def __init__(self, view: GraphView) -> None:
        self._header = tf.compat.v1.GraphDef()
        self._header.versions.CopyFrom(view.graph_def.versions)
        self._header.library.CopyFrom(view.graph_def.library)
        self._nodes: dict[str, NodeDef] = {}
        self._taken = set(view.nodes)
        for node in view.graph_def.node:
            self._nodes[node.name] = type(node).FromString(node.SerializeToString())

    def node(self, name: str) -> NodeDef:
        """Returns a node, for changes in place."""
        return self._nodes[name]

    def find(self, name: str) -> NodeDef | None:
        """Returns a node, None if it is not there."""
        return self._nodes.get(name)

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

    def add(self, node: NodeDef, like: str | None = None) -> str:
        """Adds a node, on the device of node ``like`` where given; returns its name."""
        if like is not None:
            node.device = self._nodes[like].device
        self._taken.add(node.name)
        self._nodes[node.name] = node
        return str(node.name)

    def remove(self, name: str) -> None:
        """Removes a node."""
        del self._nodes[name]

    def replace_input(self, name: str, index: int, text: str) -> None:
        """Sets one input of a node."""
        self._nodes[name].input[index] = text

    def redirect(self, replacements: Mapping[str, str], exempt: Collection[str] = ()) -> None:
        """Makes every reader of output 0 of a node read another node instead, except the ``exempt`` readers."""
        for node in self._nodes.values():
            if node.name in exempt:
                continue
            for index, text in enumerate(node.input):
                source = parse_tensor_name(text)
                if source.port == 0 and source.node in replacements:
                    node.input[index] = replacements[source.node]

    def rename(self, old: str, new: str) -> None:
        """Renames a node; its readers keep the old name."""
        node = self._nodes.pop(old)
        node.name = new
        self._nodes[new] = node

    def graph_def(self) -> GraphDef:
        """Returns the edited graph.

        Colocation hints are dropped: they may name nodes that have gone, and they mean nothing for a frozen graph.
        """
        result = type(self._header).FromString(self._header.SerializeToString())
        for node in self._nodes.values():
            added = result.node.add()
            added.CopyFrom(node)
            if "_class" in added.attr:
                del added.attr["_class"]
        return result
