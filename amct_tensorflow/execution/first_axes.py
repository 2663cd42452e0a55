"""Which tensors are equally long along their first axis, however long a run makes it."""

from collections.abc import Mapping
from functools import cached_property

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, attribute, data_inputs, parse_tensor_name
from amct_tensorflow.quantized import ascend_ops

# What yields as much along the first axis as its first input has, whatever its others are.
_KEEPING = {
    "AvgPool", "BiasAdd", "Conv2D", "Conv3D", "DepthwiseConv2dNative", "Elu", "FusedBatchNorm", "FusedBatchNormV2",
    "FusedBatchNormV3", "Identity", "LeakyRelu", "MatMul", "MaxPool", "Relu", "Relu6", "Selu", "Sigmoid", "Softplus",
    "Tanh", ascend_ops.ANTI_QUANT, ascend_ops.DEQUANT, ascend_ops.QUANT,
}  # fmt: skip
_BROADCASTING = {"Add", "AddV2", "Maximum", "Minimum", "Mul", "RealDiv", "Sub"}
_REDUCING = {"Max", "Mean", "Sum"}


class FirstAxes:
    """From which node each tensor of a graph has its first axis; they are equally long if it is the same."""

    def __init__(self, view: GraphView) -> None:
        """Takes the graph; its view knows the shapes of its tensors as far as they are known."""
        self._view = view

    def agree(self, one: str, other: str) -> bool:
        """Tells whether two tensors, as inputs name them, are equally long in every run; False if it is not known."""
        shapes = [self._view.shape(text) for text in (one, other)]
        lengths = {shape[0] if shape else None for shape in shapes}
        if None not in lengths:
            return len(lengths) == 1
        return self._source(one) == self._source(other)

    def _source(self, text: str) -> tuple[str, int]:
        return _source(text, self._sources)

    @cached_property
    def _sources(self) -> Mapping[str, tuple[str, int]]:
        """Per node the output from which the first axis of its first output comes, if that is that of another node."""
        found: dict[str, tuple[str, int]] = {}
        for node in self._view.topological():
            inputs = {_source(text, found) for text in self._lengthening(node)}
            if len(inputs) == 1:
                found[node.name] = inputs.pop()
        return found

    def _lengthening(self, node: NodeDef) -> list[str]:
        """Returns the inputs of a node one of which its output is as long as; none if that cannot be told."""
        inputs = data_inputs(node.input)
        if node.op in _KEEPING:
            return [] if attribute(node, "transpose_a").b else inputs[:1]
        if node.op in _BROADCASTING:
            return [text for text in inputs if not self._adapts(node, text)]
        if node.op in _REDUCING:
            axes = self._view.constant(inputs[1])
            return [] if axes is None or (axes <= 0).any() else inputs[:1]
        return []

    def _adapts(self, node: NodeDef, text: str) -> bool:
        """Tells whether an operand is known to be repeated along the first axis as often as another one asks for."""
        shape, result = self._view.shape(text), self._view.shape(node.name)
        return shape is not None and result is not None and (len(shape) < len(result) or shape[0] == 1)


def _source(text: str, sources: Mapping[str, tuple[str, int]]) -> tuple[str, int]:
    name = parse_tensor_name(text)
    return sources.get(name.node, name) if name.port == 0 else name
