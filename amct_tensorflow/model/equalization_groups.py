"""Equalization groups: tensors whose channels are scaled together, which does not change what the model computes.

    layer --> Add --> Relu --> layer           a residual path; its factors go into the weights on both sides
    layer ----^          `--> layer

A group is grown from what a layer reads. The node that yields a tensor of the group, and all that read it, must compute
the same although it is divided: a layer or a product with a constant takes the factors in; a sum or a ReLU hands them
on to other tensors, which then belong to the group, too (see ``ops.channel_factors``). Such a group costs nothing.
There is none if a node can do neither, as Relu6, whose bound would have to move along, or if a tensor is an output of
the model. The layers that read such a tensor are a group all the same, but of another kind, which costs a product with
a constant:

    x --> Mul(1 / f) --> layer(w * f)          other readers of x go on reading x
               `--> layer(w * f)
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from amct_tensorflow.graph.names import FusedName, LayerName
from amct_tensorflow.graph.view import (
    Consumer,
    NamedGraph,
    Shape,
    TensorName,
    full_tensor_name,
    parse_tensor_name,
    upstream,
)
from amct_tensorflow.model.fusion import FusedGraph, FusedLayer
from amct_tensorflow.ops import has
from amct_tensorflow.ops.channel_factors import OUTPUT, UNDIVIDED, AsksForShape, Layout, Way, along_axis
from amct_tensorflow.ops.channels import ChannelMove
from amct_tensorflow.ops.effects import ways_with_factors
from amct_tensorflow.ops.traits import Identity

# A node, and one of its inputs; or ``OUTPUT``, or a place below it.
Place = tuple[FusedName, int]


@dataclass(frozen=True, eq=False)
class Product:
    """A product with a constant, which divides a tensor in front of the layers that read it.

    Attributes:
        tensor: the full name of the tensor.
        layout: by which factors it is divided.
        readers: the inputs of nodes that read the product in its place: layers, or what moves channels before them.
        replaces_one: whether the model has a product in this place, which was folded into the layers.
    """

    tensor: str
    layout: Layout
    readers: tuple[Place, ...]
    replaces_one: bool


@dataclass(frozen=True, eq=False)
class EqualizationGroup:
    """Tensors whose channels are all divided by the same factors.

    Attributes:
        readers: names of the layers that read them, in topological order; each reads all channels, in their order.
        channels: how many channels they have.
        producers: per layer whose output is one of them, which channel each of its output channels is, [Cout];
            ``UNDIVIDED`` for none.
        tensors: these tensors, with their layouts; those behind the product if there is one.
        constants: per input of a node that holds a constant which takes factors in, their layout and exponent.
        product: the product in front of the readers; None if the group is free, as its factors go into what is there.
    """

    readers: tuple[LayerName, ...]
    channels: int
    producers: Mapping[LayerName, np.ndarray] = field(default_factory=dict)
    tensors: Mapping[TensorName, Layout] = field(default_factory=dict)
    constants: Mapping[Place, tuple[tuple[Layout, int], ...]] = field(default_factory=dict)
    product: Product | None = None

    @property
    def nodes(self) -> frozenset[FusedName]:
        """Names of the nodes that yield its tensors."""
        return frozenset(FusedName(tensor.node) for tensor in self.tensors)

    @property
    def is_free(self) -> bool:
        """Whether dividing it adds nothing to the model, in the form in which its file has it."""
        return self.product is None or self.product.replaces_one


@dataclass(frozen=True)
class EqualizationGroups:
    """The equalization groups of a graph.

    Attributes:
        groups: those without a product, then those with one. A layer reads one at most.
        not_free: per layer with weights whose input is in no free group, why not, as the rest of a sentence about it.
    """

    groups: tuple[EqualizationGroup, ...]
    not_free: Mapping[LayerName, str]


def find_equalization_groups(fused: FusedGraph, outputs: Iterable[str]) -> EqualizationGroups:
    """Finds the equalization groups of a graph.

    Args:
        fused: the graph, after fusion, with shapes.
        outputs: the outputs of the model; without any, every node that nothing reads counts as one.
    """
    return _Finder(fused, tuple(outputs)).find()


def _with_lengths(fused: FusedGraph) -> NamedGraph[FusedName]:
    """Returns the graph with shapes that tell how many channels dense layers read.

    TensorFlow does not infer that where a shape is computed, as Keras does it in front of a dense layer, but the
    weights tell.
    """
    view = fused.view
    shapes: dict[str, Shape] = {}
    for name, layer in fused.layers.items():
        channels, tensor = layer.input_channels, full_tensor_name(fused.input_of(name))
        if channels is not None and layer.op.is_dense:
            known = view.shape(tensor) or (None,) * (layer.op.output_rank or 0)
            if known:
                shapes[tensor] = (*known[:-1], channels.number)
    return view.with_more_shapes(shapes)


class _Stuck(Exception):  # noqa: N818 # no error, but the end of a growth
    """A node cannot compute the same if a tensor of the group is divided; says why."""


@dataclass(frozen=True)
class _Growth:
    """A group that is growing.

    Attributes:
        channels: how many factors there are.
        tensors: per tensor that belongs to it, its layout.
        settled: the places of nodes that compute the same, with the layout of their tensor.
        forced: places at which a node has one way at most; they are looked at first.
        open: outputs of nodes that have several ways.
    """

    channels: int
    tensors: dict[TensorName, Layout] = field(default_factory=dict)
    settled: dict[Place, Layout] = field(default_factory=dict)
    forced: deque[Place] = field(default_factory=deque)
    open: deque[Place] = field(default_factory=deque)
    readers: dict[LayerName, None] = field(default_factory=dict)
    producers: dict[LayerName, np.ndarray] = field(default_factory=dict)
    constants: dict[Place, tuple[tuple[Layout, int], ...]] = field(default_factory=dict)

    def copy(self) -> "_Growth":
        return _Growth(
            self.channels, dict(self.tensors), dict(self.settled), deque(self.forced), deque(self.open),
            dict(self.readers), dict(self.producers), dict(self.constants),
        )  # fmt: skip


class _Finder:
    """Grows groups from what layers read, one after the other."""

    def __init__(self, fused: FusedGraph, outputs: tuple[str, ...]) -> None:
        self._fused = fused
        self._view = _with_lengths(fused)
        self._outputs = outputs
        self._needed = upstream(self._view.nodes, map(FusedName, outputs)) if outputs else self._view.nodes.keys()
        self._layers = {name: layer for name, layer in fused.layers.items() if layer.weights is not None}
        self._tails = {fused.tail_of(name): layer for name, layer in self._layers.items()}
        self._taken: set[Place] = set()
        self._stuck: dict[_Key, str] = {}

    def find(self) -> EqualizationGroups:
        """Returns the groups, and why the inputs of other layers are in none that is free."""
        groups: list[EqualizationGroup] = []
        stuck: dict[LayerName, str] = {}
        found: set[LayerName] = set()
        for name, layer in self._layers.items():
            if FusedName(name) not in self._needed or name in found:
                continue
            try:
                growth = self._grow(layer)
            except _Stuck as reason:
                stuck[name] = str(reason)
                continue
            self._taken |= growth.settled.keys()
            found |= growth.readers.keys()
            readers = tuple(name for name in self._layers if name in growth.readers)
            groups.append(
                EqualizationGroup(
                    readers,
                    growth.channels,
                    growth.producers,
                    growth.tensors,
                    growth.constants,
                )
            )
        products = tuple(self._products([name for name in stuck if name not in found]))
        free = {name for group in products if group.is_free for name in group.readers}
        not_free = {name: reason for name, reason in stuck.items() if name not in found | free}
        return EqualizationGroups((*groups, *products), not_free)

    def _channels_of(self, layer: FusedLayer) -> int:
        assert layer.input_channels is not None
        return layer.input_channels.number

    def _grow(self, layer: FusedLayer) -> _Growth:
        """Returns the group that a layer reads.

        Raises:
            _Stuck: there is none.
        """
        source, layout = self._input_of(layer)
        growth = _Growth(self._channels_of(layer))
        self._add(growth, source, layout)
        try:
            return self._settle(growth)
        except _Stuck as reason:
            self._stuck[_key(source, layout)] = str(reason)
            raise

    def _input_of(self, layer: FusedLayer) -> tuple[TensorName, Layout]:
        """Returns the tensor that a layer reads, and the layout with the factors in the order of its channels.

        Raises:
            _Stuck: the layer does not read all channels.
        """
        tensor, channels = self._fused.input_of(layer.name), layer.input_channels
        shape = self._view.shape(tensor)
        assert channels is not None
        if shape is None or len(shape) < -channels.axis:
            raise _Stuck(f"how many axes {tensor!r} has is not known")
        if shape[channels.axis] != channels.number:
            node = self._fused.node_of(layer.name)
            raise _Stuck(f"{node.name!r} ({node.op}) reads {tensor!r} in groups of channels, and takes no factors")
        lengths = [1] * len(shape)
        lengths[channels.axis] = channels.number
        return parse_tensor_name(tensor), np.arange(channels.number).reshape(lengths)

    def _add(self, growth: _Growth, tensor: TensorName, layout: Layout) -> None:
        """Adds a tensor to a group, with all that has to compute the same then.

        Raises:
            _Stuck: it cannot belong to the group.
        """
        if tensor in growth.tensors:
            if not _are_alike(growth.tensors[tensor], layout):
                raise _Stuck(f"{tensor.node!r} would have to be divided by the factors of different channels")
            return
        if (reason := self._stuck.get(_key(tensor, layout))) is not None:
            raise _Stuck(reason)
        name = FusedName(tensor.node)
        if name in self._outputs or not any(node.name in self._needed for node in self._view.readers(name)):
            raise _Stuck(f"{name!r} is an output of the model")
        growth.tensors[tensor] = layout
        growth.forced.extend((FusedName(edge.node.name), edge.input_index) for edge in self._edges(tensor))
        growth.forced.append((name, OUTPUT - tensor.port))

    def _edges(self, tensor: TensorName) -> Iterator[Consumer]:
        """Yields what reads the values of a tensor."""
        for edge in self._view.consumers(FusedName(tensor.node)):
            reads = parse_tensor_name(edge.node.input[edge.input_index]) == tensor
            if reads and edge.node.name in self._needed and not has(edge.node.op, AsksForShape):
                yield edge

    def _settle(self, growth: _Growth) -> _Growth:
        """Lets a group grow until all of its nodes compute the same.

        Raises:
            _Stuck: one cannot.
        """
        while growth.forced or growth.open:
            is_open = not growth.forced
            place = (growth.open if is_open else growth.forced).popleft()
            if (known := growth.settled.get(place)) is not None:
                if not _are_alike(known, growth.tensors[self._tensor(place)]):
                    raise _Stuck(f"{place[0]!r} would have to take the factors of different channels")
                continue
            ways = self._ways(growth, place)
            if len(ways) == 1:
                self._take(growth, place[0], ways[0])
            elif is_open:
                return self._try(growth, place[0], ways)
            else:
                growth.open.append(place)
        return growth

    def _try(self, growth: _Growth, name: FusedName, ways: Iterable[Way]) -> _Growth:
        """Lets a group grow in the first of several ways that leads to an end."""
        last = _Stuck()
        for way in sorted(ways, key=lambda way: not self._is_yielded_by_a_layer(name, way)):
            attempt = growth.copy()
            try:
                self._take(attempt, name, way)
                return self._settle(attempt)
            except _Stuck as reason:
                last = reason
                for index, layout in way.divided.items():
                    if index > OUTPUT:
                        self._stuck.setdefault(_key(self._tensor((name, index)), layout), str(reason))
        raise last

    def _is_yielded_by_a_layer(self, name: FusedName, way: Way) -> bool:
        """Tells whether a layer yields what a node divides in one of its ways, perhaps with its channels moved."""
        sources = [FusedName(self._tensor((name, index)).node) for index in way.divided if index > OUTPUT]
        while sources and sources[0] not in self._tails and has(self._view.nodes[sources[0]].op, ChannelMove):
            sources = [FusedName(self._tensor((sources[0], 0)).node)]
        return bool(sources) and sources[0] in self._tails

    def _ways(self, growth: _Growth, place: Place) -> list[Way]:
        """Returns the ways in which a node can compute the same that do not contradict what is settled.

        Raises:
            _Stuck: there is none.
        """
        name, index = place
        node, tensor = self._view.nodes[name], self._tensor(place)
        layout = growth.tensors[tensor]
        if index == OUTPUT and name in self._tails:
            ways = self._of_producer(growth, self._tails[name], layout)
        elif (layer := self._layers.get(LayerName(name))) is not None:
            ways = self._of_reader(growth, layer, index, layout)
        else:
            settled = growth.settled.keys() | self._taken
            ways = [
                way
                for way in ways_with_factors(self._view, node, index, layout)
                if not any((name, each) in settled for each in way.divided)
            ]
        if ways:
            return ways
        if index <= OUTPUT:
            raise _Stuck(f"{name!r} ({node.op}) stands before it, and passes no factors per channel on")
        raise _Stuck(f"{name!r} ({node.op}) reads {tensor.node!r}, and takes no factors per channel")

    def _of_producer(self, growth: _Growth, layer: FusedLayer, layout: Layout) -> list[Way]:
        """A layer takes the factors of its output into weights and bias, if they are those of its channels."""
        along = along_axis(layout, layer.op.channel_axis(layer.data_format))
        if along is None or along.size != layer.channels:
            return []
        growth.producers[layer.name] = along
        return [Way({OUTPUT: layout})]

    def _of_reader(self, growth: _Growth, layer: FusedLayer, index: int, layout: Layout) -> list[Way]:
        """A layer takes the factors of its data into its weights, if it has one for each channel."""
        channels = layer.input_channels
        assert channels is not None
        along = along_axis(layout, channels.axis) if index == layer.op.data_input else None
        if along is None or channels.number != growth.channels or not np.array_equal(along, np.arange(along.size)):
            return []
        growth.readers[layer.name] = None
        return [Way({index: layout})]

    def _take(self, growth: _Growth, name: FusedName, way: Way) -> None:
        """Settles a node in one of its ways.

        Raises:
            _Stuck: a tensor that is divided then cannot belong to the group.
        """
        growth.settled.update({(name, index): layout for index, layout in way.divided.items()})
        for index, divided in way.constants.items():
            growth.constants[name, index] = (*growth.constants.get((name, index), ()), divided)
        for index, layout in way.divided.items():
            if np.any(layout != UNDIVIDED):
                self._add(growth, self._tensor((name, index)), layout)

    def _tensor(self, place: Place) -> TensorName:
        """Returns the tensor at a place of a node."""
        name, index = place
        if index <= OUTPUT:
            return TensorName(name, OUTPUT - index)
        return parse_tensor_name(self._view.nodes[name].input[index])

    def _products(self, names: Iterable[LayerName]) -> Iterator[EqualizationGroup]:
        """Yields the groups with a product: the layers that read one tensor, perhaps with its channels moved."""
        fronts: dict[_Key, _Front] = {}
        for name in names:
            layer = self._layers[name]
            try:
                layout = self._order_of(layer)
            except _Stuck:
                continue
            tensor = parse_tensor_name(self._fused.input_of(name))
            _merge(fronts, tensor, _Front(layout, [(FusedName(name), layer.op.data_input)], [name]))
        waiting = list(fronts)
        while waiting:
            key = waiting.pop()
            if key not in fronts:  # it waited twice, as another front had come up to it, and both have moved on
                continue
            above = self._above(key, fronts[key])
            if above is not None:
                del fronts[key]
                waiting.append(_merge(fronts, *above))
        for (tensor, _, _), front in fronts.items():
            replaces = all(self._layers[name].is_scaled_in_front for name in front.layers)
            product = Product(f"{tensor.node}:{tensor.port}", front.layout, tuple(front.places), replaces)
            readers = tuple(name for name in self._layers if name in front.layers)
            yield EqualizationGroup(readers, front.layout.size, tensors=front.moved, product=product)

    def _order_of(self, layer: FusedLayer) -> Layout:
        """Returns the order of the channels that a layer reads; if axes are not known, that of the last one.

        Raises:
            _Stuck: as for ``_input_of``.
        """
        if layer.op.is_dense and self._view.shape(self._fused.input_of(layer.name)) is None:
            return np.arange(self._channels_of(layer))
        return self._input_of(layer)[1]

    def _above(self, key: "_Key", front: "_Front") -> tuple[TensorName, "_Front"] | None:
        """Returns where a product can stand before a node that moves channels, so that more layers may share it."""
        tensor = key[0]
        source = FusedName(tensor.node)
        node = self._view.nodes[source]
        moves = has(node.op, ChannelMove) or has(node.op, Identity)
        readers = {(FusedName(edge.node.name), edge.input_index) for edge in self._edges(tensor)}
        if tensor.port != 0 or not moves or source in self._outputs or readers != set(front.places):
            return None
        ways = ways_with_factors(self._view, node, OUTPUT, front.layout)
        if not ways:
            return None
        above = _Front(ways[0].divided[0], [(source, 0)], front.layers, {tensor: front.layout, **front.moved})
        return self._tensor((source, 0)), above


def _are_alike(one: Layout, other: Layout) -> bool:
    return one.shape == other.shape and np.array_equal(one, other)


# A tensor, and a layout as shape and bytes.
_Key = tuple[TensorName, tuple[int, ...], bytes]


def _key(tensor: TensorName, layout: Layout) -> _Key:
    return tensor, layout.shape, layout.tobytes()


@dataclass(frozen=True)
class _Front:
    """Places that read one tensor, how it is divided there, the layers behind them, and the tensors between."""

    layout: Layout
    places: list[Place]
    layers: list[LayerName]
    moved: dict[TensorName, Layout] = field(default_factory=dict)


def _merge(fronts: dict[_Key, _Front], tensor: TensorName, front: _Front) -> _Key:
    """Adds what reads a tensor to what else does with the same layout; returns the key of both."""
    key = _key(tensor, front.layout)
    known = fronts.setdefault(key, _Front(front.layout, [], []))
    known.places.extend(front.places)
    known.layers.extend(front.layers)
    known.moved.update(front.moved)
    return key
