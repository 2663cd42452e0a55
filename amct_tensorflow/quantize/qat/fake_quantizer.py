"""Recognizes fake quantizers, and finds their readers."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import Consumer, GraphView, attribute, parse_tensor_name
from amct_tensorflow.ops import has, trait, traits
from amct_tensorflow.ops.clips import RELU, Clips
from amct_tensorflow.quantize.algorithms.fake_quantizer_ranges import FakeQuantizerRange, fake_quantizer_range


@dataclass(frozen=True, eq=False)
class FakeQuantizer:
    """A node that rounds its input to few values.

    Attributes:
        name: its name.
        input: what it reads, as GraphDef writes the input.
        range: its values.
    """

    name: str
    input: str
    range: FakeQuantizerRange


def is_fake_quantizer(node: NodeDef) -> bool:
    """Tells whether a node rounds to the values of a range."""
    found = trait(node.op, traits.FakeQuantizer)
    return found is not None and found.to_range


def as_fake_quantizer(view: GraphView, node: NodeDef) -> FakeQuantizer | None:
    """Returns a node as a fake quantizer; None if it is none, or its range is not constant."""
    if not is_fake_quantizer(node):
        return None
    if node.op == "FakeQuantWithMinMaxArgs":
        defaults = {"min": -6.0, "max": 6.0}
        ends = [attribute(node, key).f if key in node.attr else default for key, default in defaults.items()]
        minimum, maximum = (np.array(end, np.float32) for end in ends)
    else:
        constants = [view.constant(text) for text in node.input[1:3]]
        if constants[0] is None or constants[1] is None:
            return None
        minimum, maximum = constants[0], constants[1]
    num_bits = int(attribute(node, "num_bits").i) if "num_bits" in node.attr else 8
    return FakeQuantizer(
        node.name,
        node.input[0],
        fake_quantizer_range(minimum, maximum, num_bits, bool(attribute(node, "narrow_range").b)),
    )


def source(view: GraphView, text: str) -> FakeQuantizer | None:
    """Returns the fake quantizer whose values an input has, perhaps moved; None if there is none."""
    tensor = parse_tensor_name(text)
    node = view.nodes[tensor.node]
    while _keeps_values(node) and tensor.port == 0:
        tensor = parse_tensor_name(node.input[0])
        node = view.nodes[tensor.node]
    return as_fake_quantizer(view, node)


def readers(view: GraphView, name: str) -> Iterator[Consumer]:
    """Yields every edge on which values of a node arrive, perhaps moved; those that move them on included."""
    waiting = [name]
    while waiting:
        for edge in view.consumers(waiting.pop()):
            if view.is_control(edge):
                continue
            yield edge
            if moves(edge):
                waiting.append(edge.node.name)


def moves(edge: Consumer) -> bool:
    """Tells whether the reader of an edge passes its value on unchanged."""
    return _keeps_values(edge.node) and edge.input_index == 0


def _keeps_values(node: NodeDef) -> bool:
    """Tells whether quantizing before and behind a node is the same: every fake quantizer can represent 0."""
    return has(node.op, traits.Moves) or trait(node.op, Clips) is RELU
