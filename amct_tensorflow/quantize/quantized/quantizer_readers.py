"""What reads a value of a quantized model, and how it quantizes it.

Whatever hands a value on in 8 bits asks here: integer kernels that yield bytes, and the int8 kernels of exports. The
value may be rounded to the grid of its readers where nothing else needs it, and not before it is clipped.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.ops import has
from amct_tensorflow.ops.clips import NO_CLIP, Clip
from amct_tensorflow.ops.effects import as_clip, keeps_order
from amct_tensorflow.ops.traits import Concatenation, Moves
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.quantize.quantized.ascend_ops import QUANT
from amct_tensorflow.quantize.quantized.quantized_layer import Quantizer, read_quantizer

# Stands for the caller among what reads a value that is an output.
CALLER = "the caller"


@dataclass(frozen=True)
class Readers:
    """What reads a value.

    Attributes:
        end: the node with the value that they read: the last of what clips it and alone reads it, else its own node.
        clip: how it is clipped up to there.
        quantizers: the quantizers among them.
        others: the op types of the others, and ``CALLER`` if the value is an output.
    """

    end: str
    clip: Clip
    quantizers: tuple[Quantizer, ...]
    others: frozenset[str]

    @property
    def grid(self) -> ActivationFactors | None:
        """Scale and offset of the quantizers; None if there is none, or they differ."""
        grids = {quantizer.grid for quantizer in self.quantizers}
        return grids.pop() if len(grids) == 1 else None


def readers_of(view: GraphView, name: str, outputs: Collection[str], *, through_moves: bool) -> Readers:
    """Returns what reads the value of a node.

    Args:
        view: the quantized model.
        name: the node.
        outputs: nodes whose own value is requested.
        through_moves: whether what only moves values counts as no reader: what reads the moved values does.
    """
    end, clip = clipped(view, name, outputs, through_moves=through_moves)
    quantizers: dict[Quantizer, None] = {}
    others: set[str] = set()
    for reader in _readers(view, end, outputs, through_moves):
        if reader is not None and reader.op == QUANT:
            quantizers[read_quantizer(reader)] = None
        else:
            others.add(CALLER if reader is None else str(reader.op))
    return Readers(end, clip, tuple(quantizers), frozenset(others))


def clipped(view: GraphView, name: str, outputs: Collection[str], *, through_moves: bool) -> tuple[str, Clip]:
    """Returns the last of what clips a value and alone reads it, perhaps in another shape, and how they clip together.

    It is the node itself if nothing clips it. The arguments are those of ``readers_of``, of any graph.
    """
    end, together = name, NO_CLIP
    value, readers = name, view.readers(name)
    while value not in outputs and len(readers) == 1:
        (reader,) = readers
        clip = as_clip(reader, view.constant)
        if clip is None and not (through_moves and keeps_order(reader)):
            break
        value, readers = str(reader.name), view.readers(reader.name)
        if clip is not None:
            end, together = value, together.then(clip[0])
    return end, together


def _readers(view: GraphView, name: str, outputs: Collection[str], through_moves: bool) -> Iterator[NodeDef | None]:
    """Yields the nodes that read a value, and None for the caller."""
    if name in outputs:
        yield None
    for reader in view.readers(name):
        if through_moves and (has(reader.op, Moves) or has(reader.op, Concatenation)):
            yield from _readers(view, reader.name, outputs, through_moves)
        else:
            yield reader
