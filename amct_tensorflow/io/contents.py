"""Reads JSON and arrays that the package wrote, and that may have been changed since.

Whatever a file holds, these functions raise nothing but ``ContentError``. So a reader catches that one, and no error in
its own code passes for a damaged file.
"""

import io
import json
import math
import zipfile
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from amct_tensorflow.errors import ContentError

T = TypeVar("T")


def parse_json(data: bytes) -> Any:
    """Parses JSON text.

    Raises:
        ContentError: it is no JSON, is nested too deeply, or holds a number with too many digits.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:  # also that it is no text (UnicodeDecodeError)
        raise ContentError(f"{type(error).__name__}: {str(error)[:200]}") from error


def expect(kind: type[T], value: object, name: str) -> T:
    """Returns ``value`` if it has a type; true and false are no integers.

    Raises:
        ContentError: it has another type, or is missing; the message calls it ``name``.
    """
    if type(value) is not kind:
        raise ContentError(f"{name} is missing" if value is None else f"{name} is no {kind.__name__}")
    return value


def finite_or_none(value: float) -> float | None:
    """Returns a number for JSON, which has no infinity and no NaN: they become null."""
    return value if math.isfinite(value) else None


def dump_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns arrays, of any type but objects, as bytes."""
    # Names of tensors hold slashes, which cannot stand in names of files: the arrays are numbered.
    members: dict[str, Any] = {str(index): values for index, values in enumerate(arrays.values())}
    stream = io.BytesIO()
    np.savez(stream, names=np.array(list(arrays), np.str_), **members)
    return stream.getvalue()


def parse_arrays(data: bytes, source: str) -> dict[str, np.ndarray]:
    """Returns the arrays that ``dump_arrays`` was given; ``source`` names the file in messages.

    Raises:
        ContentError: they are not there.
    """
    members = _unpack(data, source)
    names = members.pop("names", np.array(0))
    if names.ndim != 1 or set(members) != set(map(str, range(names.size))):
        raise ContentError(f"{source} does not hold the arrays that it names")
    return {str(name): members[str(index)] for index, name in enumerate(names)}


def _unpack(data: bytes, source: str) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            is_compressed = any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
        if not is_compressed:  # compressed ones would not be ours, and could be made to fill the memory
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return {name: np.asarray(values) for name, values in arrays.items()}
    # Everything above is zipfile's and NumPy's, and damaged bytes lead them to errors of many kinds.
    except Exception as error:
        raise ContentError(f"{source}: {type(error).__name__}: {error}") from error
    raise ContentError(f"{source} is compressed")
