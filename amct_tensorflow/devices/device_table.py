"""The devices that a model can be made for, one row each.

A user's own device is a ``Device``, or a JSON file; see ``device_file``. Nothing here needs TensorFlow: the command
line shows the names.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from amct_tensorflow.devices.rungs import A16W8, FLOAT, FP16, INT8, Ladder
from amct_tensorflow.errors import ArgumentValueError

# Numbers below have fewer digits, and some threads take them for 0.
_LEAST_COST = sys.float_info.min


@dataclass(frozen=True)
class Device:
    """A device that a model is made for.

    Attributes:
        name: what callers name it.
        summary: what it is, as a part of a sentence.
        rungs: in which precisions it computes layers, int8 first, then the others by what they cost; float is the last.
        has_rules: whether it is known what its compiler makes of a model, so that models are checked for it.

    Raises:
        ArgumentValueError: its rungs are no such ladder.
    """

    name: str
    summary: str = "a device of the user's"
    rungs: Ladder = (INT8, FLOAT)
    has_rules: bool = False

    @property
    def described(self) -> str:
        """Its name, and its rungs with what they cost."""
        return f"{self.name} ({', '.join(f'{rung.name} {rung.cost:g}' for rung in self.rungs)})"

    def __post_init__(self) -> None:
        names, costs = [rung.name for rung in self.rungs], [rung.cost for rung in self.rungs]
        if names[:1] != [INT8.name] or [rung.is_float for rung in self.rungs] != [*([False] * (len(names) - 1)), True]:
            raise ArgumentValueError(
                f"The rungs of device {self.name!r} are {', '.join(names) or 'none'}, by what they cost; "
                f"{INT8.name} has to be first, and {FLOAT.name} or {FP16.name} last, of which there is one."
            )
        if not all(_LEAST_COST <= low < high < math.inf for low, high in pairwise(costs)):
            raise ArgumentValueError(
                f"The costs of the rungs of device {self.name!r} are {costs}; each must be above the one before, and "
                f"none below {_LEAST_COST:.3g}."
            )


# What the original toolkit makes models for.
UNNAMED = Device("unnamed", "any device with int8 kernels, beside which layers run in float")
GENERIC = Device("generic", "any device with int8 kernels and such for activations in 16 bits", (INT8, A16W8, FLOAT))
ASCEND = Device("ascend", "an Ascend NPU, by ATC and its graph engine GE", (INT8, FP16), has_rules=True)

DEVICES: Mapping[str, Device] = {device.name: device for device in (GENERIC, ASCEND)}


def choose_device(function: str, device: str | Device | None) -> Device:
    """Returns the device that a name stands for, or the one given; ``function`` is named in messages.

    Args:
        function: the public function.
        device: a device, its name, or None for one that has int8 and float.

    Raises:
        ArgumentValueError: there is no such device.
    """
    if device is None:
        return UNNAMED
    if isinstance(device, Device):
        return device
    if not isinstance(device, str) or device not in DEVICES:
        raise ArgumentValueError(
            f"{function}: device is {device!r}; use {' or '.join(map(repr, DEVICES))}, or a Device."
        )
    return DEVICES[device]
