"""Edits an ONNX model: the primitive edits that put integers into it."""

from collections.abc import Collection
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
        self._outputs = {each.name for each in model.graph.output}

    def constant(self, tensor: str) -> np.ndarray | None:
        """Returns the value of an initializer; None if the tensor is none."""
        value = self._values.get(tensor)
        return None if value is None else np.asarray(self._onnx.numpy_helper.to_array(value))

    def readers(self, tensor: str) -> list[Any]:
        """Returns the nodes that read a tensor."""
        return [node for node in self.nodes if tensor in node.input]

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
                for index, name in enumerate(node.input):
                    if name == tensor:
                        node.input[index] = other

    def remove(self, node: Any) -> None:
        """Removes a node."""
        self.nodes = [each for each in self.nodes if each is not node]

    def model(self) -> Any:
        """Returns the edited model, its nodes in an order in which they can run, without what nothing reads."""
        nodes = in_running_order(self.nodes, lambda each: each.input, lambda each: each.output, wanted=self._outputs)
        read = {name for node in nodes for name in node.input}
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
