"""Finds entry points: tensors that alone determine all outputs, so that a model can be run from there."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from amct_tensorflow.graph.view import GraphView, parse_tensor_name, upstream
from amct_tensorflow.ops import has, trait
from amct_tensorflow.ops.traits import ControlFlow, Identity, RunState


class DataFlow(NamedTuple):
    """The nodes that depend on the data.

    Attributes:
        order: in topological order.
        entry_points: the nodes whose output 0 alone determines all outputs, in the same order.
    """

    order: tuple[str, ...]
    entry_points: tuple[str, ...]


def find_entry_points(view: GraphView, sources: Collection[str], outputs: Sequence[str]) -> DataFlow:
    """Follows the data from its sources to the outputs.

    Args:
        view: the graph.
        sources: nodes that yield the data; all other values depend on them and on constants.
        outputs: nodes that are asked for.
    """
    order = _data_nodes(view, sources, outputs)
    position = {name: index for index, name in enumerate(order)}
    last_use = dict(position)
    other_ports: set[str] = set()
    for name in order:
        for source in map(parse_tensor_name, view.nodes[name].input):
            if source.node in position:  # by a control edge, too: what waits for a node that is not run never runs
                last_use[source.node] = max(last_use[source.node], position[name])
            if source.port > 0:
                other_ports.add(source.node)
    last_use.update({output: len(order) for output in outputs if output in position})
    states = _states(view, position)
    entry_points = []
    still_needed = -1  # the last use of whatever was computed so far
    for index, name in enumerate(order):
        alone = still_needed <= index < last_use[name] < len(order)
        alone = alone and not any(first <= index < last for first, last in states)
        if alone and name not in sources and name not in other_ports and name not in view.uncertain_nodes:
            entry_points.append(name)
        still_needed = max(still_needed, last_use[name])
    return DataFlow(tuple(order), tuple(entry_points))


def _data_nodes(view: GraphView, sources: Collection[str], outputs: Sequence[str]) -> list[str]:
    """Returns the nodes that depend on data; sources first, as no node before the last one determines the outputs."""
    between = upstream(view.nodes, outputs) & view.downstream(sources)
    order = [node.name for node in view.topological() if node.name in between]
    return sorted(order, key=lambda name: name not in sources)


def _states(view: GraphView, position: Mapping[str, int]) -> list[tuple[int, int]]:
    """Returns per TensorArray or stack the positions between which it is in use: it holds data beside the tensors."""
    spans = []
    for node in view.nodes.values():
        state = trait(node.op, RunState)
        if state is not None and state.makes:
            users = {edge.node.name for name in _passing_on(view, str(node.name)) for edge in view.consumers(name)}
            uses = [position[name] for name in users if name in position]
            spans.append((min(uses, default=0), max(uses, default=0)))
    return spans


def _passing_on(view: GraphView, handle: str) -> set[str]:
    """Returns a node that yields a handle, and those that pass it on into loops and branches."""
    passing = {name for name, node in view.nodes.items() if has(node.op, Identity) or has(node.op, ControlFlow)}
    return {handle} | view.downstream((edge.node.name for edge in view.consumers(handle)), passing)
