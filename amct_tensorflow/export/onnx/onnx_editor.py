"""Edits an ONNX model: the primitive edits that put integers into it."""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from amct_tensorflow.export.libraries import library
from amct_tensorflow.export.running_order import in_running_order


class OnnxEditor:
    """An ONNX model under edit; tensors are names, and an operator is what the onnx package calls a node."""

    def __init__(self, model: Any) -> None:
        self._onnx = library("onnx", "onnx")
        self._model = model
        self._values = {each.name: each for each in model.graph.initializer}
        self.nodes: list[Any] = list(model.graph.node)
        self._with_inner_graphs = [node for node in self.nodes if any(inner_graphs(node))]
        self._outputs = {each.name for each in model.graph.output}

    def constant(self, tensor: str) -> np.ndarray | None:
        """Returns the value of an initializer; None if the tensor is none."""
        value = self._values.get(tensor)
        return None if value is None else np.asarray(self._onnx.numpy_helper.to_array(value))

    def readers(self, tensor: str) -> list[Any]:
        """Returns the nodes that read a tensor, be it in a graph inside them."""
        inside = [node for node in self._with_inner_graphs if tensor in _read_by(node)]
        return [node for node in self.nodes if tensor in node.input or any(node is each for each in inside)]

    def reaches_inner_graph(self, tensor: str, stops: Collection[str]) -> bool:
        """Tells whether a node with a graph inside reads a tensor, or what nodes that are no ``stops`` make of it."""
        waiting, seen = [tensor] if self._with_inner_graphs else [], set()
        while waiting:
            name = waiting.pop()
            readers = self.readers(name) if name not in seen else []
            seen.add(name)
            if any(any(inner_graphs(node)) for node in readers):
                return True
            waiting.extend(output for node in readers if node.op_type not in stops for output in node.output)
        return False

    def is_output(self, tensor: str) -> bool:
        """Tells whether a tensor is an output of the model."""
        return tensor in self._outputs

    def add_constant(self, name: str, value: np.ndarray) -> str:
        """Adds an initializer; returns its name."""
        self._values[name] = self._onnx.numpy_helper.from_array(value, name)
        return name

    def add_node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Adds a node, called as its only output; returns that."""
        self.nodes.append(self._onnx.helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def redirect(self, tensor: str, other: str, exempt: Collection[str] = ()) -> None:
        """Makes every reader of a tensor read another one, except the nodes that yield ``exempt``."""
        for node in self.readers(tensor):
            if not set(node.output) & set(exempt):
                _rename(node, tensor, other)

    def remove(self, node: Any) -> None:
        """Removes a node."""
        self.nodes = [each for each in self.nodes if each is not node]

    def model(self) -> Any:
        """Returns the edited model, its nodes in an order in which they can run, without what nothing reads."""
        nodes = in_running_order(self.nodes, _read_by, lambda each: each.output, wanted=self._outputs)
        read = {name for node in nodes for name in _read_by(node)}
        graph = self._onnx.helper.make_graph(
            nodes,
            self._model.graph.name,
            self._model.graph.input,
            self._model.graph.output,
            [value for name, value in self._values.items() if name in read],
        )
        result = self._onnx.ModelProto()
        result.CopyFrom(self._model)
        result.graph.CopyFrom(graph)
        return result


def inner_graphs(node: Any) -> Iterator[Any]:
    """Yields the graphs in the attributes of a node, such as the body of a loop."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _read_by(node: Any) -> set[str]:
    """Returns the tensors that a node reads, and those that graphs inside it read of the graph around them."""
    return {*node.input, *(name for graph in inner_graphs(node) for name in _taken_from_around(graph))}


def _taken_from_around(graph: Any) -> set[str]:
    """Returns the tensors that a graph reads, and that neither it nor a graph inside it yields."""
    own = {each.name for each in (*graph.input, *graph.initializer)}
    own.update(name for each in graph.node for name in each.output)
    read = {each.name for each in graph.output}
    return read.union(*map(_read_by, graph.node)) - own


def _rename(node: Any, tensor: str, other: str) -> None:
    """Makes a node, and the graphs inside it, read another tensor; inner graphs call none of their own so."""
    node.input[:] = [other if name == tensor else name for name in node.input]
    for graph in inner_graphs(node):
        for each in graph.node:
            _rename(each, tensor, other)
        for output in graph.output:
            if output.name == tensor:
                output.name = other
