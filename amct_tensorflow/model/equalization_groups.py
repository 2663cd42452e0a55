"""Equalization groups: tensors whose channels are scaled together, which does not change what the model computes.

    layer --> Add --> Relu --> layer           a residual path; its factors go into the weights on both sides
    layer ----^          `--> layer

The ops between layers must pass positive factors per channel on: sums, ReLU, pooling, and ops that move channels.
ReLU6 does not, since its bound would have to move along. Such a group costs nothing. There is none if anything but a
layer yields or reads one of its tensors, or if one of them is an output of the model. The layers that read such a
tensor are a group all the same, but of another kind, which costs a product with a constant:

    x --> Mul(1 / f) --> layer(w * f)          other readers of x go on reading x
               `--> layer(w * f)
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.names import FusedName, LayerName
from amct_tensorflow.graph.view import data_inputs, full_tensor_name, parse_tensor_name, upstream
from amct_tensorflow.model.fusion import FusedGraph, FusedLayer
from amct_tensorflow.ops import has
from amct_tensorflow.ops.channels import Channels
from amct_tensorflow.ops.effects import factors_behind
from amct_tensorflow.ops.traits import Sum


@dataclass(frozen=True)
class EqualizationGroup:
    """Tensors whose channels are all scaled by the same factors.

    Attributes:
        producers: names of the layers whose outputs they come from, in topological order.
        readers: names of the layers that read them, likewise.
        channels: how many channels they have.
        nodes: names of the nodes that yield these tensors.
        multiplied: the full name of the tensor that a product scales in front of the readers; None if the group is
            free, as its factors go into constants that are there.
    """

    producers: tuple[LayerName, ...]
    readers: tuple[LayerName, ...]
    channels: int
    nodes: frozenset[FusedName]
    multiplied: str | None = None


@dataclass(frozen=True)
class EqualizationGroups:
    """The equalization groups of a graph.

    Attributes:
        groups: the free ones, then those that cost a product. A layer reads one at most.
        not_free: per layer with weights whose input is in no free group, why not, as the rest of a sentence about it.
    """

    groups: tuple[EqualizationGroup, ...]
    not_free: Mapping[LayerName, str]


def find_equalization_groups(fused: FusedGraph, outputs: Iterable[str]) -> EqualizationGroups:
    """Finds the equalization groups of a graph.

    Args:
        fused: the graph, after fusion.
        outputs: the outputs of the model; without any, every node that nothing reads counts as one.
    """
    return _Finder(fused, tuple(outputs)).find()


class _Finder:
    """Joins the tensors of a graph into groups that must share their factors."""

    def __init__(self, fused: FusedGraph, outputs: tuple[str, ...]) -> None:
        self._fused = fused
        self._view = fused.view
        self._layers = fused.layers
        self._outputs = outputs
        self._needed = upstream(self._view.nodes, map(FusedName, outputs)) if outputs else self._view.nodes.keys()
        self._tails = {fused.tail_of(name): layer for name, layer in fused.layers.items() if layer.weights is not None}
        self._channels: dict[FusedName, Channels] = {}
        self._tied_to: dict[FusedName, FusedName] = {}

    def find(self) -> EqualizationGroups:
        """Returns the groups of which every tensor can be scaled, and why the inputs of other layers cannot."""
        for node in self._view.topological():
            if node.name in self._needed:
                self._tie(node)
        members: dict[FusedName, list[FusedName]] = {}
        for name in self._channels:
            members.setdefault(self._root(name), []).append(name)
        readers = {root: self._readers(names) for root, names in members.items()}
        reasons = {root: self._why_unscalable(names) for root, names in members.items()}
        groups = [
            EqualizationGroup(
                tuple(layer.name for tail, layer in self._tails.items() if tail in names),
                readers[root],
                self._channels[root].number,
                names,
            )
            for root, names in ((root, frozenset(names)) for root, names in members.items())
            if reasons[root] is None and readers[root]
        ]
        found = {reader for group in groups for reader in group.readers}
        not_free = {
            name: self._why_not_input(layer, reasons)
            for name, layer in self._layers.items()
            if layer.weights is not None and FusedName(name) in self._needed and name not in found
        }
        return EqualizationGroups((*groups, *self._products(not_free)), not_free)

    def _products(self, names: Iterable[LayerName]) -> Iterator[EqualizationGroup]:
        """Yields a group for each tensor that some layers read."""
        readers: dict[tuple[str, Channels], list[LayerName]] = {}
        for name in names:
            tensor, channels = full_tensor_name(self._fused.input_of(name)), self._layers[name].input_channels
            if channels is not None and self._sees_all_channels(self._layers[name], tensor):
                readers.setdefault((tensor, channels._replace(rank=None)), []).append(name)
        for (tensor, channels), layers in readers.items():
            yield EqualizationGroup((), tuple(layers), channels.number, frozenset(), tensor)

    def _sees_all_channels(self, layer: FusedLayer, tensor: str) -> bool:
        """Tells whether a layer has a weight for every channel of its input, and not only for those of a group."""
        channels, shape = layer.input_channels, self._view.shape(tensor)
        assert channels is not None
        length = shape[channels.axis] if shape is not None and len(shape) >= -channels.axis else None
        return layer.op.is_dense if length is None else length == channels.number

    def _tie(self, node: NodeDef) -> None:
        layer = self._tails.get(node.name)
        if layer is not None and layer.weights is not None:
            op_type = layer.op
            self._channels[node.name] = Channels(
                op_type.channels(layer.weights), op_type.channel_axis(layer.data_format), op_type.output_rank
            )
            return
        sources = _sources(node)
        known = {self._channels.get(source) for source in sources}
        channels = known.pop() if len(known) == 1 else None
        behind = factors_behind(self._view, node, channels) if channels is not None else None
        if behind is not None:
            self._channels[node.name] = behind
            for source in sources:
                self._tied_to[self._root(source)] = self._root(node.name)

    def _root(self, name: FusedName) -> FusedName:
        while name in self._tied_to and self._tied_to[name] != name:
            name = self._tied_to[name]
        return name

    def _readers(self, names: Iterable[FusedName]) -> tuple[LayerName, ...]:
        """Returns the layers that read some of the nodes, in topological order."""
        found = {edge.node.name for name in names for edge in self._view.consumers(name)}
        return tuple(name for name, layer in self._layers.items() if name in found and layer.weights is not None)

    def _why_unscalable(self, names: Iterable[FusedName]) -> str | None:
        """Returns why the tensors of the nodes cannot be scaled; None if they can."""
        for name in names:
            if name in self._outputs:
                return f"{name!r} is an output of the model"
            edges = [
                edge
                for edge in self._view.consumers(name)
                if edge.node.name in self._needed and not self._view.is_control(edge)
            ]
            if not edges:
                return f"{name!r} is an output of the model"
            for edge in edges:
                if not (self._passes_on(edge.node, name) or self._takes(edge.node, edge.input_index, name)):
                    return f"{edge.node.name!r} ({edge.node.op}) reads {name!r}, and takes no factors per channel"
        return None

    def _passes_on(self, node: NodeDef, name: FusedName) -> bool:
        """Tells whether the output of a node is tied to that of node ``name``, which it reads."""
        return node.name not in self._tails and node.name in self._channels and name in _sources(node)

    def _takes(self, node: NodeDef, index: int, name: FusedName) -> bool:
        """Tells whether a node is a layer that can take factors of node ``name``, which it reads, into its weights."""
        layer, channels = self._layers.get(node.name), self._channels[name]
        if layer is None or layer.weights is None or index != layer.op.data_input:
            return False
        taken = layer.input_channels
        return taken is not None and (taken.number, taken.axis) == (channels.number, channels.axis)

    def _why_not_input(self, layer: FusedLayer, reasons: Mapping[FusedName, str | None]) -> str:
        source = self._view.producer(self._fused.input_of(layer.name))
        if source.name in self._channels:
            return reasons[self._root(source.name)] or f"{source.name!r} is read otherwise"
        return f"{source.name!r} ({source.op}) stands before it, and passes no factors per channel on"


def _sources(node: NodeDef) -> list[FusedName]:
    """Returns the nodes whose channels a node may pass on; none if it reads another output than the first."""
    inputs = data_inputs(node.input)
    names = [parse_tensor_name(text) for text in (inputs if has(node.op, Sum) else inputs[:1])]
    return [FusedName(name.node) for name in names] if all(name.port == 0 for name in names) else []
