"""Moves affine maps from behind a concatenation of layers into its branches.

    Conv2D --> ConcatV2 --> BatchNorm --> y               Conv2D --> Mul --> Add --> ConcatV2 --> y
    Conv2D ----^                             becomes      Conv2D --> Mul --> Add ----^

Older frameworks so write a convolution in groups (Split, one Conv2D per group, ConcatV2). Each layer can then take in
its part of BatchNorm and bias.
"""

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView, data_inputs, parse_tensor_name
from amct_tensorflow.model.fusion import output_channels
from amct_tensorflow.model.layers import layer_weights, why_not_quantizable
from amct_tensorflow.model.preparation.prepared import Origins, PreparedGraph
from amct_tensorflow.ops import OP_TYPES
from amct_tensorflow.ops.affine import Affine
from amct_tensorflow.ops.channels import Channels
from amct_tensorflow.ops.effects import as_affine

# What may stand between a layer and the concatenation, as this rewrite itself puts it there.
_AFFINE = frozenset({"BiasAdd", "Mul", "AddV2"})


def affine_before_concat(graph: PreparedGraph) -> PreparedGraph:
    """Moves affine maps per channel from behind a concatenation of layers into its branches."""
    editor = graph.editor()
    origins: Origins = {}
    for concat in graph.view.nodes.values():
        if concat.op != "ConcatV2" or concat.name in graph.kept or len(graph.view.consumers(concat.name)) != 1:
            continue
        reader = graph.view.consumers(concat.name)[0].node
        if any(text.startswith("^") for text in (*concat.input, *reader.input)):
            continue
        parts = _parts(graph.view, concat)
        whole = _whole(graph.view, concat, parts) if parts else None
        if whole is None:
            continue
        affine = as_affine(graph.view, reader, concat.name, whole)
        if affine is None or not affine.is_finite():
            continue
        stands_for = graph.originals_of([reader.name])
        tensors, new = _branches(editor, concat, reader.name, affine, whole, parts)
        origins.update(dict.fromkeys(new, stands_for))
        node = NodeDef()
        node.CopyFrom(concat)
        node.name = reader.name
        del node.input[:]
        node.input.extend([*tensors, data_inputs(concat.input)[-1]])
        editor.remove(concat.name)
        editor.replace_node(node)
        origins[reader.name] = graph.originals_of([concat.name, reader.name])
    return graph.edited(editor, origins) if origins else graph


def _parts(view: GraphView, concat: NodeDef) -> list[Channels]:
    """Returns the channels of the branches; none if one of them is no layer, or read by others too."""
    found = []
    for text in data_inputs(concat.input)[:-1]:
        channels = _layer_channels(view, text)
        if channels is None or parse_tensor_name(text).port or len(view.consumers(view.producer(text).name)) != 1:
            return []
        found.append(channels)
    return found


def _layer_channels(view: GraphView, text: str) -> Channels | None:
    """Returns where the output of a layer, or of an affine node behind one, has its channels."""
    node = view.producer(text)
    if node.op in OP_TYPES:
        weights = layer_weights(view, node) if why_not_quantizable(view, node) is None else None
        return None if weights is None else output_channels(view, node, weights)
    data = [source for source in data_inputs(node.input) if view.constant(source) is None]
    return _layer_channels(view, data[0]) if node.op in _AFFINE and len(data) == 1 else None


def _whole(view: GraphView, concat: NodeDef, parts: list[Channels]) -> Channels | None:
    """Returns the channels of the concatenation; None if it does not put channels side by side."""
    axis = view.constant(data_inputs(concat.input)[-1])
    first = parts[0]
    if axis is None or first.rank is None or any(part[1:] != first[1:] for part in parts):
        return None
    if (int(axis) - first.rank if axis >= 0 else int(axis)) != first.axis:
        return None
    return first._replace(number=sum(part.number for part in parts))


def _branches(
    editor: GraphEditor, concat: NodeDef, name: str, affine: Affine, whole: Channels, parts: list[Channels]
) -> tuple[list[str], list[str]]:
    """Adds to each branch what is done to its channels; returns the tensors that they end in, and all new nodes."""
    tensors: list[str] = []
    new: list[str] = []
    ends = np.cumsum([part.number for part in parts])[:-1]
    scales, shifts = np.split(affine.scale, ends), np.split(affine.shift, ends)
    shape = [-1] + [1] * (-1 - whole.axis)
    for index, text in enumerate(data_inputs(concat.input)[:-1]):
        tensor = text
        for op, values, neutral in (("Mul", scales[index], 1.0), ("AddV2", shifts[index], 0.0)):
            if np.all(values == neutral):
                continue
            leaf = editor.unique_name(f"{name}/branch_{index}/{op}")
            const = make_const(editor.unique_name(f"{leaf}/y"), values.astype(np.float32).reshape(shape))
            node = make_node(leaf, op, [tensor, editor.add(const, like=concat.name)], T=tf.float32)
            tensor = editor.add(node, like=concat.name)
            new += [tensor, str(const.name)]
        tensors.append(tensor)
    return tensors, new
