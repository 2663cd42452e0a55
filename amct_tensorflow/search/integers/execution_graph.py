"""Turns the quantized graph into one that computes in integers, and yields the same to the bit.

    AscendQuant -> Conv2D -> BiasAdd -> AscendDequant -> AscendQuant -> Conv2D -> ...    becomes
    AscendQuant -> Cast -> _FusedQuantizedConv2D -> _FusedQuantizedConv2D -> ...

If a quantizer alone reads a convolution, and the kernel makes the same bytes, the convolution yields them, with no
floats in between. Otherwise AscendDequant reads its sums as floats, and what follows it is the simulation.
"""

from collections.abc import Collection, Mapping

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.graph.names import QuantizedName
from amct_tensorflow.graph.nodes import make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.search.integers import integer_nodes
from amct_tensorflow.search.integers.integer_nodes import Scope
from amct_tensorflow.search.integers.kernel_layer import KernelLayer


def execution_graph(view: GraphView, layers: Mapping[QuantizedName, KernelLayer], outputs: Collection[str]) -> GraphDef:
    """Returns the graph in which some layers run in integers.

    Args:
        view: the quantized model; knows the shapes of its tensors as far as they are known.
        layers: these layers, by name, as found for these outputs.
        outputs: nodes whose values are requested; they keep their names.
    """
    return _Rewrite(view, layers, outputs).graph_def()


class _Rewrite:
    """Replaces the layers by integer kernels, in the order in which they run."""

    def __init__(self, view: GraphView, layers: Mapping[QuantizedName, KernelLayer], outputs: Collection[str]) -> None:
        self._view = view
        self._layers = {layer.quantized.dequantizer: layer for layer in layers.values()}
        self._outputs = outputs
        self._editor = GraphEditor(view)
        self._bytes: dict[str, str] = {}

    def graph_def(self) -> GraphDef:
        for node in self._view.topological():
            if node.name in self._layers:
                self._compute(self._layers[node.name])
        return self._editor.graph_def_for(self._outputs)

    def _compute(self, layer: KernelLayer) -> None:
        scope = Scope(self._editor, layer.name)
        data = self._data(layer)
        to = layer.to_bytes
        if to is None:
            self._editor.replace_input(layer.quantized.dequantizer, 0, integer_nodes.float_sums(scope, layer, data))
            return
        result = integer_nodes.requantized(scope, layer, data, to)
        self._bytes[to.quantizer] = result
        # Whoever else reads the quantizer goes on to get what it yielded.
        integers = integer_nodes.integers_of(Scope(self._editor, to.quantizer), result, to.form)
        self._editor.replace_node(make_node(to.quantizer, "Identity", [integers], T=tf.float32))

    def _data(self, layer: KernelLayer) -> str:
        """Returns the input of a layer, as bytes."""
        name = layer.quantized.quantizer.name
        if name not in self._bytes:
            self._bytes[name] = integer_nodes.bytes_of(Scope(self._editor, name), name, layer.sums.form)
        return self._bytes[name]
