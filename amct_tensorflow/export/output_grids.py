"""Chooses the grid of 8 bits for the output of a layer, or of a sum, in a runtime whose int8 kernels yield int8.

If all readers of an output quantize it alike, it gets their factors, and nothing is lost: the simulation rounds once to
the same grid. If sums read it too, as behind a residual block, they get the same grid, unless it would clip much: one
rounding instead of two has a smaller divergence than the observed range (docs/exports.md). If other float ops read it,
there are no factors, and the range is observed. If no layer follows, the output stays in float: a range observed on a
few images would clip the scores of others.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.export.dilation import Dilation
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.ops import has
from amct_tensorflow.ops.clips import Clip
from amct_tensorflow.ops.effects import as_clip, keeps_order
from amct_tensorflow.ops.traits import PutsTogether, Sum
from amct_tensorflow.quantize.algorithms.activation_factors import (
    INT8_BITS,
    INT16_BITS,
    ActivationFactors,
    wide_range_factors,
)
from amct_tensorflow.quantize.quantized import ascend_ops
from amct_tensorflow.quantize.quantized.quantized_layer import QuantizedLayer, Quantizer, read_quantizer
from amct_tensorflow.quantize.quantized.quantizer_readers import readers_of

# The factors of layers serve sums, too, if they hold so much of the observed range; on the networks in
# benchmarks/README.md they hold 0.87 and more.
_ENOUGH = 0.75


@dataclass(frozen=True)
class Output:
    """The output of a layer, or of a sum between layers.

    Attributes:
        end: the node of the quantized model that holds it, behind the clips that alone read it.
        clip: the range of these clips.
        grid: the factors of all readers; None if they differ, or a float op reads it.
        beside_sums: the factors that every reader but sums quantizes it with, where sums read it, too; else None.
        is_final: whether no quantizer stands behind it.
        is_wide: whether a quantizer of 16 bits reads it, perhaps after other ops.
        is_in_phases: whether it counts the phases of a dilated convolution, which files do not have.
    """

    end: str
    clip: Clip
    grid: ActivationFactors | None
    beside_sums: ActivationFactors | None
    is_final: bool
    is_wide: bool = False
    is_in_phases: bool = False

    @property
    def is_in_8_bits(self) -> bool:
        """Whether a layer follows, and none that reads 16 bits of it."""
        return not self.is_final and not self.is_wide

    @property
    def is_observed(self) -> bool:
        """Whether its range must be observed, because readers differ."""
        return self.grid is None and not self.is_final


def find_outputs_of_layers(
    view: GraphView, layers: Sequence[QuantizedLayer], outputs: Collection[str], dilations: Sequence[Dilation] = ()
) -> dict[str, Output]:
    """Returns the output of each layer.

    Args:
        view: the quantized model.
        layers: its quantized layers.
        outputs: its output operators.
        dilations: its dilated convolutions.
    """
    dilated = {name for each in dilations for name in each.rates}
    together = {name for each in dilations for name in each.closings}
    found: dict[str, Output] = {}
    for layer in layers:
        name: str = layer.dequantizer
        is_in_phases = layer.name in dilated
        if is_in_phases and (closing := _closing(view, name, outputs, together)) is not None:
            name, is_in_phases = closing, False
        found[layer.name] = replace(output_of(view, name, outputs), is_in_phases=is_in_phases)
    return found


def _closing(view: GraphView, name: str, outputs: Collection[str], together: Collection[str]) -> str | None:
    """Returns the node that alone reads a value, and puts its phases together; None if there is none."""
    while name not in together:
        readers = view.readers(name)
        if len(readers) != 1 or name in outputs or not _is_passed(view, readers[0]):
            return None
        name = str(readers[0].name)
    return name


def _is_passed(view: GraphView, node: NodeDef) -> bool:
    return keeps_order(node) or has(node.op, PutsTogether) or as_clip(node, view.constant) is not None


def output_of(view: GraphView, name: str, outputs: Collection[str]) -> Output:
    """Returns the output of a node.

    Args:
        view: the quantized model.
        name: the node.
        outputs: its output operators.
    """
    readers = readers_of(view, name, outputs, through_moves=True)
    beside_sums = readers.grid if readers.others and all(has(op, Sum) for op in readers.others) else None
    behind = view.downstream([readers.end])
    return Output(
        end=readers.end,
        clip=readers.clip,
        grid=None if readers.others else readers.grid,
        beside_sums=beside_sums,
        is_final=not any(view.nodes[name].op == ascend_ops.QUANT for name in behind),
        is_wide=any(quantizer.grid.num_bits != INT8_BITS for quantizer in _next_quantizers(view, readers.end)),
    )


def _next_quantizers(view: GraphView, name: str) -> Iterator[Quantizer]:
    """Yields the quantizers that a value reaches before any other layer."""
    visited, waiting = {name}, [name]
    while waiting:
        for reader in view.readers(waiting.pop()):
            if reader.op == ascend_ops.QUANT:
                yield read_quantizer(reader)
            elif reader.name not in visited:
                visited.add(reader.name)
                waiting.append(reader.name)


def grids_of_outputs(
    found: Mapping[str, Output], observed: Mapping[str, ActivationFactors]
) -> dict[str, ActivationFactors]:
    """Returns per layer or sum the grid of its output; those whose output stays in float are left out.

    Args:
        found: what becomes of each output.
        observed: per ``end`` whose range was observed, the factors of it.
    """
    grids = {
        name: output.grid or _shared(output, observed.get(output.end))
        for name, output in found.items()
        if not output.is_wide
    }
    return {name: grid for name, grid in grids.items() if grid is not None}


def wide_grids_of_outputs(
    found: Mapping[str, Output], observed: Mapping[str, ActivationFactors]
) -> dict[str, ActivationFactors]:
    """Returns per layer the grid on which a kernel of 16 bits yields its output; those that end in float are left out.

    Readers of 8 bits get its integers rounded to their own grid, whose steps are some 256 of these.

    Args:
        found: what becomes of the output of each layer.
        observed: as for ``grids_of_outputs``.
    """
    grids = {name: output.grid or observed.get(output.end) for name, output in found.items()}
    return {
        name: grid if grid.num_bits == INT16_BITS else wide_range_factors(*grid.limits)
        for name, grid in grids.items()
        if grid is not None
    }


def _shared(output: Output, observed: ActivationFactors | None) -> ActivationFactors | None:
    if observed is None or output.beside_sums is None:
        return observed
    (lowest, highest), (first, last) = output.beside_sums.limits, observed.limits
    held = min(highest, last) - max(lowest, first)
    return output.beside_sums if held >= _ENOUGH * (last - first) else observed
