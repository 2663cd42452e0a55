"""Keeps only the branch that a constant, or the default of a flag, chooses.

x ----> Switch --true--> training branch  --> Merge --> y
flag ----^    --false--> inference branch ----^             becomes      x --> inference branch --> y
"""

from collections.abc import Mapping

import numpy as np

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.names import PreparedName
from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import CONTROL, GraphView, attribute, data_inputs, parse_tensor_name
from amct_tensorflow.log import log_for
from amct_tensorflow.model.preparation.prepared import Origins, PreparedGraph


def decide_flags(graph: PreparedGraph) -> PreparedGraph:
    """Replaces flags, which are boolean scalars with a default, by their default."""
    view = graph.view
    flags = {
        f"{node.name}:0": str(node.input[0])
        for node in view.nodes.values()
        if node.op == "PlaceholderWithDefault" and _is_read(view, node.name) and _is_flag(view, node.input[0])
    }
    if not flags:
        return graph
    for tensor, default in flags.items():
        value = bool(np.asarray(view.constant(default)))
        log_for("preparation").info(
            "Flag %r is taken to be %s, as it is by default.", parse_tensor_name(tensor).node, value
        )
    editor = graph.editor()
    editor.replace_tensors(flags)
    return graph.edited(editor)


def _is_read(view: GraphView, name: str) -> bool:
    return any(not view.is_control(edge) for edge in view.consumers(name))


def _is_flag(view: GraphView, text: str) -> bool:
    default = view.constant(text)
    return default is not None and default.dtype == np.bool_ and default.ndim == 0


def decide_branches(graph: PreparedGraph) -> PreparedGraph:
    """Removes the branches that a constant predicate never takes, and the Switch and Merge nodes around the rest.

    Raises:
        ModelError: which of several branches ran is asked for, and not decided.
    """
    view = graph.view
    chosen = _chosen_ports(view)
    if not chosen:
        return graph
    dead = _dead_nodes(view, chosen)
    editor = graph.editor()
    origins: Origins = {}
    for name, node in view.nodes.items():
        if name in dead:
            editor.remove(name)
        elif node.op == "Merge":
            new = _decide_merge(editor, view, name, dead, chosen)
            origins.update(dict.fromkeys(new, graph.original_names(PreparedName(name))))
    for switch, port in chosen.items():
        if switch not in dead:
            data = str(editor.node(switch).input[0])
            editor.replace_tensors({f"{switch}:{port}": data})
            editor.replace_waits(switch, [parse_tensor_name(data).node])
            if switch in graph.kept and port == 0:
                editor.replace_node(make_node(switch, "Identity", [data], T=attribute(view.nodes[switch], "T")))
            else:
                editor.remove(switch)
    return graph.edited(editor, origins)


def _chosen_ports(view: GraphView) -> dict[str, int]:
    """Returns per Switch whose predicate is a constant, which of its outputs is alive."""
    chosen = {}
    for node in view.nodes.values():
        if node.op == "Switch" and node.name not in view.loop_nodes:
            predicate = view.constant(node.input[1])
            if predicate is not None and predicate.size == 1:
                chosen[node.name] = int(predicate.reshape(())[()])
    return chosen


def _dead_nodes(view: GraphView, chosen: Mapping[str, int]) -> set[str]:
    """Returns the nodes that never run."""
    dead: set[str] = set()
    for node in view.topological():
        if node.op == "Merge":  # a loop that is never entered does not go round either
            data = [text for text in data_inputs(node.input) if view.producer(text).op != "NextIteration"]
            is_dead = bool(data) and all(_is_dead(text, chosen, dead) for text in data)
        else:
            is_dead = any(_is_dead(text, chosen, dead) for text in node.input)
        if is_dead:
            dead.add(node.name)
    return dead


def _is_dead(text: str, chosen: Mapping[str, int], dead: set[str]) -> bool:
    name = parse_tensor_name(text)
    if name.node in dead:
        return True
    return name.port != CONTROL and name.node in chosen and name.port != chosen[name.node]


def _decide_merge(
    editor: GraphEditor, view: GraphView, name: str, dead: set[str], chosen: Mapping[str, int]
) -> list[str]:
    """Takes the inputs that are dead from a Merge; if one alone is left, that takes the Merge's place.

    Returns:
        The nodes that it added.

    Raises:
        ModelError: several are left, and the Merge is asked which of them it took.
    """
    node = view.nodes[name]
    texts = data_inputs(node.input)
    alive = [text for text in texts if not _is_dead(text, chosen, dead)]
    if len(alive) == len(texts):
        return []
    waits = [text for text in node.input if text.startswith("^") and not _is_dead(text, chosen, dead)]
    index_is_read = any(f"{name}:1" in edge.node.input for edge in view.consumers(name))
    if len(alive) > 1:
        if index_is_read:
            raise ModelError(f"Node {name!r} is asked which of {len(alive)} branches ran. Export the model without it.")
        editor.replace_node(make_node(name, "Merge", [*alive, *waits], T=attribute(node, "T"), N=len(alive)))
        return []
    new = []
    if index_is_read:
        index = make_const(editor.unique_name(f"{name}/index"), np.array(texts.index(alive[0]), np.int32))
        index.input.append(f"^{name}")
        new.append(editor.add(index, like=name))
        editor.replace_tensors({f"{name}:1": new[0]})
    editor.replace_node(make_node(name, "Identity", [*alive, *waits], T=attribute(node, "T")))
    return new
