"""Finds the nodes of a graph, quantized or not, that break a rule of ATC's parser."""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.devices.examined_graph import OWN_OPS, ExaminedGraph
from amct_tensorflow.graph.op_definitions import functions_named
from amct_tensorflow.graph.view import attribute

_INPUT_TYPES = ("float16", "float32", "uint8", "int32", "int64", "bool")


class Hit(NamedTuple):
    """A node that breaks a rule.

    Attributes:
        node: its name; empty for the whole model.
        detail: what is so of this node, as a sentence.
    """

    node: str
    detail: str


@cache
def known_op_types() -> frozenset[str]:
    """Returns the op types that a public source of ATC is known to have."""
    text = (files("amct_tensorflow.devices") / "atc_op_types.txt").read_text(encoding="utf-8")
    return frozenset(line.split()[0] for line in text.splitlines() if line and not line.startswith("#"))


def doubled_names(graph: ExaminedGraph) -> Iterator[Hit]:
    """Several nodes have one name."""
    for name in graph.doubled:
        yield Hit(name, "Several nodes have this name.")


def input_types(graph: ExaminedGraph) -> Iterator[Hit]:
    """An input is of a type that ATC does not take."""
    for node in graph.inputs:
        dtype = tf.as_dtype(attribute(node, "dtype").type or tf.float32.as_datatype_enum).name
        if dtype not in _INPUT_TYPES:
            yield Hit(str(node.name), f"It is of type {dtype}.")


def empty_axes(graph: ExaminedGraph) -> Iterator[Hit]:
    """An input has an axis of length 0."""
    for node in graph.inputs:
        shape = graph.input_shape(node)
        if shape is not None and 0 in shape:
            yield Hit(str(node.name), f"Its shape is {list(shape)}.")


def open_lengths(graph: ExaminedGraph) -> Iterator[Hit]:
    """An input of a quantized model leaves more open than the number of images."""
    for node in graph.inputs if graph.is_quantized else ():
        shape = graph.input_shape(node)
        if shape is None:
            yield Hit(str(node.name), "It may have any number of axes.")
        elif None in shape:
            lengths = ", ".join("?" if length is None else str(length) for length in shape)
            yield Hit(str(node.name), f"For one image its shape is [{lengths}].")


def unlisted_types(graph: ExaminedGraph) -> Iterator[Hit]:
    """The op type of a node is in no list."""
    called = {function.signature.name for function in graph.view.graph_def.library.function} - OWN_OPS
    for node in graph.view.nodes.values():
        if node.op not in known_op_types() | OWN_OPS | called:
            yield Hit(str(node.name), f"Its op type is {node.op}.")


def function_calls(graph: ExaminedGraph) -> Iterator[Hit]:
    """A node calls a function of the model."""
    known = {function.signature.name for function in graph.view.graph_def.library.function} - OWN_OPS
    for node in graph.view.nodes.values():
        called = [name for name in functions_named(node) if name in known]
        if called:
            yield Hit(str(node.name), f"It calls {', '.join(map(repr, called))}.")


def names_of_op_types(graph: ExaminedGraph) -> Iterator[Hit]:
    """A node of an unlisted op type is named as this."""
    for node in graph.view.nodes.values():
        if node.name == node.op and node.op not in known_op_types() | OWN_OPS:
            yield Hit(str(node.name), "Name and op type are the same.")


def several_layouts(graph: ExaminedGraph) -> Iterator[Hit]:
    """A node has another data format than the first that has one."""
    formats = [(node, _layout(node)) for node in graph.view.graph_def.node]
    stated = [(node, layout) for node, layout in formats if layout]
    for node, layout in stated:
        if layout != stated[0][1]:
            yield Hit(str(node.name), f"It is {layout}, and {str(stated[0][0].name)!r} is {stated[0][1]}.")


def _layout(node: NodeDef) -> str:
    """Returns NHWC or NCHW, for volumes too; nothing for a node that does not say or does not count."""
    stated = "" if node.op == "BiasAdd" else attribute(node, "data_format").s.decode(errors="replace")
    return {"NDHWC": "NHWC", "NCDHW": "NCHW"}.get(stated, stated)


def explicit_depthwise_paddings(graph: ExaminedGraph) -> Iterator[Hit]:
    """A depthwise convolution states its padding number by number."""
    for node in graph.view.nodes.values():
        if node.op == "DepthwiseConv2dNative" and attribute(node, "padding").s == b"EXPLICIT":
            yield Hit(str(node.name), f"explicit_paddings is {list(attribute(node, 'explicit_paddings').list.i)}.")
