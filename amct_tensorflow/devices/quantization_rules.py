"""Finds the nodes that break a rule of GE's for quantized layers, in a quantized graph."""

import math
from collections.abc import Collection, Iterator

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.devices.chains import PRODUCTS, Break, Chain, source, weights_of
from amct_tensorflow.devices.examined_graph import ExaminedGraph
from amct_tensorflow.devices.graph_rules import Hit
from amct_tensorflow.devices.undone_layers import computes_its_size, few_channels, unfit_pooling
from amct_tensorflow.graph.view import GraphView, Shape, attribute, data_inputs
from amct_tensorflow.io.table import plural
from amct_tensorflow.model.layers import why_not_quantizable
from amct_tensorflow.ops import OP_TYPES, has
from amct_tensorflow.ops.channels import data_format
from amct_tensorflow.ops.clips import Clips
from amct_tensorflow.ops.traits import Moves, Sum
from amct_tensorflow.quantize.quantized.ascend_ops import ANTI_QUANT, DEQUANT, QUANT, WEIGHT_QUANT
from amct_tensorflow.quantize.quantized.quantized_layer import INSIDE_OUTPUT

_STORED_TYPES = ("INT8", "INT4", "INT16")
_FLOATS = (tf.float32.as_datatype_enum, tf.float16.as_datatype_enum)
_SCALE_TYPES = (np.dtype("uint64"), np.dtype("float16"))
_TRANSPOSING = ("transpose_a", "transpose_b", "adj_x", "adj_y")
# Pooling between AscendQuant and AscendAntiQuant is fused, and Pad and Split may begin a chain.
_BETWEEN = ("Pad", "Split", "SplitV", "MaxPool")
_LARGEST_FLOAT16 = 65504.0
_SMALLEST_SCALE = 2.0**-14
_SHIFT_BITS = 0xFF << 32
_REACH = 12


def nodes_behind_layers(graph: ExaminedGraph) -> Iterator[Hit]:
    """Something stands between a layer and its AscendDequant."""
    for chain in _broken(graph, Break.BEHIND_LAYER):
        assert chain.culprit is not None
        layer = f" behind layer {str(chain.layers[0].name)!r}" if chain.layers else ""
        yield Hit(str(chain.culprit.name), f"{chain.culprit.op} stands{layer} before {_name(chain.dequantizer)}.")


def nodes_before_layers(graph: ExaminedGraph) -> Iterator[Hit]:
    """Something stands between an AscendQuant and its layer, or there is no AscendQuant."""
    for chain in _broken(graph, Break.BEFORE_LAYER):
        assert chain.culprit is not None
        stands = f"{chain.culprit.op} {_name(chain.culprit)} stands before it"
        behind = f", behind {_name(chain.quantizers[0])}" if chain.quantizers else ", and no AscendQuant"
        yield Hit(str(chain.layers[0].name), f"{stands}{behind}.")


def float_weights(graph: ExaminedGraph) -> Iterator[Hit]:
    """A layer with quantized data has other weights."""
    for chain in _broken(graph, Break.WEIGHTS):
        assert chain.culprit is not None
        weights = weights_of(graph.view, chain.culprit)
        told = "It has no weights." if weights is None else f"Its weights come from {weights.op} {_name(weights)}."
        yield Hit(str(chain.culprit.name), told)


def _broken(graph: ExaminedGraph, where: Break) -> list[Chain]:
    return [chain for chain in graph.chains if chain.broken is where]


def stray_readers(graph: ExaminedGraph) -> Iterator[Hit]:
    """What reads an AscendQuant is neither in a chain nor an AscendAntiQuant."""
    known = {str(layer.name) for chain in graph.chains for layer in chain.layers}
    known |= {str(chain.culprit.name) for chain in graph.chains if chain.culprit is not None}
    for node in graph.view.nodes.values():
        if node.op == QUANT:
            for reader in _readers(graph.view, node):
                if reader.op != ANTI_QUANT and not _leads_to(graph.view, reader, known):
                    known.add(str(reader.name))
                    yield Hit(str(reader.name), f"{reader.op} reads the integers of {_name(node)}.")


def _leads_to(view: GraphView, node: NodeDef, names: Collection[str], steps: int = 2) -> bool:
    """Tells whether a node is one of some, or is read by one, perhaps through another."""
    if node.name in names:
        return True
    return steps > 0 and any(_leads_to(view, reader, names, steps - 1) for reader in view.readers(node.name))


def _readers(view: GraphView, node: NodeDef) -> Iterator[NodeDef]:
    for reader in view.readers(node.name):
        if reader.op in _BETWEEN:
            yield from _readers(view, reader)
        else:
            yield reader


def quantizer_attributes(graph: ExaminedGraph) -> Iterator[Hit]:
    """An AscendQuant lacks an attribute, or has a value that is none."""
    for node in _of_type(graph, QUANT):
        missing = [key for key in ("scale", "offset") if attribute(node, key).WhichOneof("value") != "f"]
        stored = attribute(node, "dst_type").s.decode(errors="replace")
        if missing:
            yield Hit(str(node.name), f"It has no float {' and no float '.join(missing)}.")
        elif not (math.isfinite(attribute(node, "scale").f) and attribute(node, "scale").f > 0):
            yield Hit(str(node.name), f"Its scale is {attribute(node, 'scale').f:g}.")
        elif "dst_type" in node.attr and stored not in _STORED_TYPES:
            yield Hit(str(node.name), f"Its dst_type is {stored!r}.")


def wide_quantizers(graph: ExaminedGraph) -> Iterator[Hit]:
    """An AscendQuant yields 16 bits."""
    for node in _of_type(graph, QUANT):
        if attribute(node, "dst_type").s == b"INT16" or attribute(node, "quant_bits").i == 16:
            yield Hit(str(node.name), "It yields INT16.")


def quantizer_types(graph: ExaminedGraph) -> Iterator[Hit]:
    """An AscendQuant reads another type than its op takes."""
    for node in _of_type(graph, QUANT):
        dtype = attribute(node, "T").type
        if dtype and dtype not in _FLOATS:
            yield Hit(str(node.name), f"It reads {tf.as_dtype(dtype).name}.")


def weight_quantizers(graph: ExaminedGraph) -> Iterator[Hit]:
    """An AscendWeightQuant reads something else than constants of int8."""
    for node in _of_type(graph, WEIGHT_QUANT):
        for index, what in enumerate(("weights", "offsets")):
            read = source(graph.view, node, index)
            value = None if read is None else graph.view.constant(node.input[index])
            if value is None or value.dtype != np.int8:
                found = "missing" if read is None else f"{read.op} {_name(read)}" if value is None else value.dtype.name
                yield Hit(str(node.name), f"Its {what} are {found}.")
                break


def anti_quantizer_offsets(graph: ExaminedGraph) -> Iterator[Hit]:
    """An AscendAntiQuant does not hold minus the offset of its AscendQuant."""
    for node in _of_type(graph, ANTI_QUANT):
        quantizer = source(graph.view, node, 0)
        if quantizer is not None and quantizer.op == "MaxPool":
            quantizer = source(graph.view, quantizer, 0)
        if quantizer is None or quantizer.op != QUANT:
            continue
        own, other = attribute(node, "offset").f, attribute(quantizer, "offset").f
        if own != -other:
            yield Hit(str(node.name), f"Its offset is {own:g}, and that of {_name(quantizer)} is {other:g}.")


def scale_kinds(graph: ExaminedGraph) -> Iterator[Hit]:
    """The deq_scale of an AscendDequant is no constant, or of another type."""
    for node in _of_type(graph, DEQUANT):
        read = source(graph.view, node, 1)
        value = None if read is None else graph.view.constant(data_inputs(node.input)[1])
        if read is None:
            yield Hit(str(node.name), "It has no deq_scale.")
        elif value is None:
            yield Hit(str(node.name), f"Its deq_scale is {read.op} {_name(read)}.")
        elif value.dtype not in _SCALE_TYPES:
            yield Hit(str(node.name), f"Its deq_scale is of type {value.dtype.name}.")


def scale_ranks(graph: ExaminedGraph) -> Iterator[Hit]:
    """The deq_scale of an AscendDequant has another rank than 1."""
    for node, value in _scales(graph):
        if value.ndim != 1:
            yield Hit(str(node.name), f"Its deq_scale has the shape {list(value.shape)}.")


def shifted_scales(graph: ExaminedGraph) -> Iterator[Hit]:
    """The deq_scale of an AscendDequant asks for a shift."""
    for node, value in _scales(graph):
        if value.dtype == np.uint64 and np.any(value & np.uint64(_SHIFT_BITS)):
            yield Hit(str(node.name), "Bits 32 to 39 of its deq_scale are not 0.")


def _scales(graph: ExaminedGraph) -> Iterator[tuple[NodeDef, np.ndarray]]:
    for node in _of_type(graph, DEQUANT):
        value = None if source(graph.view, node, 1) is None else graph.view.constant(data_inputs(node.input)[1])
        if value is not None:
            yield node, value


def computed_biases(graph: ExaminedGraph) -> Iterator[Hit]:
    """The bias of a layer is neither a constant nor cast from one."""
    for chain in graph.chains:
        bias = None if chain.bias is None else source(graph.view, chain.bias, 1)
        if chain.bias is not None and bias is not None and _bias_value(graph.view, chain.bias) is None:
            yield Hit(str(chain.bias.name), f"Its bias comes from {bias.op} {_name(bias)}.")


def fractional_biases(graph: ExaminedGraph) -> Iterator[Hit]:
    """The bias of a layer has values that are no whole numbers."""
    for chain in graph.chains:
        value = None if chain.bias is None else _bias_value(graph.view, chain.bias)
        if chain.bias is not None and value is not None and np.any(value != np.trunc(value)):
            yield Hit(
                str(chain.bias.name), f"{np.count_nonzero(value != np.trunc(value))} values are no whole numbers."
            )


def _bias_value(view: GraphView, bias: NodeDef) -> np.ndarray | None:
    """Returns the bias that a node adds, if it is a constant or cast from one of int32."""
    text = data_inputs(bias.input)[1]
    value = view.constant(text)
    cast = view.producer(text)
    if value is None and cast.op == "Cast" and cast.input:
        inner = view.constant(cast.input[0])
        value = inner if inner is not None and inner.dtype == np.int32 else None
    return value


def uncertain_biases(graph: ExaminedGraph) -> Iterator[Hit]:
    """A product of matrices of any rank has its bias as a BiasAdd."""
    for chain in graph.chains:
        if chain.bias is not None and chain.bias.op == "BiasAdd" and any(each.op in PRODUCTS for each in chain.layers):
            yield Hit(str(chain.bias.name), f"It stands behind {chain.layers[0].op} {_name(chain.layers[0])}.")


def barriers_in_chains(graph: ExaminedGraph) -> Iterator[Hit]:
    """A Snapshot stands behind a layer."""
    for chain in graph.chains:
        for barrier in chain.barriers:
            yield Hit(str(barrier.name), f"It stands before {_name(chain.dequantizer)}.")


def transposed_products(graph: ExaminedGraph) -> Iterator[Hit]:
    """A quantized MatMul takes an operand transposed."""
    for layer in _layers(graph):
        flags = [flag for flag in _TRANSPOSING if attribute(layer, flag).b]
        if flags and layer.op == "MatMul":
            yield Hit(str(layer.name), f"It has {' and '.join(flags)}.")


def computed_sizes(graph: ExaminedGraph) -> Iterator[Hit]:
    """A quantized transposed convolution computes the size of its output."""
    for layer in _layers(graph):
        if computes_its_size(graph.view, layer):
            read = graph.view.producer(data_inputs(layer.input)[0])
            yield Hit(str(layer.name), f"Its input_size comes from {read.op} {_name(read)}.")


def computed_operands(graph: ExaminedGraph) -> Iterator[Hit]:
    """A MatMul multiplies two computed operands."""
    for chain in graph.chains:
        for layer in chain.layers if len(chain.quantizers) > 1 else ():
            if layer.op == "MatMul":
                yield Hit(str(layer.name), f"It reads {_name(chain.quantizers[0])} and {_name(chain.quantizers[1])}.")


def offset_operands(graph: ExaminedGraph) -> Iterator[Hit]:
    """A product of two computed operands has one with a zero point."""
    for chain in graph.chains:
        if len(chain.quantizers) > 1:
            for quantizer in chain.quantizers:
                offset = attribute(quantizer, "offset").f
                if offset:
                    yield Hit(str(quantizer.name), f"Its offset is {offset:g}.")


def unknown_channels(graph: ExaminedGraph) -> Iterator[Hit]:
    """A layer with a zero point reads an unknown number of channels."""
    for chain in graph.chains if graph.knows_shapes else ():
        offset = attribute(chain.quantizers[0], "offset").f if chain.quantizers else 0.0
        for layer in chain.layers if offset else ():
            if OP_TYPES[layer.op].has_weights and not knows_channels(graph.view, layer):
                yield Hit(str(layer.name), f"Its zero point is {offset:g}.")


def knows_channels(view: GraphView, layer: NodeDef) -> bool:
    """Tells whether the number of channels that a layer reads follows from static shapes."""
    shape: Shape | None = view.shape(data_inputs(layer.input)[OP_TYPES[layer.op].data_input])
    axis = 1 if data_format(layer) == "NCHW" else -1
    return shape is not None and len(shape) > 1 and shape[axis] is not None


def values_beyond_float16(graph: ExaminedGraph) -> Iterator[Hit]:
    """Calibration saw greater values than float16 has, where AscendDequant hands values on."""
    found: dict[str, float] = {}
    for chain in graph.chains:
        layer = str(chain.layers[0].name) if chain.layers and chain.quantizers else ""
        observed = graph.ranges.get(layer) or graph.ranges.get(layer.removesuffix(f"/{INSIDE_OUTPUT}"))
        largest = max(map(abs, observed)) if observed else 0.0
        if largest > _LARGEST_FLOAT16:
            for dequantizer in _dequantizers_before(graph.view, chain.quantizers[0]):
                found[dequantizer] = max(largest, found.get(dequantizer, 0.0))
    for name, largest in found.items():
        yield Hit(name, f"Calibration saw {largest:.4g} behind it.")


def _dequantizers_before(view: GraphView, quantizer: NodeDef) -> Iterator[str]:
    """Yields the AscendDequants whose values reach an AscendQuant through what keeps their size, or adds them up."""
    waiting, seen = [(quantizer, 0)], set()
    while waiting:
        node, depth = waiting.pop()
        for text in data_inputs(node.input):
            before = view.producer(text)
            if before.name in seen:
                continue
            seen.add(before.name)
            if before.op == DEQUANT:
                yield str(before.name)
            elif depth < _REACH and any(has(before.op, kind) for kind in (Moves, Sum, Clips)):
                waiting.append((before, depth + 1))


def scales_out_of_range(graph: ExaminedGraph) -> Iterator[Hit]:
    """The scale of an AscendQuant is none of float16."""
    for node in _of_type(graph, QUANT):
        scale = attribute(node, "scale").f
        if scale > 0 and not _SMALLEST_SCALE <= scale <= _LARGEST_FLOAT16:
            yield Hit(str(node.name), f"Its scale is {scale:.4g}.")


def layers_of_few_channels(graph: ExaminedGraph) -> Iterator[Hit]:
    """A convolution reads too few channels."""
    for layer in int8_layers(graph):
        channels = few_channels(graph.view, layer)
        if channels is not None:
            yield Hit(str(layer.name), f"It reads {plural(channels, 'channel')}.")


def unfit_poolings(graph: ExaminedGraph) -> Iterator[Hit]:
    """An AvgPool is of a kind that is not done in int8."""
    for layer in int8_layers(graph):
        reason = unfit_pooling(graph.view, layer)
        if reason is not None:
            yield Hit(str(layer.name), f"{reason[0].upper()}{reason[1:]}.")


def _layers(graph: ExaminedGraph) -> list[NodeDef]:
    return [layer for chain in graph.chains for layer in chain.layers]


def int8_layers(graph: ExaminedGraph) -> list[NodeDef]:
    """Returns the layers in int8; of a float model those that quantization would put into it."""
    if graph.is_quantized:
        return [layer for chain in graph.chains if chain.broken is None for layer in chain.layers]
    return [node for node in graph.view.nodes.values() if why_not_quantizable(graph.view, node) is None]


def _of_type(graph: ExaminedGraph, op: str) -> list[NodeDef]:
    return [node for node in graph.view.nodes.values() if node.op == op]


def _name(node: NodeDef) -> str:
    return repr(str(node.name))
