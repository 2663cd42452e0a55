"""Folds the affine nodes behind a layer into its weights and bias (spec section 9).

BatchNorm in inference form, biases, and products with constants compute ``a * x + c`` per output channel. A chain of
them behind a layer is therefore one affine map; it is composed in float64 and becomes the layer's weights (times ``a``)
and one BiasAdd (``c``). That BiasAdd takes the name of the chain's last node, so that every consumer, and whoever asks
for that node as an output, finds the same value under the same name.

Where ops that only move channels stand between (see ``channels``), they stay, behind the BiasAdd:

    layer --> Squeeze --> Mul --> Add --> y       becomes      layer --> BiasAdd --> Squeeze --> y

and the last of them takes the name of the chain's last node.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, cast

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.names import FusedName, LayerName, OriginalName, PreparedName
from amct_tensorflow.graph.nodes import behind_barrier, make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView, NamedGraph, TensorName, aligned, parse_tensor_name
from amct_tensorflow.log import log_for
from amct_tensorflow.model.layers import layer_weights, why_not_quantizable
from amct_tensorflow.ops import OP_TYPES, Quantizable, has
from amct_tensorflow.ops.affine import Affine
from amct_tensorflow.ops.channels import Channels, data_format
from amct_tensorflow.ops.effects import as_affine, channels_behind
from amct_tensorflow.ops.traits import BatchNorm


@dataclass(frozen=True, eq=False)
class FusedLayer:
    """A quantizable layer of a fused graph; ``FusedGraph`` tells what it reads, and where it ends.

    Attributes:
        name: node name; also its key in config.json and in the record.
        op_type: TensorFlow op type.
        weights: folded weights, float32 in the op's own layout; None for AvgPool, and for a product of two computed
            operands.
        bias: folded bias, float32 [Cout]; None when no BiasAdd follows.
        data_format: ``NHWC`` or ``NCHW``.
        absorbed: original nodes folded into the layer, in the order in which they stood.
        absorbed_types: op types of the prepared nodes that were folded, in the same order.
        batch_norm_kept: whether a BatchNorm that could be folded was kept because the user asked so.
        positions_per_weight: how many positions of the output share one use of a weight.
        folded_scale: by what folding multiplied the weights, float64 [Cout]; None for nothing.
        is_scaled_in_front: whether a product with a constant in front of it was folded into its weights.
    """

    name: LayerName
    op_type: str
    weights: np.ndarray | None
    bias: np.ndarray | None
    data_format: str
    absorbed: tuple[OriginalName, ...]
    batch_norm_kept: bool
    positions_per_weight: int = 1
    absorbed_types: tuple[str, ...] = ()
    folded_scale: np.ndarray | None = None
    is_scaled_in_front: bool = False

    @property
    def op(self) -> Quantizable:
        """What is known of its op type, in the form that its operands give it."""
        return OP_TYPES[self.op_type].with_operands(computed=self.weights is None)

    @property
    def channels(self) -> int:
        """Number of output channels; 1 for a layer without weights, which has one factor."""
        return 1 if self.weights is None else self.op.channels(self.weights)

    @property
    def operand_keys(self) -> tuple[LayerName, ...]:
        """What its activations are called: the first like the layer, a second one as ``tensor_quantize`` does."""
        second = self.op.second_input
        return (self.name,) if second is None else (self.name, LayerName(f"{self.name}:{second}"))

    @property
    def input_channels(self) -> Channels | None:
        """Where its input has its channels, those of one group if it is grouped; None for AvgPool."""
        axis, weights = self.op.input_axis, self.weights
        if axis is None or weights is None:
            return None
        return Channels(weights.shape[axis], self.op.channel_axis(self.data_format), self.op.output_rank)

    @property
    def digest(self) -> str:
        """Digest of folded weights and bias; a calibrated layer and the one to be saved must have the same."""
        hashed = hashlib.sha256()
        for values in (self.weights, self.bias):
            hashed.update(b"none" if values is None else f"{values.shape}".encode() + values.tobytes())
        return hashed.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class DividedTensor:
    """The values of a tensor of the graph before equalization, divided by factors.

    Attributes:
        tensor: the full name of the tensor.
        factors: what divides it, float32, in a shape that is broadcast along it.
    """

    tensor: str
    factors: np.ndarray


@dataclass(frozen=True, eq=False)
class FusedGraph:
    """A float graph after fusion.

    Attributes:
        view: the graph, indexed.
        layers: its quantizable layers by name, in topological order.
        origins: per node that the model's file does not have, the original nodes that it stands for; none if it was
            inserted.
        balance: per layer whose input was divided by factors, those factors, [Cin]; see ``equalize``.
        divided: per tensor that has divided values, the values and what divides them.
        products: per layer whose input a product with a constant divides, that node; others have theirs divided by
            constants that were there.
        prepared: names of the nodes of the graph before fusion.
    """

    view: NamedGraph[FusedName]
    layers: dict[LayerName, FusedLayer]
    origins: Mapping[FusedName, tuple[OriginalName, ...]] = field(default_factory=dict)
    balance: Mapping[LayerName, tuple[float, ...]] = field(default_factory=dict)
    divided: Mapping[TensorName, DividedTensor] = field(default_factory=dict)
    products: Mapping[LayerName, FusedName] = field(default_factory=dict)
    prepared: frozenset[PreparedName] = frozenset()

    def originals(self, names: Iterable[FusedName]) -> tuple[OriginalName, ...]:
        """Returns the original nodes that some nodes stand for together, each once."""
        return tuple(dict.fromkeys(original for name in names for original in self._originals(name)))

    def _originals(self, name: FusedName) -> tuple[OriginalName, ...]:
        return self.origins.get(name, (OriginalName(name),))

    def node_of(self, name: LayerName) -> NodeDef:
        """Returns the node of a layer."""
        return self.view.nodes[FusedName(name)]

    def input_of(self, name: LayerName) -> str:
        """Returns the activations that a layer reads, as GraphDef writes the input; of two, the first."""
        return self.operands_of(name)[0]

    def operands_of(self, name: LayerName) -> tuple[str, ...]:
        """Returns all activations that a layer reads: two of a product of computed operands, else one."""
        inputs = self.node_of(name).input
        return tuple(str(inputs[index]) for index in self.layers[name].op.operands)

    def inner_length(self, name: LayerName) -> int | None:
        """Returns how many products each value of a product of matrices sums up; None if only a run tells."""
        shape = self.view.shape(self.input_of(name))
        return shape[-1] if shape else None

    def accumulator_of(self, name: LayerName) -> FusedName:
        """Returns the node whose output 0 is a layer's sum of products: the layer, or the barrier behind it."""
        return FusedName(behind_barrier(self.view, self.node_of(name)).name)

    def tail_of(self, name: LayerName) -> FusedName:
        """Returns the node whose output 0 is a layer's value: the BiasAdd with its bias, or the accumulator."""
        accumulator = self.accumulator_of(name)
        if self.layers[name].bias is None:
            return accumulator
        (tail,) = (edge.node for edge in self.view.consumers(accumulator) if not self.view.is_control(edge))
        return FusedName(tail.name)

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The weights of layers, by the names of the Consts that hold them."""
        found: dict[str, np.ndarray] = {}
        for name, layer in self.layers.items():
            index = OP_TYPES[layer.op_type].weight_input
            if layer.weights is not None and index is not None:
                const = FusedName(parse_tensor_name(self.node_of(name).input[index]).node)
                if self.view.nodes[const].op == "Const":
                    found[const] = layer.weights
        return found

    def prepared_values(self) -> set[PreparedName]:
        """Returns the nodes that have the same value before and after fusion.

        The sums of a layer behind which something was folded are not among them, nor are divided tensors.
        """
        inside: set[str] = set()
        for name in self.layers:
            inside |= {name, self.accumulator_of(name)} - {self.tail_of(name)}
        divided = {tensor.node for tensor in self.divided}
        return {name for name in self.prepared if FusedName(name) in self.view.nodes} - inside - divided

    def original_values(self) -> set[OriginalName]:
        """Returns the nodes that have the same value in the model's file and after fusion."""
        return {OriginalName(name) for name in self.prepared_values() - self.origins.keys()}

    @property
    def graph_def(self) -> GraphDef:
        """The fused graph; nodes that nothing reads any more are still in it."""
        return self.view.graph_def


class _Chain(NamedTuple):
    """The nodes found behind a layer, up to the last affine one.

    Attributes:
        affine: the composed map of the channels.
        folded: the affine nodes, in order.
        paths: the nodes that move channels, in order.
        batch_norm_kept: whether a BatchNorm stands next that is kept because the user asked so.
    """

    affine: Affine
    folded: tuple[NodeDef, ...] = ()
    paths: tuple[NodeDef, ...] = ()
    batch_norm_kept: bool = False


def fuse(
    view: GraphView,
    *,
    keep: Collection[str] = (),
    unfused: Collection[LayerName] = (),
    origins: Mapping[PreparedName, tuple[OriginalName, ...]] | None = None,
) -> FusedGraph:
    """Folds every affine chain behind a quantizable layer.

    Args:
        view: a float graph in inference form; it is not changed.
        keep: nodes whose own value is requested, so that they cannot vanish inside a chain.
        unfused: layers behind which a BatchNorm is kept.
        origins: per node that the model's file does not have, the original nodes that it stands for.
    """
    editor = GraphEditor(view)
    known = {FusedName(name): originals for name, originals in (origins or {}).items()}
    alike: dict[str, str] = {}
    found: dict[LayerName, FusedLayer] = {}
    for node in view.topological():
        if why_not_quantizable(view, node) is None:
            found[LayerName(node.name)] = _fuse_layer(view, editor, node, keep, node.name not in unfused, known, alike)
    folded = sum(bool(layer.absorbed) for layer in found.values())
    log_for("fusion").debug("Folded the nodes behind %d of %d layers.", folded, len(found))
    fused = cast(NamedGraph[FusedName], view.edited(editor.graph_def(), alike))
    return FusedGraph(fused, found, known, prepared=frozenset(map(PreparedName, view.nodes)))


def _fuse_layer(
    view: GraphView,
    editor: GraphEditor,
    node: NodeDef,
    keep: Collection[str],
    fold_batch_norm: bool,
    origins: dict[FusedName, tuple[OriginalName, ...]],
    alike: dict[str, str],
) -> FusedLayer:
    op_type = OP_TYPES[node.op]
    weights = layer_weights(view, node)
    accumulator = behind_barrier(view, node)
    plain = FusedLayer(
        name=node.name,
        op_type=node.op,
        weights=weights,
        bias=None,
        data_format=data_format(node),
        absorbed=(),
        batch_norm_kept=False,
        positions_per_weight=1 if weights is None else op_type.positions_per_weight(node, weights),
    )
    if weights is None or op_type.weight_input is None:
        return plain
    chain = _find_chain(view, node, accumulator, weights, keep, fold_batch_norm)
    if not chain.folded:
        return replace(plain, batch_norm_kept=chain.batch_norm_kept)
    is_scaled = not np.array_equal(chain.affine.scale, np.ones_like(chain.affine.scale))
    if is_scaled:
        scale = op_type.along_channels(weights, chain.affine.scale)
        weights = aligned((weights * scale).astype(np.float32))
        const = editor.add(make_const(editor.unique_name(f"{node.name}/folded_weights"), weights), like=node.name)
        editor.replace_constant(node.name, op_type.weight_input, const, keep)
        origins[FusedName(const)] = ()
    bias = chain.affine.shift.astype(np.float32)
    const = editor.add(make_const(editor.unique_name(f"{node.name}/folded_bias"), bias), like=node.name)
    origins[FusedName(const)] = ()
    last = chain.folded[-1].name
    tail = editor.unique_name(f"{node.name}/BiasAdd") if chain.paths else last
    absorbed = tuple(
        original for folded in chain.folded for original in origins.get(folded.name, (OriginalName(folded.name),))
    )
    for folded in chain.folded:
        editor.remove(folded.name)
    bias_add = make_node(tail, "BiasAdd", [accumulator.name, const], T=tf.float32, data_format=plain.data_format)
    editor.add(bias_add, like=node.name)
    if chain.paths:
        origins[FusedName(tail)] = ()
        alike[tail] = str(accumulator.name)
        _put_behind(editor, tail, chain.paths, last, origins, alike)
    return replace(
        plain,
        weights=weights,
        bias=bias,
        absorbed=absorbed,
        absorbed_types=tuple(str(folded.op) for folded in chain.folded),
        batch_norm_kept=chain.batch_norm_kept,
        folded_scale=chain.affine.scale if is_scaled else None,
    )


def _put_behind(
    editor: GraphEditor,
    tail: str,
    paths: Collection[NodeDef],
    name: str,
    origins: dict[FusedName, tuple[OriginalName, ...]],
    alike: dict[str, str],
) -> None:
    """Moves nodes that move channels behind a node; the last one takes ``name``, the others get new names."""
    before = tail
    for index, node in enumerate(paths):
        new_name = name if index == len(paths) - 1 else editor.unique_name(f"{node.name}/biased")
        editor.replace_input(node.name, 0, before)
        editor.rename(node.name, new_name)
        origins[FusedName(new_name)] = origins.get(node.name, (OriginalName(node.name),))
        alike[new_name] = str(node.name)
        before = new_name


def _find_chain(
    view: GraphView,
    layer: NodeDef,
    accumulator: NodeDef,
    weights: np.ndarray,
    keep: Collection[str],
    fold_batch_norm: bool,
) -> _Chain:
    """Follows the only consumer of each node as long as it is affine or moves channels."""
    channels = output_channels(view, layer, weights)
    chain = best = _Chain(Affine.identity(channels.number))
    current = accumulator
    while current.name not in keep:
        following = _only_consumer(view, current, vanishes=current is not accumulator)
        if following is None:
            break
        affine = as_affine(view, following, current.name, channels)
        if affine is None:
            moved = channels_behind(view, following, channels)
            if moved is None:
                break
            channels, current = moved, following
            chain = chain._replace(paths=(*chain.paths, following))
            continue
        if not fold_batch_norm and (has(following.op, BatchNorm) or not affine.scales_alike):
            return best._replace(batch_norm_kept=True)
        extended = chain.affine.then(affine)
        if not (extended.is_finite() and _weights_stay_finite(layer.op, weights, extended)):
            log_for("fusion").warning(
                "Node %s is not folded into %s: the folded weights would not be finite.", following.name, layer.name
            )
            break
        chain = best = chain._replace(affine=extended, folded=(*chain.folded, following))
        current = following
    return best


def output_channels(view: GraphView, layer: NodeDef, weights: np.ndarray) -> Channels:
    """Returns where the output of a layer has its channels."""
    op_type, shape = OP_TYPES[layer.op], view.shape(layer.name)
    rank = len(shape) if op_type.output_rank is None and shape is not None else op_type.output_rank
    return Channels(op_type.channels(weights), op_type.channel_axis(data_format(layer)), rank)


def _weights_stay_finite(op_type: str, weights: np.ndarray, affine: Affine) -> bool:
    """Tells whether a fold keeps weights finite; weights that were not finite before are reported elsewhere."""
    with np.errstate(over="ignore", invalid="ignore"):
        folded = (weights * OP_TYPES[op_type].along_channels(weights, affine.scale)).astype(np.float32)
    return bool(np.isfinite(folded).all() or not np.isfinite(weights).all())


def _only_consumer(view: GraphView, node: NodeDef, vanishes: bool) -> NodeDef | None:
    """Returns the node that alone reads ``node``'s output 0; None if there are several, or another output is read.

    A node that ``vanishes`` in the fold must have no control edges either: they would point nowhere.
    """
    edges = [edge for edge in view.consumers(node.name) if vanishes or not view.is_control(edge)]
    if len(edges) != 1 or view.is_control(edges[0]):
        return None
    edge = edges[0]
    return edge.node if parse_tensor_name(edge.node.input[edge.input_index]).port == 0 else None
