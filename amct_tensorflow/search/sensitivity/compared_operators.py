"""Finds where the effect of quantization is measured: at the outputs, or at the last layers before them.

Detections that are sorted and selected, or the position of a maximum, jump as soon as two scores change places, however
little the scores differ: one layer alone moves such an output about as far as all layers do, and says nothing of how
much it matters. Before the decision, at the last layers, errors are as small as their causes, and add up.
"""

from collections.abc import Collection, Iterator, Sequence

import tensorflow as tf

from amct_tensorflow.graph.view import GraphView, data_inputs, parse_tensor_name
from amct_tensorflow.ops import has, trait
from amct_tensorflow.ops.channel_factors import AsksForShape
from amct_tensorflow.ops.traits import ControlFlow
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan


def compared_operators(graph: tf.Graph, plan: QuantizationPlan) -> tuple[str, ...]:
    """Returns the operators whose output 0 is compared, each once.

    Args:
        graph: the float model as TensorFlow sees it; it tells types.
        plan: the plan of all layers.

    Returns:
        Per output itself; or, if it follows from decisions behind the last layers, those layers' results.
    """
    view = plan.fused.view
    tails = {str(plan.fused.tail_of(name)) for name in plan.factors if name in plan.fused.layers}
    found: list[str] = []
    for output in plan.outputs:
        between, last = _behind_layers(view, output, tails)
        decided = last and any(_decides(view, graph, name) for name in between)
        found += _without_earlier(view, last) if decided else [output]
    return tuple(dict.fromkeys(found))


def _behind_layers(view: GraphView, output: str, tails: Collection[str]) -> tuple[list[str], list[str]]:
    """Returns the nodes between the last layers and an output, itself included, and those layers' last nodes."""
    between: dict[str, None] = {}
    last: dict[str, None] = {}
    waiting = [output]
    while waiting:
        name = waiting.pop()
        if name in between or name in last:
            continue
        (last if name in tails else between)[name] = None
        if name in between and not has(view.nodes[name].op, AsksForShape):
            waiting += [parse_tensor_name(text).node for text in data_inputs(view.nodes[name].input)]
    return list(between), list(last)


def _without_earlier(view: GraphView, names: Sequence[str]) -> Iterator[str]:
    """Yields the nodes behind which none of the others lies, sorted."""
    for name in sorted(names):
        if not (view.downstream([name]) - {name}) & set(names):
            yield name


def _decides(view: GraphView, graph: tf.Graph, name: str) -> bool:
    """Tells whether a node makes integers or truth values of floats."""
    if has(view.nodes[name].op, AsksForShape) or trait(view.nodes[name].op, ControlFlow) is not None:
        return False
    try:
        operation = graph.get_operation_by_name(name)
    except KeyError:  # fusion has added it, and adds no decisions
        return False
    given = any(tensor.dtype.is_floating for tensor in operation.inputs)
    return given and any(not tensor.dtype.is_floating for tensor in operation.outputs)
