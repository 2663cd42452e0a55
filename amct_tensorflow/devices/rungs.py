"""The rungs of a ladder: the precisions in which a device computes layers, and what they cost there.

Nothing here needs TensorFlow: the command line shows the devices.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Rung:
    """A precision in which a device computes layers.

    Attributes:
        name: what callers and results name it.
        num_bits: bits of the activations that a layer reads, its weights having 8; None in float.
        cost: what a multiply-accumulate costs, relative to one on the other rungs of the device.
    """

    name: str
    num_bits: int | None
    cost: float

    @property
    def is_float(self) -> bool:
        """Whether layers on it are not quantized."""
        return self.num_bits is None

    @property
    def is_wide(self) -> bool:
        """Whether layers on it read 16 bits."""
        return self.num_bits == WIDE_BITS

    def at(self, cost: float) -> "Rung":
        """Returns the rung at another cost."""
        return replace(self, cost=cost)


# The rungs on which a layer may stand, the lowest first. A layer in float has only that one.
Ladder = tuple[Rung, ...]

WIDE_BITS = 16
INT8 = Rung("int8", 8, 1.0)
A16W8 = Rung("a16w8", WIDE_BITS, 2.0)
FP16 = Rung("fp16", None, 2.0)
FLOAT = Rung("float", None, 4.0)

RUNGS = {rung.name: rung for rung in (INT8, A16W8, FP16, FLOAT)}
