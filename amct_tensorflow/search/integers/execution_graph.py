"""Turns the quantized graph into one that computes in integers.

    AscendQuant -> Conv2D -> BiasAdd -> AscendDequant -> AscendQuant -> ...    becomes
    AscendQuant -> Cast -> _FusedQuantizedConv2D -> _FusedQuantizedConv2D -> ...

If all readers of a layer are quantizers with one scale and zero point 0, perhaps behind clips, the kernel itself
yields their bytes, with no floats in between. Otherwise it yields values; if these are only added to others of the same
shape, as in a residual path, the kernel adds them, too.
"""

from collections.abc import Collection, Mapping
from functools import cached_property

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.names import QuantizedName
from amct_tensorflow.graph.nodes import make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView, attribute, data_inputs, parse_tensor_name
from amct_tensorflow.ops import has, trait
from amct_tensorflow.ops.traits import Elementwise, PerImage, Reduction, Sum
from amct_tensorflow.search.integers import integer_nodes
from amct_tensorflow.search.integers.integer_nodes import Scope
from amct_tensorflow.search.integers.kernel_layer import KernelLayer, requantization


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
        elementwise = trait(node.op, Elementwise)
        if elementwise is not None and elementwise.operands > 1:
            return [text for text in inputs if not self._adapts(node, text)]
        if elementwise is not None or has(node.op, PerImage):
            return [] if attribute(node, "transpose_a").b else inputs[:1]
        if has(node.op, Reduction):
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


def execution_graph(view: GraphView, layers: Mapping[QuantizedName, KernelLayer], outputs: Collection[str]) -> GraphDef:
    """Returns the graph in which some layers run in integers.

    Args:
        view: the quantized model; knows the shapes of its tensors as far as they are known.
        layers: these layers, by name.
        outputs: nodes whose values are requested; they keep their names.
    """
    return _Rewrite(view, layers, outputs).graph_def()


class _Rewrite:
    """Replaces the layers by integer kernels, in the order in which they run."""

    def __init__(self, view: GraphView, layers: Mapping[QuantizedName, KernelLayer], outputs: Collection[str]) -> None:
        self._view = view
        self._layers = {layer.quantized.dequantizer: layer for layer in layers.values()}
        self._outputs = outputs
        self._first_axes = FirstAxes(view)
        self._editor = GraphEditor(view)
        self._bytes: dict[str, str] = {}
        self._additions: set[str] = set()

    def graph_def(self) -> GraphDef:
        for node in self._view.topological():
            if node.name in self._layers:
                self._compute(self._layers[node.name])
        return self._editor.graph_def_for(self._outputs)

    def _compute(self, layer: KernelLayer) -> None:
        scope = Scope(self._editor, layer.name)
        data = self._data(layer)
        to = requantization(self._view, layer.quantized, self._outputs)
        if to is None:
            self._yield_values(scope, layer, data)
            return
        result = integer_nodes.requantized(scope, layer, data, to)
        for quantizer in to.quantizers:
            self._bytes[quantizer] = result
            # Whoever else reads the quantizer goes on to get what it yielded.
            plain = integer_nodes.integers_of(Scope(self._editor, quantizer), result)
            self._editor.replace_node(make_node(quantizer, "Cast", [plain], SrcT=tf.uint8, DstT=tf.float32))

    def _data(self, layer: KernelLayer) -> str:
        """Returns the input of a layer, as bytes."""
        name = layer.quantized.quantizer.name
        if name not in self._bytes:
            self._bytes[name] = integer_nodes.bytes_of(Scope(self._editor, name), name, layer)
        return self._bytes[name]

    def _yield_values(self, scope: Scope, layer: KernelLayer, data: str) -> None:
        """Lets a layer yield floats, and add those of a residual path if nothing else reads them."""
        addition = self._addition(layer)
        if addition is None:
            result = integer_nodes.values(scope, layer, data)
            name = layer.quantized.dequantizer
        else:
            name = QuantizedName(addition.name)
            self._additions.add(name)
            other = next(text for text in addition.input if parse_tensor_name(text).node != layer.quantized.dequantizer)
            result = integer_nodes.values(scope, layer, data, other)
        self._editor.replace_node(make_node(name, "Identity", [result], T=tf.float32))

    def _addition(self, layer: KernelLayer) -> NodeDef | None:
        """Returns the only reader of a product of matrices if it adds a tensor of the same shape to its values."""
        name = layer.quantized.dequantizer
        readers = self._view.readers(name) if name not in self._outputs else []
        if len(readers) != 1 or not has(readers[0].op, Sum) or not layer.is_product:
            return None
        node = readers[0]
        return node if self._are_alike(*data_inputs(node.input)) and node.name not in self._additions else None

    def _are_alike(self, one: str, other: str) -> bool:
        """Tells whether two tensors have the same shape in every run; the kernel repeats neither for the other."""
        lengths = [tuple(shape[1:]) if shape else () for shape in map(self._view.shape, (one, other))]
        is_known = len(lengths[0]) > 0 and None not in lengths[0]
        return is_known and lengths[0] == lengths[1] and self._first_axes.agree(one, other)
