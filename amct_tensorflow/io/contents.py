"""Reads JSON and arrays that the package wrote, and that may have been changed since.

Whatever a file holds, these functions raise nothing but ``ContentError``. So a reader catches that one, and no error in
its own code passes for a damaged file.
"""

import io
import math
import zipfile
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np

from amct_tensorflow.errors import ContentError

T = TypeVar("T")


def decode(data: bytes | msgspec.Raw, kind: type[T]) -> T:
    """Reads JSON that has to be of a type, such as a struct; keys that a struct does not name are left out.

    Raises:
        ContentError: it is no JSON, or of another type. The message says where, with ``$`` for the whole.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:  # also that it is no text, or is nested too deeply
        raise ContentError(str(error)[:200]) from error


class _Versioned(msgspec.Struct, frozen=True):
    version: Any = None


def version_of(data: bytes) -> object:
    """Returns the entry "version" of a JSON object, which decides its other entries.

    Raises:
        ContentError: it is no JSON object.
    """
    return decode(data, _Versioned).version


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
    """Returns the arrays that ``dump_arrays`` wrote; ``source`` names the file in messages.

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
