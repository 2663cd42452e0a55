"""Inspects a model: its layers, the nodes folded into them, and what stays in float and why."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.names import LayerName, OriginalName, PreparedName
from amct_tensorflow.graph.view import GraphView, Shape, data_inputs, static_shapes
from amct_tensorflow.io.stages import stage
from amct_tensorflow.model.endpoints import Endpoint, find_inputs, find_outputs
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.float_scalings import FloatScaling, find_float_scalings
from amct_tensorflow.model.fusion import FusedLayer
from amct_tensorflow.model.layers import IN_LOOP, is_product, why_not_quantizable
from amct_tensorflow.model.opened_functions import OpenGraph, open_functions
from amct_tensorflow.model.outline import one_image_shapes
from amct_tensorflow.model.tables import Table, find_tables
from amct_tensorflow.ops import OP_TYPES, has
from amct_tensorflow.ops.multiply_accumulates import CARRIERS, multiply_accumulates
from amct_tensorflow.ops.traits import Chance
from amct_tensorflow.ops.varying import varying_nodes


@dataclass(frozen=True)
class InspectedLayer:
    """A node that multiplies and accumulates, or can be quantized.

    Attributes:
        name: its node in the prepared graph; of a layer that can be quantized, its key in config.json.
        op_type: TensorFlow op type.
        input_shape: shape of its data for one image; None if it may have any number of axes.
        weights_shape: shape of its constant weights; None if it has none.
        output_shape: shape of its output for one image.
        parameters: number of its weights and biases, after folding.
        multiply_accumulates: how many it takes for one image; None if that is not known. In a loop or function, for one
            round or call.
        absorbed: nodes of the model's file that were folded into it.
        absorbed_types: op types of what was folded into it.
        counts_one_row: whether its multiply-accumulates are those of one row, as the number of rows per image is not
            known.
        in_loop: whether it runs any number of times per image.
        reason: why it cannot be quantized, as the rest of a sentence about it; None if it can.
        is_product: whether both of its operands are computed; it can be quantized then, but is not by default.
    """

    name: PreparedName
    op_type: str
    input_shape: Shape | None
    weights_shape: Shape | None
    output_shape: Shape | None
    parameters: int
    multiply_accumulates: int | None
    absorbed: tuple[OriginalName, ...]
    absorbed_types: tuple[str, ...]
    counts_one_row: bool
    in_loop: bool
    reason: str | None
    is_product: bool = False


@dataclass(frozen=True)
class Share:
    """The share that some layers have in a model.

    Attributes:
        value: the share, from 0 to 1; 1 if the model has nothing to count.
        of: what is counted: ``multiply-accumulates``, or ``parameters`` if a layer's multiply-accumulates are not
            known.
        is_upper_bound: whether the rest of the model may be larger than counted: a loop counts for one round, and a
            layer whose size is not known for nothing.
    """

    value: float
    of: str
    is_upper_bound: bool

    def __str__(self) -> str:
        """Returns the share in percent, with its unit."""
        return f"{'at most ' if self.is_upper_bound else ''}{100 * self.value:.1f} % of the {self.of}"


@dataclass(frozen=True)
class Inspection:
    """The findings of an inspection.

    Attributes:
        source: its path, if it has one.
        inputs: its inputs.
        outputs: its outputs.
        layers: its layers, in the order of the graph.
        float_scalings: BatchNorms and other scalings of channels that stay in float.
        unused: layers on which no output depends.
        tables: constants that are looked up, and whether they can be stored in int8.
        random: nodes that draw random numbers, but for those in branches, which inference need not take.
    """

    source: str | Path
    inputs: tuple[Endpoint, ...]
    outputs: tuple[Endpoint, ...]
    layers: tuple[InspectedLayer, ...]
    float_scalings: tuple[FloatScaling, ...]
    unused: tuple[LayerName, ...]
    tables: tuple[Table, ...] = ()
    random: tuple[PreparedName, ...] = ()

    @property
    def quantizable(self) -> list[LayerName]:
        """Names of the layers that can be quantized."""
        return [LayerName(layer.name) for layer in self.layers if layer.reason is None]

    @property
    def quantized_by_default(self) -> list[LayerName]:
        """Names of the layers that are quantized unless a configuration says otherwise."""
        return [LayerName(layer.name) for layer in self.layers if layer.reason is None and not layer.is_product]

    @property
    def parameters(self) -> int:
        """Number of parameters of all layers; those that share weights have them each."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_accumulates(self) -> int | None:
        """How many one image takes; None if that is not known."""
        counts = [layer.multiply_accumulates for layer in self.layers]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    @property
    def images(self) -> int:
        """Number of images that counts refer to: the fixed batch size of inputs and outputs; without one, 1."""
        lengths = [{each.shape[0] for each in ends if each.shape} for ends in (self.inputs, self.outputs)]
        return max((length for length in lengths[0] & lengths[1] if length is not None), default=1)

    def share(self, names: Collection[str]) -> Share:
        """Returns the share of the layers ``names`` in the multiply-accumulates of the model."""
        counts = {layer.name: layer.multiply_accumulates for layer in self.layers}
        of = "multiply-accumulates"
        if any(count is None for count in counts.values()):
            counts, of = {layer.name: layer.parameters for layer in self.layers}, "parameters"
        whole = sum(count or 0 for count in counts.values())
        part = sum(count or 0 for name, count in counts.items() if name in names)
        others = [layer for layer in self.layers if layer.name not in names]
        if of == "parameters":
            more = any(layer.multiply_accumulates is None and not layer.parameters for layer in others)
        else:
            more = any(layer.in_loop for layer in others)
        return Share(part / whole if whole else 1.0, of, more)


@stage("inspecting the model")
def inspect_model(model: FloatModel, unfused: Collection[LayerName] = ()) -> Inspection:
    """Inspects a model.

    Args:
        model: the model.
        unfused: layers next to which a BatchNorm is to be kept.

    Raises:
        ModelError: it cannot be prepared.
    """
    outputs = find_outputs(model)
    names = [output.name for output in outputs]
    fused = model.fuse(unfused)
    graph = _with_shapes(open_functions(fused.view, names), model)
    varying = varying_nodes(graph.view)
    layers = [
        _layer(graph, node, fused.layers.get(node.name), varying)
        for node in graph.view.nodes.values()
        if node.name in graph.names and (node.op in CARRIERS or node.op in OP_TYPES)
    ]
    return Inspection(
        source=model.source,
        inputs=tuple(find_inputs(model, names)),
        outputs=tuple(outputs),
        layers=tuple(layer for layer in layers if layer.op_type in OP_TYPES or layer.multiply_accumulates != 0),
        float_scalings=tuple(find_float_scalings(graph, fused, names, unfused)),
        unused=tuple(name for name in fused.layers if name not in graph.names),
        tables=tuple(
            table for table in find_tables(graph.view, names, graph.inside) if graph.names.intersection(table.lookups)
        ),
        random=tuple(
            PreparedName(node.name)
            for node in graph.view.nodes.values()
            if node.name in graph.names - graph.view.branch_nodes and has(node.op, Chance)
        ),
    )


def _with_shapes(graph: OpenGraph, model: FloatModel) -> OpenGraph:
    """Returns a graph with its shapes for one image; if those contradict each other, for any number of images."""
    shapes = one_image_shapes(graph.view, graph.names)
    if shapes is None:
        shapes = static_shapes(model.outline)
    return graph._replace(view=graph.view.with_shapes(shapes))


def _layer(graph: OpenGraph, node: NodeDef, fused: FusedLayer | None, varying: Collection[str]) -> InspectedLayer:
    view, name = graph.view, str(node.name)
    data, constants = _operands(view, node, varying)
    bias = 0 if fused is None or fused.bias is None else fused.bias.size
    in_loop = name in view.loop_nodes or graph.inside.get(name) == IN_LOOP
    return InspectedLayer(
        name=PreparedName(name),
        op_type=str(node.op),
        input_shape=None if data is None else view.shape(data),
        weights_shape=view.shape(constants[0]) if constants else None,
        output_shape=view.shape(name),
        parameters=sum(_elements(view.shape(text)) for text in constants) + bias,
        multiply_accumulates=multiply_accumulates(view, node),
        counts_one_row=(view.shape(name) or (1,))[0] is None,
        absorbed=() if fused is None else tuple(dict.fromkeys(fused.absorbed)),
        absorbed_types=() if fused is None else fused.absorbed_types,
        in_loop=in_loop,
        reason=graph.inside.get(name) or why_not_quantizable(view, node),
        is_product=is_product(view, node),
    )


def _operands(view: GraphView, node: NodeDef, varying: Collection[str]) -> tuple[str | None, list[str]]:
    """Returns the data input of a node, and its inputs that are constant weights."""
    inputs = data_inputs(node.input)
    op_type = OP_TYPES.get(node.op)
    if op_type is not None:
        weights = [] if op_type.weight_input is None else [inputs[op_type.weight_input]]
        inputs = [*weights, inputs[op_type.data_input]]
    data = [text for text in inputs if view.producer(text).name in varying]
    constants = [text for text in inputs if view.producer(text).name not in varying]
    if op_type is not None:  # data comes last, and may begin as a constant in a loop
        return (data or inputs)[-1], constants[:1] if len(inputs) > 1 else []
    return next(iter(data), None), constants


def _elements(shape: Shape | None) -> int:
    """Returns the number of elements of a tensor; 0 if it is not known."""
    return math.prod(length or 0 for length in shape) if shape is not None else 0
