"""Finds cuts: few tensors that together determine all outputs, so that a model can be run from there.

A chain of layers can be cut at any tensor. Where shortcuts pass, as in a U-Net or a pyramid of features, several
tensors are in use at a time, and the model is entered with all of them.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from amct_tensorflow.graph.view import GraphView, parse_tensor_name, upstream
from amct_tensorflow.ops import has, trait
from amct_tensorflow.ops.traits import ControlFlow, Identity, RunState

# Each tensor of a cut costs memory, and is fed in each run.
MOST_TENSORS = 4


class Cut(NamedTuple):
    """A place at which a model can be entered.

    Attributes:
        position: that of the last node before it.
        tensors: the nodes up to there whose output 0 is used behind it, or is itself an output.
    """

    position: int
    tensors: tuple[str, ...]


class DataFlow(NamedTuple):
    """The nodes that depend on the data.

    Attributes:
        order: in topological order.
        cuts: the places between them at which few tensors determine all outputs, in the same order.
    """

    order: tuple[str, ...]
    cuts: tuple[Cut, ...]


def find_cuts(view: GraphView, sources: Collection[str], outputs: Sequence[str]) -> DataFlow:
    """Follows the data from its sources to the outputs.

    Args:
        view: the graph.
        sources: nodes that yield the data; all other values depend on them and on constants.
        outputs: nodes that are asked for.
    """
    order = _data_nodes(view, sources, outputs)
    position = {name: index for index, name in enumerate(order)}
    last_use = dict(position)
    unfit = {*sources, *view.uncertain_nodes}
    for name in order:
        for source in map(parse_tensor_name, view.nodes[name].input):
            if source.node in position:  # by a control edge, too: what waits for a node that is not run never runs
                last_use[source.node] = max(last_use[source.node], position[name])
            if source.port > 0:
                unfit.add(source.node)
    last_use.update({output: len(order) for output in outputs if output in position})
    states = _states(view, position)
    cuts = (cut for cut in _cuts(order, last_use) if not unfit & set(cut.tensors))
    return DataFlow(tuple(order), tuple(cut for cut in cuts if not _holds(states, cut.position)))


def _cuts(order: Sequence[str], last_use: Mapping[str, int]) -> Iterator[Cut]:
    """Yields the places at which few values are in use, of a node or more that are not all of them outputs."""
    in_use: dict[str, None] = {}
    ending: dict[int, list[str]] = {}
    for name, last in last_use.items():
        ending.setdefault(last, []).append(name)
    for index, name in enumerate(order):
        in_use[name] = None
        for ended in ending.get(index, ()):
            in_use.pop(ended, None)
        if len(in_use) <= MOST_TENSORS and any(last_use[each] < len(order) for each in in_use):
            yield Cut(index, tuple(in_use))


def _holds(states: Sequence[tuple[int, int]], index: int) -> bool:
    """Tells whether data stands beside the tensors at a place."""
    return any(first <= index < last for first, last in states)


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
