"""Checks a graph, float or quantized, by the rules that are known of ATC and of the graph engine behind it.

No session runs, and nothing is calibrated: the graph and its static shapes tell all.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.devices.ascend_rules import RULES, UNDOING, Evidence, Level, Rule
from amct_tensorflow.devices.device_table import ASCEND
from amct_tensorflow.devices.examined_graph import ExaminedGraph, examine
from amct_tensorflow.devices.quantization_rules import int8_layers
from amct_tensorflow.graph.view import Shape
from amct_tensorflow.model.layers import why_not_quantizable

_SOC = "SOC_VERSION"


@dataclass(frozen=True)
class Finding:
    """A node that breaks a rule.

    Attributes:
        rule: name of the rule.
        level: ``error``, ``warning`` or ``note``.
        node: the node; empty for the whole model.
        text: the rule, as a sentence.
        detail: what is so of this node, as a sentence.
        remedy: what to do.
        evidence: where the rule comes from, of which year that is, and how sure it is; the best first.
        share: share of the node in the multiply-accumulates of the model; None if it has none, or they are not known.
    """

    rule: str
    level: str
    node: str
    text: str
    detail: str
    remedy: str
    evidence: tuple[Evidence, ...]
    share: float | None


@dataclass(frozen=True)
class DeviceCheck:
    """What the compiler of a device is expected to make of a model.

    Attributes:
        device: name of the device.
        is_quantized: whether anything in the model is quantized.
        findings: what was found, errors first, then warnings, then notes.
        chains: how many quantized layers with weights there are.
        matched: how many of those the compiler is expected to recognize.
        int8_share: share of the multiply-accumulates that run in int8 on the device, of a float model those that could;
            None if it is not known.
        in_fp16: of a quantized model, names of the layers that run in fp16 there: those that are in float, and those
            that are quantized, but not expected to run in int8.
        command: the command that compiles the model, with the shapes of its inputs; ``SOC_VERSION`` stands for the
            chip.
        remarks: what could not be examined.
    """

    device: str
    is_quantized: bool
    findings: tuple[Finding, ...]
    chains: int
    matched: int
    int8_share: float | None
    in_fp16: tuple[str, ...]
    command: str
    remarks: tuple[str, ...] = ()

    @cached_property
    def errors(self) -> tuple[Finding, ...]:
        """The findings with which the model is not expected to compile, or to compute the same."""
        return self.of_level(Level.ERROR)

    def of_level(self, level: Level) -> tuple[Finding, ...]:
        """Returns the findings of a level."""
        return tuple(finding for finding in self.findings if finding.level == level.value)


def check_graph(
    graph_def: GraphDef,
    outputs: Sequence[str] = (),
    ranges: Mapping[str, tuple[float, float]] | None = None,
    path: str = "MODEL.pb",
) -> DeviceCheck:
    """Checks a graph, also one with faults, for an Ascend NPU.

    Args:
        graph_def: the graph.
        outputs: the nodes whose values are wanted; without any, all nodes are examined.
        ranges: per quantized layer, the least and the greatest value of its input in calibration.
        path: what the command that compiles it calls it.

    Raises:
        ModelError: a node reads one that is not there.
    """
    graph = examine(graph_def, outputs, ranges)
    hits = [(rule, hit) for level in Level for rule in RULES if rule.level is level for hit in rule.find(graph)]
    findings = tuple(_finding(graph, rule, hit.node, hit.detail) for rule, hit in hits)
    chains = [chain for chain in graph.chains if chain.has_weights or not chain.layers]
    undone = {hit.node for rule, hit in hits if rule.id in UNDOING}
    layers = {str(layer.name) for layer in int8_layers(graph)}
    return DeviceCheck(
        device=ASCEND.name,
        is_quantized=graph.is_quantized,
        findings=findings,
        chains=len(chains),
        matched=sum(chain.broken is None for chain in chains),
        int8_share=graph.share(layers - undone),
        in_fp16=tuple(_in_fp16(graph, layers - undone)) if graph.is_quantized else (),
        command=_command(graph, outputs, path),
        remarks=_remarks(graph),
    )


def _in_fp16(graph: ExaminedGraph, in_int8: Collection[str]) -> Iterator[str]:
    """Yields the layers that do not run in int8: those of chains, and nodes that could have been quantized."""
    chained = {str(layer.name) for chain in graph.chains for layer in chain.layers}
    for name, node in graph.view.nodes.items():
        is_layer = name in chained or why_not_quantizable(graph.view, node) is None
        if is_layer and name not in in_int8:
            yield name


def _finding(graph: ExaminedGraph, rule: Rule, node: str, detail: str) -> Finding:
    share = graph.share([node]) if node in graph.multiply_accumulates else None
    return Finding(rule.id, rule.level.value, node, rule.text, detail, rule.remedy, rule.evidence, share)


def _command(graph: ExaminedGraph, outputs: Sequence[str], path: str) -> str:
    """Returns the command of ATC for a model; framework 3 is TensorFlow."""
    shapes = [(str(node.name), graph.input_shape(node)) for node in graph.inputs]
    given = ";".join(f"{name}:{_lengths(shape)}" for name, shape in shapes)
    name = Path(path).stem.removesuffix("_quantized")
    parts = ["atc", "--framework=3", f"--model={path}", f'--input_shape="{given}"', f"--output={name}"]
    if outputs:
        parts.append(f'--out_nodes="{";".join(f"{output}:0" for output in outputs)}"')
    return " ".join([*parts, f"--soc_version={_SOC}"])


def _lengths(shape: Shape | None) -> str:
    return "?" if shape is None else ",".join("?" if length is None else str(length) for length in shape)


def _remarks(graph: ExaminedGraph) -> tuple[str, ...]:
    if graph.knows_shapes:
        return ()
    return ("TensorFlow cannot infer the static shapes of this graph; rules that need them were not applied.",)
