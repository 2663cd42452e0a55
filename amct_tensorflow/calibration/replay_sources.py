"""Which tensors of the caller's graph must be kept to compute every quantized layer's input again."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from amct_tensorflow.graph.view import CONTROL, GraphView, full_tensor_name, parse_tensor_name


class Source(NamedTuple):
    """A tensor to keep, and a node that reads it on the way to a quantized layer."""

    tensor: str
    reader: str


def replay_sources(
    graph: tf.Graph, view: GraphView, inputs: Mapping[str, str], outputs: Sequence[str] = ()
) -> list[Source]:
    """Finds the tensors from which the inputs of all layers follow, and the outputs if asked for.

    The walk goes up from the layers and stops at the inputs of the first layers (those that depend on no other), and
    at nodes that yield data of their own: placeholders, iterators, variables.

    Args:
        graph: the caller's graph.
        view: index of the same graph.
        inputs: per quantized layer the activations it reads, as GraphDef writes the input.
        outputs: nodes that are to be computed as well.

    Returns:
        The sources, each once, in the order found.
    """
    behind_layers = _downstream(view, inputs)
    first_inputs = {
        full_tensor_name(text) for text in inputs.values() if parse_tensor_name(text).node not in behind_layers
    }
    sources: dict[str, Source] = {}
    visited: set[str] = set()
    waiting = [(text, layer) for layer, text in inputs.items()]
    waiting.extend((text, output) for output in outputs for text in view.nodes[output].input)
    while waiting:
        text, reader = waiting.pop()
        name = parse_tensor_name(text)
        tensor = full_tensor_name(text)
        if name.port == CONTROL or tensor in visited:
            continue
        visited.add(tensor)
        node = view.nodes[name.node]
        if node.op == "Const":
            continue
        if tensor in first_inputs or not node.input or graph.get_operation_by_name(node.name).op_def.is_stateful:
            sources[tensor] = Source(tensor, reader)
            continue
        waiting.extend((text, node.name) for text in node.input)
    return list(sources.values())


def _downstream(view: GraphView, names: Collection[str]) -> set[str]:
    """Returns every node that depends on one of ``names``."""
    reached: set[str] = set()
    waiting = list(names)
    while waiting:
        for consumer in view.consumers(waiting.pop()):
            if not view.is_control(consumer) and consumer.node.name not in reached:
                reached.add(consumer.node.name)
                waiting.append(consumer.node.name)
    return reached
