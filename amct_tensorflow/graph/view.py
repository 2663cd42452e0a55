"""A read-only index of the nodes of a GraphDef."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import ModelError

CONTROL = -1

# How much deeper a node leads into the branches of conds.
_BRANCHING = {"Switch": 1, "RefSwitch": 1, "Merge": -1, "RefMerge": -1}

# A static shape; None stands for a length that only a run tells.
Shape = tuple[int | None, ...]


class TensorName(NamedTuple):
    """A node's output, or a control edge when ``port`` is ``CONTROL``."""

    node: str
    port: int


class Consumer(NamedTuple):
    """A node that reads a tensor at one of its inputs."""

    node: NodeDef
    input_index: int


def parse_tensor_name(text: str) -> TensorName:
    """Splits an input as GraphDef writes it: ``name``, ``name:1`` or ``^name``."""
    if text.startswith("^"):
        return TensorName(text[1:], CONTROL)
    name, colon, index = text.rpartition(":")
    if colon and index.isdigit():
        return TensorName(name, int(index))
    return TensorName(text, 0)


def full_tensor_name(text: str) -> str:
    """Returns ``name:index`` for an input as GraphDef writes it."""
    name = parse_tensor_name(text)
    return f"{name.node}:{name.port}"


def data_inputs(inputs: Iterable[str]) -> list[str]:
    """Returns those inputs of a node that carry data."""
    return [text for text in inputs if not text.startswith("^")]


def node_scope(name: str) -> str:
    """Returns the scope of a node name, with a trailing slash unless it is empty."""
    head, slash, _ = name.rpartition("/")
    return head + slash


def upstream(nodes: Mapping[str, NodeDef], names: Iterable[str]) -> set[str]:
    """Returns ``names`` and every node that they depend on."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(parse_tensor_name(text).node for text in nodes[name].input)
    return found


def attribute(node: NodeDef, name: str) -> AttrValue:
    """Returns an attribute of a node, an empty one if it is missing; ``node.attr[name]`` would add it to the node."""
    return node.attr[name] if name in node.attr else AttrValue()


def static_shapes(graph: tf.Graph) -> dict[str, Shape]:
    """Returns what TensorFlow knows of the shapes of a graph, by full tensor name; tensors of any rank are left out."""
    tensors = [tensor for operation in graph.get_operations() for tensor in operation.outputs]
    return {tensor.name: tuple(tensor.shape) for tensor in tensors if tensor.shape.rank is not None}


class GraphView:
    """A read-only index of a GraphDef.

    Attributes:
        graph_def: the indexed GraphDef.
        nodes: its nodes by name.

    Raises:
        ModelError: two nodes have the same name, or an input names a node that is not there.
    """

    def __init__(self, graph_def: GraphDef, shapes: Mapping[str, Shape] | None = None) -> None:
        """Indexes a graph.

        Args:
            graph_def: the graph.
            shapes: what is known of the shapes of its tensors, by full name.
        """
        self.graph_def = graph_def
        self._shapes = shapes or {}
        self.nodes: dict[str, NodeDef] = {}
        self._consumers: dict[str, list[Consumer]] = defaultdict(list)
        for node in graph_def.node:
            if node.name in self.nodes:
                raise ModelError(f"The model has two nodes named {node.name!r}; it is damaged. Freeze it again.")
            self.nodes[node.name] = node
        for node in graph_def.node:
            for index, text in enumerate(node.input):
                name = parse_tensor_name(text)
                if name.node not in self.nodes:
                    raise ModelError(
                        f"Node {node.name!r} reads {name.node!r}, which the model does not contain; the file is "
                        "incomplete. Freeze the model again."
                    )
                self._consumers[name.node].append(Consumer(node, index))

    def with_shapes(self, shapes: Mapping[str, Shape]) -> "GraphView":
        """Returns an index of the same graph that knows other shapes."""
        other = copy(self)
        other._shapes = shapes
        return other

    def op_types(self) -> dict[str, str]:
        """Returns the op type of every node, by name."""
        return {name: node.op for name, node in self.nodes.items()}

    def consumers(self, name: str) -> Sequence[Consumer]:
        """Returns every edge that leaves node ``name``, control edges included."""
        return self._consumers.get(name, ())

    def is_control(self, consumer: Consumer) -> bool:
        """Tells whether an edge is a control edge."""
        return str(consumer.node.input[consumer.input_index]).startswith("^")

    def producer(self, text: str) -> NodeDef:
        """Returns the node that computes the input ``text``."""
        return self.nodes[parse_tensor_name(text).node]

    def shape(self, text: str) -> Shape | None:
        """Returns the static shape of input ``text``; None if it may have any rank."""
        return self._shapes.get(full_tensor_name(text))

    def constant(self, text: str) -> np.ndarray | None:
        """Returns the value of input ``text`` if it is a Const, perhaps behind Identity nodes; else None."""
        node = self.producer(text)
        visited: set[str] = set()
        while node.op == "Identity" and node.name not in visited:
            visited.add(node.name)
            node = self.producer(node.input[0])
        return const_value(node) if node.op == "Const" else None

    def topological(self) -> Iterator[NodeDef]:
        """Yields the nodes so that each comes after the nodes it reads; a loop's NextIteration edges are ignored.

        Raises:
            ModelError: the graph has a cycle outside loops.
        """
        waiting = {node.name: 0 if self.closes_loop(node) else len(node.input) for node in self.graph_def.node}
        ready = [name for name, count in waiting.items() if count == 0]
        emitted = 0
        while ready:
            name = ready.pop()
            emitted += 1
            yield self.nodes[name]
            for consumer in self.consumers(name):
                waiting[consumer.node.name] -= 1
                if waiting[consumer.node.name] == 0:
                    ready.append(consumer.node.name)
        if emitted < len(self.nodes):
            stuck = next(name for name, count in waiting.items() if count > 0)
            raise ModelError(f"The model has a cycle through node {stuck!r}; it cannot be run. Freeze it again.")

    @cached_property
    def loop_nodes(self) -> frozenset[str]:
        """Names of the nodes inside while loops of control flow version 1, from Enter to Exit."""
        inside: set[str] = set()
        waiting = [node.name for node in self.graph_def.node if node.op in ("Enter", "RefEnter")]
        while waiting:
            name = waiting.pop()
            if name not in inside and self.nodes[name].op not in ("Exit", "RefExit"):
                inside.add(name)
                waiting.extend(consumer.node.name for consumer in self.consumers(name))
        return frozenset(inside)

    @cached_property
    def branch_nodes(self) -> frozenset[str]:
        """Names of the nodes that run only if a value says so: those between the Switch and Merge nodes of a cond."""
        depths: dict[str, int] = {}
        for node in self.topological():
            step = 0 if node.name in self.loop_nodes else _BRANCHING.get(node.op, 0)  # a loop has a Switch of its own
            depth = max((depths.get(parse_tensor_name(text).node, 0) for text in node.input), default=0)
            depths[node.name] = max(depth + step, 0)
        return frozenset(name for name, depth in depths.items() if depth > 0)

    def closes_loop(self, node: NodeDef) -> bool:
        """Tells whether a node is the Merge that values of a loop come back to after each round."""
        return node.op == "Merge" and any(self.producer(text).op == "NextIteration" for text in node.input)


def const_value(node: NodeDef) -> np.ndarray:
    """Returns the value of a Const node.

    Raises:
        ModelError: its tensor is malformed.
    """
    try:
        return np.asarray(tf.make_ndarray(attribute(node, "value").tensor))
    except (TypeError, ValueError, KeyError) as error:
        raise ModelError(f"Const node {node.name!r} holds no readable tensor ({error}). Freeze it again.") from error
