"""Reads the weights of a TensorFlow.js model: its manifest and the shards that this lists.

    weightsManifest: [{paths: [shard1of2.bin, shard2of2.bin], weights: [{name, shape, dtype, quantization}]}]

The weights of a group stand one behind the other in its shards, little endian, which are to be read as one file. The
format is described in the documentation of tfjs-core (``WeightsManifestConfig``) and of its converter.
"""

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec
import numpy as np

from amct_tensorflow.errors import ContentError, ModelError

_TYPES = {
    "float32": "<f4",
    "float16": "<f2",
    "int32": "<i4",
    "int16": "<i2",
    "int8": "i1",
    "uint16": "<u2",
    "uint8": "u1",
    "bool": "?",
    "complex64": "<c8",
}

# NumPy had no arrays of more before its second version.
_MOST_DIMENSIONS = 32
# A shape without elements has other lengths, which no byte tells to be too long.
_LONGEST_EMPTY = 2**31


class Quantization(msgspec.Struct, frozen=True):
    """How a weight is stored: ``scale * stored + min``; in float16 as it is, without these two."""

    dtype: Literal["uint8", "uint16", "float16"]
    scale: float = math.nan
    min: float = math.nan
    original_dtype: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether it tells what stored numbers stand for."""
        return self.dtype == "float16" or math.isfinite(self.scale + self.min)

    def restores(self, dtype: str) -> bool:
        """Tells whether it stands for weights of a type, as TensorFlow.js restores them."""
        known = ("float32",) if self.dtype == "float16" else ("float32", "int32")
        return dtype in known and self.original_dtype in (None, dtype)


class Weight(msgspec.Struct, frozen=True):
    """A weight in a manifest."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None = None


class Group(msgspec.Struct, frozen=True):
    """Weights that stand in the same shards."""

    paths: tuple[str, ...]
    weights: tuple[Weight, ...]


def read_weights(source: Path, manifest: Sequence[Group]) -> dict[str, np.ndarray]:
    """Reads all weights of a model.

    Args:
        source: its JSON file, beside which the shards are.
        manifest: its groups.

    Returns:
        Per name the weight; strings are arrays of bytes objects.

    Raises:
        ModelError: a shard is missing, or the shards do not hold what the manifest says.
    """
    weights: dict[str, np.ndarray] = {}
    for group in manifest:
        data = b"".join(_read_shard(source, path) for path in group.paths)
        try:
            _decode_group(group, data, weights)
        except ContentError as error:
            listed = ", ".join(group.paths[:3]) + (" ..." if len(group.paths) > 3 else "")
            raise ModelError(
                f"Model {source} and its weights in {listed} do not belong together: {error}. Copy both again from "
                "where they were converted."
            ) from error
    return weights


def _read_shard(source: Path, path: str) -> bytes:
    parts = PurePosixPath(path).parts
    if "://" in path or ".." in parts or PurePosixPath(path).is_absolute():
        raise ModelError(
            f"Model {source} has weights at {path!r}, outside of its folder. Put them into the folder, and their "
            "names into weightsManifest."
        )
    try:
        return source.parent.joinpath(*parts).read_bytes()
    except (OSError, ValueError) as error:  # the latter of a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(
            f"Model {source} cannot be read: its weights {path!r} are missing ({reason}). Put all files that "
            "the converter wrote into one folder."
        ) from error


def _decode_group(group: Group, data: bytes, weights: dict[str, np.ndarray]) -> None:
    """Adds the weights in the shards of a group to others.

    Raises:
        ContentError: the shards do not hold them, or something else as well.
    """
    at = 0
    for weight in group.weights:
        if weight.name in weights:
            raise ContentError(f"the manifest has two weights named {weight.name!r}")
        value, at = _decode(weight, data, at)
        weights[weight.name] = value
    if at != len(data):
        raise ContentError(f"the shards have {len(data)} bytes, and the weights of the manifest {at}")


def _decode(weight: Weight, data: bytes, at: int) -> tuple[np.ndarray, int]:
    """Returns a weight, and where the next one begins."""
    count = math.prod(weight.shape)
    longest = len(data) if count else _LONGEST_EMPTY  # none is longer than its bytes
    extent = max(weight.shape, default=0) if count else math.prod(length or 1 for length in weight.shape)
    if min(weight.shape, default=0) < 0 or extent > longest or len(weight.shape) > _MOST_DIMENSIONS:
        raise ContentError(f"weight {weight.name!r} has the shape {list(weight.shape)}")
    if weight.dtype == "string":
        return _decode_strings(weight, count, data, at)
    stored = weight.quantization.dtype if weight.quantization else weight.dtype
    if stored not in _TYPES or weight.dtype not in _TYPES:
        raise ContentError(f"weight {weight.name!r} has the unknown type {weight.dtype!r}")
    if weight.quantization and not weight.quantization.is_complete:
        raise ContentError(f"weight {weight.name!r} is quantized without numbers for scale and min")
    if weight.quantization and not weight.quantization.restores(weight.dtype):
        before = weight.quantization.original_dtype
        was = f", said to have been {before}" if before else ""
        raise ContentError(f"weight {weight.name!r} is {weight.dtype}, which {stored} does not stand for{was}")
    dtype = np.dtype(_TYPES[stored])
    end = at + count * dtype.itemsize
    if end > len(data):
        raise ContentError(f"weight {weight.name!r} ends at byte {end}, and the shards have {len(data)}")
    raw = np.frombuffer(data, dtype, count, at).reshape(weight.shape)
    return (_restored(weight, raw) if weight.quantization else raw.astype(dtype.newbyteorder("="))), end


def _restored(weight: Weight, stored: np.ndarray) -> np.ndarray:
    """Returns the values that a quantized weight stands for, as TensorFlow.js computes them: in double precision."""
    assert weight.quantization is not None
    dtype = np.dtype(_TYPES[weight.dtype]).newbyteorder("=")
    if weight.quantization.dtype == "float16":
        return stored.astype(dtype)
    values = stored * np.float64(weight.quantization.scale) + weight.quantization.min
    # Math.round of JavaScript takes halves up.
    return (np.floor(values + 0.5) if dtype.kind in "iu" else values).astype(dtype)


def _decode_strings(weight: Weight, count: int, data: bytes, at: int) -> tuple[np.ndarray, int]:
    """Each string stands behind its length in bytes, a uint32."""
    if weight.quantization:
        raise ContentError(f"weight {weight.name!r} is text that is said to be quantized")
    if at + 4 * count > len(data):
        raise ContentError(f"weight {weight.name!r} has {count} texts, and the shards have {len(data)} bytes")
    strings = np.empty(count, object)
    for index in range(count):
        length = int.from_bytes(_bytes(weight, data, at, 4), "little")
        strings[index] = _bytes(weight, data, at + 4, length)
        at += 4 + length
    return strings.reshape(weight.shape), at


def _bytes(weight: Weight, data: bytes, at: int, count: int) -> bytes:
    if at + count > len(data):
        raise ContentError(f"weight {weight.name!r} ends at byte {at + count}, and the shards have {len(data)}")
    return data[at : at + count]
