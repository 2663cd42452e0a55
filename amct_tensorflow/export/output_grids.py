"""On which grid of 8 bits a layer hands on its output, where the runtime has it in 8 bits.

An int8 kernel of most runtimes yields int8. Where every reader of an output quantizes it in the same way, their factors
are taken, and nothing is lost: rounding once to the reader's grid is what the simulation does. Where a float op reads
it too, as the Add behind a block does, there are no such factors, and the range is observed. Where no layer follows,
the output stays in float: a range that was seen on a few images would cut the scores of others.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.export.integer_layer import IntegerLayer, grid_of
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.quantized import ascend_ops

# What runtimes fuse with the layer before, so that only its result need be a value.
_ACTIVATIONS = frozenset({"Relu", "Relu6"})
# Their outputs hold nothing but values of their inputs, and zeros.
_MOVING = frozenset(
    {"Identity", "Snapshot", "Reshape", "Squeeze", "ExpandDims", "Transpose", "ConcatV2", "MaxPool", "Pad"}
)


@dataclass(frozen=True)
class LayerOutput:
    """What becomes of the output of a layer.

    Attributes:
        end: the node of the quantized model that holds it, behind an activation that alone reads it.
        grid: the factors that every reader quantizes it with; None if there are several, or a float op.
        is_final: whether no quantizer stands behind it.
    """

    end: str
    grid: ActivationFactors | None
    is_final: bool

    @property
    def is_observed(self) -> bool:
        """Whether its range must be observed, because no reader says it."""
        return self.grid is None and not self.is_final


def find_outputs_of_layers(
    view: GraphView, layers: Sequence[IntegerLayer], outputs: Collection[str]
) -> dict[str, LayerOutput]:
    """Returns per layer what becomes of its output.

    Args:
        view: the quantized model.
        layers: its quantized layers.
        outputs: its output operators.
    """
    return {layer.name: _output(view, layer, outputs) for layer in layers}


def _output(view: GraphView, layer: IntegerLayer, outputs: Collection[str]) -> LayerOutput:
    end = _end(view, layer.dequantizer, outputs)
    readings = set(_readings(view, end, outputs))
    grid = next(iter(readings)) if len(readings) == 1 else None
    behind = view.downstream([end])
    is_final = not any(view.nodes[name].op == ascend_ops.QUANT for name in behind)
    return LayerOutput(end, grid, is_final)


def _end(view: GraphView, name: str, outputs: Collection[str]) -> str:
    readers = _readers(view, name)
    if name not in outputs and len(readers) == 1 and readers[0].op in _ACTIVATIONS:
        return str(readers[0].name)
    return name


def _readings(view: GraphView, name: str, outputs: Collection[str]) -> Iterator[ActivationFactors | None]:
    """Yields the factors of each quantizer that reads a value, seen through what only moves it; None for others."""
    if name in outputs:
        yield None
    for reader in _readers(view, name):
        if reader.op == ascend_ops.QUANT:
            yield grid_of(reader)
        elif reader.op in _MOVING:
            yield from _readings(view, reader.name, outputs)
        else:
            yield None


def _readers(view: GraphView, name: str) -> list[NodeDef]:
    return [edge.node for edge in view.consumers(name) if not view.is_control(edge)]


def grids_of_outputs(
    found: Mapping[str, LayerOutput], observed: Mapping[str, ActivationFactors]
) -> dict[str, ActivationFactors]:
    """Returns per layer the grid of its output; layers whose output stays in float are left out.

    Args:
        found: what becomes of each output.
        observed: per ``end`` whose range was observed, the factors of it.
    """
    grids = {name: output.grid or observed.get(output.end) for name, output in found.items()}
    return {name: grid for name, grid in grids.items() if grid is not None}
