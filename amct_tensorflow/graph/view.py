"""A read-only index of the nodes of a GraphDef."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Generic, NamedTuple, TypeVar, cast

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DT_FLOAT

from amct_tensorflow.errors import ModelError

CONTROL = -1

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


_Name_co = TypeVar("_Name_co", bound=str, covariant=True)
_NodeName = TypeVar("_NodeName", bound=str)


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


def upstream(nodes: Mapping[_NodeName, NodeDef], names: Iterable[_NodeName]) -> set[_NodeName]:
    """Returns ``names`` and every node that they depend on."""
    index = cast(Mapping[str, NodeDef], nodes)
    found: set[str] = set()
    waiting: list[str] = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(parse_tensor_name(text).node for text in index[name].input)
    return cast(set[_NodeName], found)


def attribute(node: NodeDef, name: str) -> AttrValue:
    """Returns an attribute of a node, an empty one if it is missing; ``node.attr[name]`` would add it to the node."""
    return node.attr[name] if name in node.attr else AttrValue()


def static_shapes(graph: tf.Graph) -> dict[str, Shape]:
    """Returns the static shapes of a graph, by full tensor name; tensors of unknown rank are left out."""
    tensors = [tensor for operation in graph.get_operations() for tensor in operation.outputs]
    # With TensorFlow 1's behavior the lengths of a shape are no numbers, but those of its list are.
    return {tensor.name: tuple(tensor.shape.as_list()) for tensor in tensors if tensor.shape.rank is not None}


def _flow_op(node: NodeDef) -> str:
    """Returns the op type of a node of control flow; what passes references on does as what passes values on."""
    return str(node.op).removeprefix("Ref")


class NamedGraph(Generic[_Name_co]):
    """A read-only index of a GraphDef whose nodes have names of one type (see ``names``).

    Attributes:
        graph_def: the indexed GraphDef.

    Raises:
        ModelError: two nodes have the same name, or an input names a node that is not there.
    """

    def __init__(self, graph_def: GraphDef, shapes: Mapping[str, Shape] | None = None) -> None:
        """Indexes a graph.

        Args:
            graph_def: the graph.
            shapes: the known shapes of its tensors, by full name.
        """
        self.graph_def = graph_def
        self._shapes = dict(shapes or {})
        self._nodes: dict[str, NodeDef] = {}
        self._consumers: dict[str, list[Consumer]] = defaultdict(list)
        for node in graph_def.node:
            if node.name in self._nodes:
                raise ModelError(f"The model has two nodes named {node.name!r}; it is damaged. Freeze it again.")
            self._nodes[node.name] = node
        for node in graph_def.node:
            for index, text in enumerate(node.input):
                name = parse_tensor_name(text)
                if name.node not in self._nodes:
                    raise ModelError(
                        f"Node {node.name!r} reads {name.node!r}, which the model does not contain; the file is "
                        "incomplete. Freeze the model again."
                    )
                self._consumers[name.node].append(Consumer(node, index))

    def edited(self, graph_def: GraphDef, alike: Mapping[str, str] | None = None) -> "NamedGraph[_Name_co]":
        """Returns the index of an edited graph, whose tensors have the shapes that they had under the same names.

        Args:
            graph_def: the graph.
            alike: per new node, a node of the graph before whose output 0 has the shape of its own.
        """
        new = {f"{name}:0": self.shape(other) for name, other in (alike or {}).items()}
        return NamedGraph(graph_def, self._shapes | {name: shape for name, shape in new.items() if shape is not None})

    def with_more_shapes(self, shapes: Mapping[str, Shape]) -> "NamedGraph[_Name_co]":
        """Returns an index of the same graph that knows some shapes better."""
        return self.with_shapes({**self._shapes, **shapes})

    def with_shapes(self, shapes: Mapping[str, Shape]) -> "NamedGraph[_Name_co]":
        """Returns an index of the same graph that knows other shapes."""
        other = copy(self)
        other._shapes = dict(shapes)
        return other

    @property
    def nodes(self) -> Mapping[_Name_co, NodeDef]:
        """Its nodes by name."""
        return cast(Mapping[_Name_co, NodeDef], self._nodes)

    def op_types(self) -> dict[str, str]:
        """Returns the op type of every node, by name."""
        return {name: node.op for name, node in self._nodes.items()}

    def consumers(self, name: _Name_co) -> Sequence[Consumer]:  # type: ignore[misc] # a view of any graph takes any name
        """Returns every edge that leaves node ``name``, control edges included."""
        return self._edges(name)

    def _edges(self, name: str) -> Sequence[Consumer]:
        return self._consumers.get(name, ())

    def readers(self, name: _Name_co) -> list[NodeDef]:  # type: ignore[misc] # likewise
        """Returns the nodes that read an output of node ``name``, one as often as it does."""
        return [edge.node for edge in self._edges(name) if not self.is_control(edge)]

    def is_control(self, consumer: Consumer) -> bool:
        """Tells whether an edge is a control edge."""
        return str(consumer.node.input[consumer.input_index]).startswith("^")

    def downstream(self, names: Iterable[str], within: Collection[str] | None = None) -> set[str]:
        """Returns ``names`` and every node that depends on them or waits for them; all of them ``within``, if given."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found and (within is None or name in within):
                found.add(name)
                waiting.extend(edge.node.name for edge in self._edges(name))
        return found

    def producer(self, text: str) -> NodeDef:
        """Returns the node that computes the input ``text``."""
        return self._nodes[parse_tensor_name(text).node]

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
        """Yields the nodes so that each comes after all that it depends on; what a loop yields, after all of the loop.

        Raises:
            ModelError: the graph has a cycle outside loops.
        """
        sorter: TopologicalSorter[str] = TopologicalSorter()
        for name in self._nodes:  # what is ready at first comes in the order of the graph
            sorter.add(name)
        for name in self._nodes:
            for edge in self._edges(name):
                if not self._goes_round(edge.node, edge.node.input[edge.input_index]):
                    sorter.add(edge.node.name, name)
        for name, exits in self._exits().items():
            for left in exits:
                sorter.add(left, name)
        try:
            sorter.prepare()
        except CycleError as error:
            stuck = error.args[1][0]
            raise ModelError(
                f"The model has a cycle through node {stuck!r}; it cannot be run. Freeze it again."
            ) from error
        # What a node makes ready comes next, last first: so a graph is followed along its paths.
        ready = list(sorter.get_ready())
        while ready:
            name = ready.pop()
            yield self._nodes[name]
            sorter.done(name)
            ready.extend(sorter.get_ready())

    @cached_property
    def loop_nodes(self) -> frozenset[str]:
        """Names of the nodes inside while loops of control flow version 1, from Enter to Exit."""
        opened = {name for name, node in self._nodes.items() if _flow_op(node) == "Enter"}
        closed = {name for name, node in self._nodes.items() if _flow_op(node) == "Exit"}
        return self._between(opened, closed)

    @cached_property
    def branch_nodes(self) -> frozenset[str]:
        """Names of the nodes of which only a run tells whether they run (``tf.cond`` of control flow version 1)."""
        opened = {
            name for name, node in self._nodes.items() if _flow_op(node) == "Switch" and not self.is_of_loop(node)
        }
        closed = {name for name, node in self._nodes.items() if _flow_op(node) == "Merge" and not self.is_of_loop(node)}
        return self._between(opened, closed)

    @cached_property
    def uncertain_nodes(self) -> frozenset[str]:
        """Names of the nodes that may run never, or more than once, in a run: those in branches and loops."""
        return self.loop_nodes | self.branch_nodes

    def is_of_loop(self, node: NodeDef) -> bool:
        """Tells whether a Switch or Merge belongs to a loop itself, not to a branch."""
        if _flow_op(node) == "Switch":
            return bool(self.producer(node.input[1]).op == "LoopCond")
        return any(self._goes_round(node, text) for text in node.input)

    def closes_loop(self, node: NodeDef) -> bool:
        """Tells whether a node is the Merge that values of a loop come back to after each round."""
        return _flow_op(node) == "Merge" and self.is_of_loop(node)

    def _between(self, opened: Collection[str], closed: Collection[str]) -> frozenset[str]:
        """Returns the nodes behind those that open something, which may be nested, up to those that close it."""
        depths: dict[str, int] = {}
        waiting = [(name, 0) for name in opened]
        while waiting:
            name, depth = waiting.pop()
            depth += (name in opened) - (name in closed)
            if depths.get(name, 0) < depth <= len(opened):
                depths[name] = depth
                waiting.extend((edge.node.name, depth) for edge in self._edges(name))
        return frozenset(depths)

    def _goes_round(self, node: NodeDef, text: str) -> bool:
        """Tells whether an input brings a value of the last round of a loop."""
        return _flow_op(node) == "Merge" and _flow_op(self.producer(text)) == "NextIteration"

    def _exits(self) -> dict[str, list[str]]:
        """Returns per NextIteration the Exits of its loop."""
        found = defaultdict(list)
        for node in self._nodes.values():
            if node.op == "LoopCond":
                switches = [edge.node for edge in self._edges(node.name) if _flow_op(edge.node) == "Switch"]
                left = [edge.node.name for each in switches for edge in self._edges(each.name)]
                ends = [name for name in left if _flow_op(self._nodes[name]) == "Exit"]
                merges = [self.producer(switch.input[0]) for switch in switches]
                for merge in merges:
                    for text in merge.input:
                        if self._goes_round(merge, text):
                            found[parse_tensor_name(text).node].extend(ends)
        return found


# A view of any graph, for functions that read and edit graphs of all kinds.
GraphView = NamedGraph[str]


# TensorFlow's tensors begin at multiples of so many bytes.
_ALIGNMENT = 64


def const_value(node: NodeDef) -> np.ndarray:
    """Returns the value of a Const node; that of many floats begins where TensorFlow takes it without a copy.

    Raises:
        ModelError: its tensor is malformed.
    """
    tensor = attribute(node, "value").tensor
    try:
        content = tensor.tensor_content  # each access copies it, and make_ndarray has several
        if content and tensor.dtype == DT_FLOAT:
            return _aligned_copy(
                np.frombuffer(content, np.float32).reshape([axis.size for axis in tensor.tensor_shape.dim])
            )
        return np.asarray(tf.make_ndarray(tensor))
    except (TypeError, ValueError, KeyError) as error:
        raise ModelError(f"Const node {node.name!r} holds no readable tensor ({error}). Freeze it again.") from error


def is_aligned(values: np.ndarray) -> bool:
    """Tells whether values begin where TensorFlow takes them without a copy."""
    return bool(values.ctypes.data % _ALIGNMENT == 0 and values.flags.c_contiguous)


def aligned(values: np.ndarray) -> np.ndarray:
    """Returns values, or a copy of them that begins where TensorFlow takes it without another."""
    return values if is_aligned(values) else _aligned_copy(values)


def _aligned_copy(values: np.ndarray) -> np.ndarray:
    room = np.empty(values.nbytes + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    placed = room[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    placed[...] = values
    return placed


def stored_bytes(tensor: TensorProto) -> int:
    """Returns how many bytes a file holds of a tensor; one that is all alike may be stored as one number."""
    return len(tensor.tensor_content) or int(tensor.ByteSize())
