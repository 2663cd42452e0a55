"""Takes the branch that a constant, or a flag by its default, chooses.

x ----> Switch --true--> training branch  --> Merge --> y
flag ----^    --false--> inference branch ----^             becomes      x --> inference branch --> y
"""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import CONTROL, GraphView, attribute, parse_tensor_name
from amct_tensorflow.log import log_for
from amct_tensorflow.preparation.prepared import PreparedGraph


def decide_flags(graph: PreparedGraph) -> PreparedGraph:
    """Takes flags, boolean scalars that need not be fed, to be what they are by default."""
    view = graph.view
    flags = {
        f"{node.name}:0": str(node.input[0])
        for node in view.nodes.values()
        if node.op == "PlaceholderWithDefault" and view.consumers(node.name) and _is_flag(view, node.input[0])
    }
    if not flags:
        return graph
    for tensor, default in flags.items():
        value = bool(np.asarray(view.constant(default)))
        log_for("preparation").info(
            "Flag %r is taken to be %s, as it is by default.", parse_tensor_name(tensor).node, value
        )
    editor = GraphEditor(view)
    editor.replace_tensors(flags)
    return graph.edited(editor)


def _is_flag(view: GraphView, text: str) -> bool:
    default = view.constant(text)
    return default is not None and default.dtype == np.bool_ and default.ndim == 0


def decide_branches(graph: PreparedGraph) -> PreparedGraph:
    """Takes away what a constant predicate never lets run, and the Switch and Merge nodes around the rest."""
    view = graph.view
    chosen = _chosen_ports(view)
    if not chosen:
        return graph
    dead = _dead_nodes(view, chosen)
    editor = GraphEditor(view)
    for name, node in view.nodes.items():
        if name in dead:
            editor.remove(name)
        elif node.op == "Merge":
            _decide_merge(editor, view, name, dead, chosen)
    for switch, port in chosen.items():
        if switch not in dead:
            data = str(editor.node(switch).input[0])
            editor.replace_tensors({f"{switch}:{port}": data})
            editor.replace_waits(switch, [parse_tensor_name(data).node])
            editor.remove(switch)
    return graph.edited(editor)


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
        states = [_is_dead(text, chosen, dead) for text in node.input]
        data = [state for text, state in zip(node.input, states, strict=True) if not text.startswith("^")]
        if (all(data) if node.op == "Merge" else any(states)) and states:
            dead.add(node.name)
    return dead


def _is_dead(text: str, chosen: Mapping[str, int], dead: set[str]) -> bool:
    name = parse_tensor_name(text)
    if name.node in dead:
        return True
    return name.port != CONTROL and name.node in chosen and name.port != chosen[name.node]


def _decide_merge(editor: GraphEditor, view: GraphView, name: str, dead: set[str], chosen: Mapping[str, int]) -> None:
    """Replaces a Merge of which one input is alive by that input."""
    node = view.nodes[name]
    states = {text: _is_dead(text, chosen, dead) for text in node.input if not text.startswith("^")}
    alive = [text for text, is_dead in states.items() if not is_dead]
    if len(alive) != 1 or len(states) == 1:
        return
    if any(f"{name}:1" in edge.node.input for edge in view.consumers(name)):
        index = np.array(list(states).index(alive[0]), np.int32)
        editor.replace_tensors({f"{name}:1": editor.add(make_const(editor.unique_name(f"{name}/index"), index), name)})
    dtype = tf.dtypes.as_dtype(attribute(node, "T").type)
    editor.replace_node(make_node(name, "Identity", [alive[0]], T=dtype))
