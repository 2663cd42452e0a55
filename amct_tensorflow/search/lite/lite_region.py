"""Finds the parts of a quantized model that TensorFlow Lite computes faster, with the results of the simulation.

A part is a set of connected layers, quantizers between them, and ops there that add or clip floats. No path leaves a
part and comes back, so that it runs as a whole. What it reads are the integers of quantizers, and values of other
parts. What only others read of its layers are sums: quantizers in front of it and dequantizers behind it stay in
TensorFlow, which multiplies their factors into those of their neighbours there, as in the simulation.

TensorFlow Lite wants to know all sizes but the number of images.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.names import QuantizedName
from amct_tensorflow.graph.view import GraphView, Shape, full_tensor_name, parse_tensor_name
from amct_tensorflow.ops import trait
from amct_tensorflow.ops.clips import RELU, RELU6, Clips
from amct_tensorflow.ops.sliding import places
from amct_tensorflow.ops.traits import Sum
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS
from amct_tensorflow.quantize.quantized.ascend_ops import QUANT
from amct_tensorflow.quantize.quantized.quantized_layer import read_quantizer
from amct_tensorflow.search.integers.kernel_layer import KernelLayer

_RANK = 4
# To hand a value over takes as long as a few passes over values within a part. With so many values quantized within a
# part per value handed over, every network that was tried took less time than in the simulation; with two it took more.
_FEWEST_QUANTIZED = 4


@dataclass(frozen=True, eq=False)
class LiteRegion:
    """A part of a quantized model.

    Attributes:
        nodes: its quantizers, dequantizers, and the other ops, each after those that it reads.
        layers: its layers, by their dequantizers.
        shapes: of what its nodes yield and read, without the axis of images, by full name.
        inputs: what it reads from outside: quantizers, and nodes of other parts.
        outputs: its nodes that are read outside.
    """

    nodes: tuple[NodeDef, ...]
    layers: Mapping[str, KernelLayer]
    shapes: Mapping[str, tuple[int, ...]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def yields_sums(self, output: str) -> bool:
        """Tells whether it hands the sums of a layer over, and not its values, or those of another node.

        TensorFlow multiplies into a dequantizer what alone reads it. So its values stay whole if something here, and
        something outside, reads them.
        """
        return output in self.layers and not any(output in _inputs(node) for node in self.nodes)

    def pays(self) -> bool:
        """Tells whether it takes less time in TensorFlow Lite."""
        quantized = sum(self._values(str(node.name)) for node in self.nodes if node.op == QUANT)
        handed_over = sum(map(self._values, (*self.inputs, *self.outputs)))
        return quantized >= _FEWEST_QUANTIZED * handed_over

    def _values(self, name: str) -> int:
        return math.prod(self.shapes[f"{name}:0"])


def find_regions(
    view: GraphView, layers: Mapping[QuantizedName, KernelLayer], outputs: Collection[str]
) -> list[LiteRegion]:
    """Finds the parts.

    Args:
        view: the quantized model; knows the shapes of what quantizers read, as far as they are known.
        layers: the layers that can be computed in integers, by name.
        outputs: nodes whose own value is requested.
    """
    found = _Search(view, layers, outputs).regions()
    return [region for region in found if region.outputs and region.pays()]


class _Search:
    """Follows the nodes in the order in which they run."""

    def __init__(self, view: GraphView, layers: Mapping[QuantizedName, KernelLayer], outputs: Collection[str]) -> None:
        self._view = view
        self._outputs = outputs
        # A dequantizer stands for its layer: for the convolution, and for what adds its bias.
        self._layers = {str(layer.quantized.dequantizer): layer for layer in layers.values()}
        self._inside = {
            str(name): dequantizer
            for dequantizer, layer in self._layers.items()
            for name in (layer.name, layer.quantized.sums)
        }
        self._members: dict[str, NodeDef] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def regions(self) -> list[LiteRegion]:
        """Returns the parts, whether they pay or not."""
        exits: dict[str, int] = {}  # on the way to a node, how often a path leaves what can be computed here
        for node in self._view.topological():
            name = str(node.name)
            shape = None if name in self._view.uncertain_nodes else self._shape_of(node)
            if shape is not None:
                self._members[name], self._shapes[f"{name}:0"] = node, shape
            sources = _inputs(node) if shape is None else self._sources(node)
            leaves = [exits.get(each, 0) + (shape is None and each in self._members) for each in sources]
            exits[name] = max(leaves, default=0)
        return [self._region(names) for names in self._connected(exits) if any(map(self._layers.get, names))]

    def _shape_of(self, node: NodeDef) -> tuple[int, ...] | None:
        """Returns the shape of what a node yields, without the axis of images; None if it is no member of a part."""
        if any(text.startswith("^") for text in node.input):
            return None
        if node.name in self._layers:
            return self._shape_of_layer(self._layers[node.name])
        is_quantizer = node.op == QUANT and read_quantizer(node).grid.num_bits == INT8_BITS
        if not (is_quantizer or trait(node.op, Clips) in (RELU, RELU6) or trait(node.op, Sum) is not None):
            return None
        shapes = {self._shapes.get(full_tensor_name(text)) for text in node.input}
        return shapes.pop() if len(shapes) == 1 else None

    def _shape_of_layer(self, layer: KernelLayer) -> tuple[int, ...] | None:
        if layer.is_matrix:
            return None
        data = self._shape_of_data(layer)
        if data is None:
            return None
        counts = places(layer.node, data[:-1], layer.weights.shape[:2])
        return (*counts, layer.deq_scale.size) if min(counts) > 0 else None

    def _shape_of_data(self, layer: KernelLayer) -> tuple[int, ...] | None:
        quantizer = layer.quantized.quantizer
        return self._shapes.get(f"{quantizer.name}:0") or _known(self._view.shape(quantizer.data))

    def _sources(self, node: NodeDef) -> list[str]:
        """Returns the nodes that a member reads; a layer reads its quantizer."""
        layer = self._layers.get(node.name)
        return _inputs(node) if layer is None else [str(layer.quantized.quantizer.name)]

    def _connected(self, exits: Mapping[str, int]) -> list[list[str]]:
        """Returns the members in groups that are connected, and that paths have left equally often before.

        A path that leaves such a group counts one exit more, and does not come back.
        """
        group = {name: name for name in self._members}

        def root(name: str) -> str:
            while group[name] != name:
                name = group[name]
            return name

        for name, node in self._members.items():
            for source in self._sources(node):
                if source in self._members and exits[source] == exits[name]:
                    group[root(source)] = root(name)
        found: dict[str, list[str]] = {}
        for name in self._members:
            found.setdefault(root(name), []).append(name)
        return list(found.values())

    def _region(self, names: Sequence[str]) -> LiteRegion:
        """Returns the part of connected members."""
        within = set(names)
        layers = {name: self._layers[name] for name in names if name in self._layers}
        shapes = {f"{name}:0": self._shapes[f"{name}:0"] for name in names}
        inputs = {
            source: self._shape_read(name, source)
            for name in names
            for source in self._sources(self._members[name])
            if source not in within
        }
        shapes.update((f"{source}:0", shape) for source, shape in inputs.items())
        outputs = [name for name in names if name in self._outputs or self._is_read_outside(name, within)]
        return LiteRegion(tuple(self._members[name] for name in names), layers, shapes, tuple(inputs), tuple(outputs))

    def _shape_read(self, name: str, source: str) -> tuple[int, ...]:
        """Returns the shape of what a member reads."""
        layer = self._layers.get(name)
        shape = self._shapes[f"{source}:0"] if layer is None else self._shape_of_data(layer)
        assert shape is not None
        return shape

    def _is_read_outside(self, name: str, within: Collection[str]) -> bool:
        readers = (str(reader.name) for reader in self._view.readers(QuantizedName(name)))
        return any(self._inside.get(reader, reader) not in within for reader in readers)


def _inputs(node: NodeDef) -> list[str]:
    """Returns the nodes that a node reads."""
    return [parse_tensor_name(text).node for text in node.input]


def _known(shape: Shape | None) -> tuple[int, ...] | None:
    """Returns the sizes of images, without their number; None if one is not known."""
    if shape is None or len(shape) != _RANK or not all(shape[1:]):
        return None
    return tuple(int(size) for size in shape[1:] if size is not None)
