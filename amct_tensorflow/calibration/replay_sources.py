"""Which tensors of the caller's graph must be kept to compute every quantized layer's input again."""

from collections.abc import Collection, Mapping, Sequence

import tensorflow as tf

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.view import CONTROL, GraphView, full_tensor_name, parse_tensor_name


def replay_sources(
    graph: tf.Graph, view: GraphView, callers: Collection[str], inputs: Mapping[str, str], outputs: Sequence[str] = ()
) -> list[str]:
    """Finds the tensors from which the inputs of all layers follow, and the outputs if asked for.

    The walk goes up from the layers and stops at the inputs of the first layers (those that depend on no other), and
    at nodes that yield data of their own: placeholders, iterators, variables.

    Args:
        graph: the prepared graph, as TensorFlow sees it.
        view: index of the same graph.
        callers: the nodes of the caller's graph; a node of the prepared graph that is one of them has the same value.
        inputs: per quantized layer the activations it reads, as GraphDef writes the input.
        outputs: nodes that are to be computed as well.

    Returns:
        Full names of tensors of the caller's graph, each once, in the order found.

    Raises:
        ModelError: data comes from inside a function of the caller's graph.
    """
    behind_layers = _downstream(view, inputs)
    first_inputs = {
        full_tensor_name(text)
        for text in inputs.values()
        if parse_tensor_name(text).node not in behind_layers and parse_tensor_name(text).node in callers
    }
    sources: dict[str, None] = {}
    visited: set[str] = set()
    waiting = [*inputs.values(), *(text for output in outputs for text in view.nodes[output].input)]
    while waiting:
        text = waiting.pop()
        name = parse_tensor_name(text)
        tensor = full_tensor_name(text)
        if name.port == CONTROL or tensor in visited:
            continue
        visited.add(tensor)
        node = view.nodes[name.node]
        if node.op == "Const":
            continue
        if tensor not in first_inputs and node.input and not graph.get_operation_by_name(node.name).op_def.is_stateful:
            waiting.extend(node.input)
            continue
        if node.name not in callers:
            raise ModelError(
                f"Node {node.name!r} ({node.op}) yields data of its own inside a function, where calibration cannot "
                "see it. Export the model without it."
            )
        sources[tensor] = None
    return list(sources)


def readers_of(view: GraphView, tensor: str, needed: Collection[str]) -> list[str]:
    """Returns the nodes among ``needed`` that read a tensor, given by its full name."""
    name = parse_tensor_name(tensor)
    edges = [edge for edge in view.consumers(name.node) if edge.node.name in needed]
    return list(
        dict.fromkeys(edge.node.name for edge in edges if parse_tensor_name(edge.node.input[edge.input_index]) == name)
    )


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
