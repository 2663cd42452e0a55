"""Builds one graph that runs the model with any set of layers quantized, which feeds select.

    x -> Switch(gate) -> float layer     -> Merge -> the layer's readers
                      -> quantized layer ->

Only the selected side of each layer is computed. A layer may have a second quantized side, in 16 bits, behind a Switch
of its own in front of the float layer. In the same way the graph can be entered at cuts: no node before a cut is
computed if its tensors are fed. So no candidate of a search needs a graph of its own, and layers late
in the model are tried without running it from its beginning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.graph.names import FusedName, LayerName
from amct_tensorflow.graph.nodes import Attr, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import parse_tensor_name
from amct_tensorflow.quantize.quantized.ascend_ops import function_library
from amct_tensorflow.quantize.quantized.builder import FLOAT_SCOPE, local_quantized_graph
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.search.configuration import in_16_bits
from amct_tensorflow.search.sensitivity.cuts import Cut


@dataclass(frozen=True, eq=False)
class SwitchableGraph:
    """A graph with gates and entries.

    Attributes:
        graph_def: the graph. It lacks the tensors that ``entries`` names: they are to be mapped when it is imported.
        gates: per layer, the boolean placeholder that quantizes it; and per ``in_16_bits`` of a layer, that which lets
            it read 16 bits.
        entries: per cut, the tensors that stand for its values if they are fed, and must be dead otherwise.
        values: per cut, the nodes that hold its values, fed or computed.
        outputs: per requested operator, the node that holds its value.
    """

    graph_def: GraphDef
    gates: dict[str, str]
    entries: list[list[str]]
    values: list[list[str]]
    outputs: dict[str, str]


def switchable_graph(
    plan: QuantizationPlan,
    order: Sequence[str],
    cuts: Sequence[Cut],
    wide: QuantizationPlan | None = None,
) -> SwitchableGraph:
    """Builds the switchable form of a model.

    Args:
        plan: its factors are those of the layers to be given a gate.
        order: the nodes that depend on the data, in topological order.
        cuts: where the graph can be entered, in the same order.
        wide: the plan of the same layers in 16 bits; None if no layer is to be given a gate for these.
    """
    editor = GraphEditor(plan.fused.view)
    entries, values = _enter(editor, order, cuts)
    gates: dict[str, str] = {}
    sides: dict[LayerName, list[str]] = {}
    added: list[tuple[GraphDef, str, dict[str, str]]] = []
    for rung, called in ((plan, LayerName), *([] if wide is None else [(wide, in_16_bits)])):
        quantized, results = local_quantized_graph(rung, share_quantizers=False)
        nodes = {node.name: node for node in quantized.node}
        scope = editor.unique_scope("quantized", list(nodes))
        switches: dict[str, str] = {}
        for name in rung.factors:
            gate = gates[called(name)] = _gate(editor, name)
            for index in plan.fused.layers[name].op.operands:
                quantizer = parse_tensor_name(nodes[name].input[index]).node
                switches[quantizer] = _switch(editor, name, index, gate)
            sides.setdefault(name, []).append(f"{scope}/{results[name]}")
        added.append((quantized, scope, switches))
    merges: dict[FusedName, str] = {}
    for name, quantized_sides in sides.items():
        tail = plan.fused.tail_of(name)
        merges[tail] = _merge(editor, f"{name}/either", [tail, *quantized_sides], like=name)
    editor.redirect(merges, exempt=merges.values(), control=True)
    graph_def = editor.graph_def()
    bits = {factors.num_bits for rung in (plan, wide) if rung is not None for factors in rung.factors.values()}
    graph_def.library.MergeFrom(function_library(bits))
    for quantized, scope, switches in added:
        _add_quantized(graph_def, quantized, scope, switches)
    last: dict[str, str] = {}
    for cut, merged in zip(cuts, values, strict=True):
        last.update(zip(cut.tensors, merged, strict=True))
    outputs = {name: last.get(name) or merges.get(FusedName(name), name) for name in plan.outputs}
    return SwitchableGraph(graph_def, gates, entries, values, outputs)


def _enter(editor: GraphEditor, order: Sequence[str], cuts: Sequence[Cut]) -> tuple[list[list[str]], list[list[str]]]:
    """Lets the graph be entered at cuts: what lies behind one reads its tensors, or what is fed for them.

    A tensor may pass through several cuts, each of which may be fed.

    Returns:
        Per cut the tensors to be fed, and the nodes that hold its values.
    """
    entries: list[list[str]] = []
    values: list[list[str]] = []
    last: dict[str, str] = {}
    ends = [*(cut.position + 1 for cut in cuts[1:]), len(order)]
    for cut, end in zip(cuts, ends, strict=True):
        entries.append([f"{editor.unique_name(f'{name}/entry')}:0" for name in cut.tensors])
        pairs = zip(cut.tensors, entries[-1], strict=True)
        values.append([_merge(editor, f"{name}/value", [last.get(name, name), fed], like=name) for name, fed in pairs])
        last.update(zip(cut.tensors, values[-1], strict=True))
        editor.redirect(last, among=order[cut.position + 1 : end], control=True)
    return entries, values


def _gate(editor: GraphEditor, layer: str) -> str:
    shape = Attr(shape={})
    name = editor.unique_name(f"{layer}/gate")
    return editor.add(make_node(name, "Placeholder", (), dtype=tf.bool, shape=shape), like=layer)


def _switch(editor: GraphEditor, layer: str, index: int, gate: str) -> str:
    """Feeds the float layer only while its gate is closed; returns the Switch."""
    name = editor.unique_name(f"{layer}/switch")
    editor.add(make_node(name, "Switch", [editor.node(layer).input[index], gate], T=tf.float32), like=layer)
    editor.replace_input(layer, index, name)
    return name


def _merge(editor: GraphEditor, name: str, values: Sequence[str], like: str) -> str:
    """Adds a Merge, which yields the one of several values that is alive."""
    node = make_node(editor.unique_name(name), "Merge", values, T=tf.float32, N=len(values))
    return editor.add(node, like=like)


def _add_quantized(graph_def: GraphDef, quantized: GraphDef, scope: str, switches: Mapping[str, str]) -> None:
    """Adds the quantized layers under a scope, each quantizer reading the other side of its switch."""
    nodes = {node.name: node for node in quantized.node}
    for node in quantized.node:
        added = graph_def.node.add()
        added.CopyFrom(node)
        added.name = f"{scope}/{node.name}"
        for index, text in enumerate(node.input):
            outside = text.startswith(f"{FLOAT_SCOPE}/") and parse_tensor_name(text).node not in nodes
            added.input[index] = text.removeprefix(f"{FLOAT_SCOPE}/") if outside else f"{scope}/{text}"
        if node.name in switches:
            added.input[0] = f"{switches[node.name]}:1"
