"""Reads a user's device from a JSON file.

    {"name": "my_npu", "rungs": {"int8": 1, "a16w8": 1.5, "float": 6}}

Per rung it says what a multiply-accumulate costs there, relative to the others. The rungs are ``int8``, ``a16w8``, and
``float`` or ``fp16``.
"""

import json
from collections import Counter
from pathlib import Path

import msgspec

from amct_tensorflow.devices.device_table import DEVICES, Device
from amct_tensorflow.devices.rungs import RUNGS
from amct_tensorflow.errors import ArgumentValueError


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    rungs: dict[str, float]


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Returns a JSON object; refuses one that names a key twice, of which others take the last."""
    repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if repeated:
        raise ValueError(f"it names {repeated[0]!r} more than once")
    return dict(pairs)


def read_device(text: str) -> Device:
    """Returns the device of a name, or that in a file.

    Raises:
        ArgumentValueError: there is no such device, no such file, or it holds none.
    """
    if text in DEVICES:
        return DEVICES[text]
    path = Path(text)
    if path.suffix != ".json":
        raise ArgumentValueError(f"There is no device {text!r}; use {', '.join(DEVICES)}, or a JSON file.")
    try:
        document = msgspec.convert(json.loads(path.read_bytes(), object_pairs_hook=_object), _Document)
    except OSError as error:
        raise ArgumentValueError(f"The device in {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ArgumentValueError(
            f'{path} holds no device: {str(error)[:200]}. Write {{"name": ..., "rungs": {{"int8": 1, ...}}}}.'
        ) from error
    if unknown := sorted(document.rungs.keys() - RUNGS.keys()):
        raise ArgumentValueError(f"{path} names the rung {unknown[0]!r}; those known are {', '.join(RUNGS)}.")
    rungs = tuple(RUNGS[name].at(cost) for name, cost in sorted(document.rungs.items(), key=lambda each: each[1]))
    return Device(document.name, f"the device in {path}", rungs)
