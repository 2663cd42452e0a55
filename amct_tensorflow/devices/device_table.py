"""The devices that a model can be made for, one row each.

Nothing here needs TensorFlow: the command line shows the names.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from amct_tensorflow.errors import ArgumentValueError


@dataclass(frozen=True)
class Device:
    """A device that a model is made for.

    Attributes:
        name: what callers name it.
        summary: what it is, as a part of a sentence.
        has_rules: whether it is known what its compiler makes of a model, so that models are checked for it.
    """

    name: str
    summary: str
    has_rules: bool = False


GENERIC = Device("generic", "any device with int8 kernels")
ASCEND = Device("ascend", "an Ascend NPU, by ATC and its graph engine GE", has_rules=True)

DEVICES: Mapping[str, Device] = {device.name: device for device in (GENERIC, ASCEND)}


def choose_device(function: str, name: str) -> Device:
    """Returns the device of a name; ``function`` is named in messages.

    Raises:
        ArgumentValueError: there is no such device.
    """
    if not isinstance(name, str) or name not in DEVICES:
        raise ArgumentValueError(f"{function}: device is {name!r}; use {' or '.join(map(repr, DEVICES))}.")
    return DEVICES[name]
