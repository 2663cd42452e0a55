"""Folds a BatchNorm in front of layers into them, where that is exact.

    x --> Mul(a) --> Add(c) --> layer(w)        becomes      x --> layer(w * a) --> BiasAdd(sum of w * c)

A layer pads with zeros that the BatchNorm has not shifted. So a shift is folded only into a layer that does not pad; a
factor alone into any. All readers must take it in: if one of them needs the BatchNorm, it is computed anyway.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.names import FusedName, LayerName, OriginalName
from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView, aligned, full_tensor_name, parse_tensor_name
from amct_tensorflow.model.fusion import FusedGraph, FusedLayer
from amct_tensorflow.ops import trait
from amct_tensorflow.ops.affine import Affine
from amct_tensorflow.ops.channels import Channels
from amct_tensorflow.ops.effects import as_affine
from amct_tensorflow.ops.traits import Elementwise


class _Front(NamedTuple):
    """The affine nodes in front of some layers, in order, and the data input of the first."""

    affine: Affine
    nodes: tuple[NodeDef, ...] = ()
    data_input: int = 0


def fold_before(fused: FusedGraph, keep: Collection[str], unfused: Collection[LayerName]) -> FusedGraph:
    """Folds affine nodes into the layers that they stand in front of.

    Args:
        fused: a graph in which the nodes behind layers are folded.
        keep: nodes whose own value is requested.
        unfused: layers next to which a BatchNorm is kept.
    """
    editor = GraphEditor(fused.view)
    alike: dict[str, str] = {}
    layers, origins = dict(fused.layers), dict(fused.origins)
    fixed = {*keep, *(fused.tail_of(name) for name, layer in fused.layers.items() if layer.bias is not None)}
    for tensor in dict.fromkeys(full_tensor_name(fused.input_of(name)) for name in fused.layers):
        readers = _readers(fused, tensor)
        front = _front(fused, tensor, readers, fixed) if readers else None
        kept = [reader for reader in readers if reader.name in unfused]
        if front is None:
            continue
        if kept:
            layers.update({reader.name: replace(reader, batch_norm_kept=True) for reader in kept})
        else:
            originals = fused.originals(FusedName(node.name) for node in front.nodes)
            for reader in readers:
                layers[reader.name] = _fold(fused, editor, reader, front, originals, origins, alike, keep)
    if layers == fused.layers:
        return fused
    return replace(fused, view=fused.view.edited(editor.graph_def(), alike), layers=layers, origins=origins)


def _readers(fused: FusedGraph, tensor: str) -> list[FusedLayer]:
    """Returns the layers that read a tensor as their data; none if anything else reads it, too."""
    found = []
    for edge in fused.view.consumers(FusedName(parse_tensor_name(tensor).node)):
        layer = fused.layers.get(edge.node.name)
        if layer is None or layer.weights is None or edge.input_index != layer.op.data_input:
            return []
        found.append(layer)
    return found


def _front(fused: FusedGraph, tensor: str, readers: list[FusedLayer], fixed: Collection[str]) -> _Front | None:
    """Returns the longest affine chain that ends in a tensor and can be folded into all of its readers.

    Nodes that are ``fixed`` stay: those asked for, and the biases of other layers.
    """
    channels = readers[0].input_channels
    if channels is None or any(reader.input_channels != channels for reader in readers):
        return None
    view = fused.view
    front = best = _Front(Affine.identity(channels.number))
    while True:
        name = parse_tensor_name(tensor)
        node = view.nodes[FusedName(name.node)]
        if name.port != 0 or node.name in fixed or (front.nodes and len(view.consumers(node.name)) > 1):
            break
        found = _affine_of(view, node, channels)
        if found is None:
            break
        affine, index = found
        front = _Front(affine.then(front.affine), (node, *front.nodes), index)
        tensor = node.input[index]
        if all(_is_exact(fused, reader, front.affine, fixed) for reader in readers):
            best = front
    return best if best.nodes else None


def _affine_of(view: GraphView, node: NodeDef, channels: Channels) -> tuple[Affine, int] | None:
    """Returns the affine map that a node does per channel, and the index of its data input; None if it is none."""
    for index, text in enumerate(node.input):
        if not text.startswith("^") and view.constant(text) is None:
            affine = as_affine(view, node, parse_tensor_name(text).node, channels)
            if affine is None or (_broadcasts(node) and not _has_channels(view, text, channels)):
                return None
            return affine, index
    return None


def _broadcasts(node: NodeDef) -> bool:
    """Tells whether a node gives data of one channel as many as its constant has, as when a grey image gets three."""
    elementwise = trait(node.op, Elementwise)
    return elementwise is not None and elementwise.operands > 1


def _has_channels(view: GraphView, text: str, channels: Channels) -> bool:
    """Tells whether a tensor has all channels before it is broadcast, those of each group if it is grouped."""
    shape = view.shape(text)
    if shape is None or len(shape) < -channels.axis or channels.rank not in (None, len(shape)):
        return False
    length = shape[channels.axis]
    return length is not None and length % channels.number == 0


def _is_exact(fused: FusedGraph, layer: FusedLayer, affine: Affine, fixed: Collection[str]) -> bool:
    weights, bias = _folded(layer, affine)
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        return False
    if not np.any(affine.shift):
        return True
    pads = layer.weights is None or layer.op.pads(fused.node_of(layer.name), layer.weights.shape)
    return not pads and not (layer.bias is None and fused.tail_of(layer.name) in fixed)


def _folded(layer: FusedLayer, affine: Affine) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights, in their layout, and the bias, [Cout], of a layer that takes in an affine map."""
    assert layer.weights is not None and layer.op.input_axis is not None
    weights = layer.weights.astype(np.float64)
    shape = [affine.scale.size if axis == layer.op.input_axis else 1 for axis in range(weights.ndim)]
    summed = tuple(axis for axis in range(weights.ndim) if axis not in layer.op.channel_axes)
    with np.errstate(all="ignore"):
        shift = np.sum(weights * affine.shift.reshape(shape), axis=summed).reshape(-1)
        bias = shift if layer.bias is None else layer.bias + shift
        return aligned((weights * affine.scale.reshape(shape)).astype(np.float32)), bias.astype(np.float32)


def _fold(
    fused: FusedGraph,
    editor: GraphEditor,
    layer: FusedLayer,
    front: _Front,
    originals: Iterable[OriginalName],
    origins: dict[FusedName, tuple[OriginalName, ...]],
    alike: dict[str, str],
    keep: Collection[str],
) -> FusedLayer:
    """Folds a front into a layer of a graph under edit, and returns the layer.

    What the front reads is asked of the editor: it may be a layer that has just got a bias.
    """
    weights, bias = _folded(layer, front.affine)
    assert layer.op.weight_input is not None
    const = editor.add(make_const(editor.unique_name(f"{layer.name}/folded_weights"), weights), like=layer.name)
    origins[FusedName(const)] = ()
    editor.replace_constant(layer.name, layer.op.weight_input, const, keep)
    data = editor.node(str(front.nodes[0].name)).input[front.data_input]
    editor.replace_input(layer.name, layer.op.data_input, data)
    folded = replace(
        layer,
        weights=weights,
        absorbed=(*originals, *layer.absorbed),
        absorbed_types=(*(str(node.op) for node in front.nodes), *layer.absorbed_types),
        is_scaled_in_front=layer.is_scaled_in_front or bool(np.any(front.affine.scale != 1)),
    )
    if layer.bias is None and not np.any(front.affine.shift):
        return folded
    const = editor.add(make_const(editor.unique_name(f"{layer.name}/folded_bias"), bias), like=layer.name)
    origins[FusedName(const)] = ()
    if layer.bias is not None:
        editor.replace_input(fused.tail_of(layer.name), 1, const)
        return replace(folded, bias=bias)
    accumulator = fused.accumulator_of(layer.name)
    tail = editor.unique_name(f"{layer.name}/BiasAdd")
    origins[FusedName(tail)] = ()
    alike[tail] = accumulator
    node = make_node(tail, "BiasAdd", [accumulator, const], T=tf.float32, data_format=layer.data_format)
    editor.add(node, like=layer.name)
    editor.redirect({accumulator: tail}, exempt=[tail])
    return replace(folded, bias=bias)
