"""Reads batches from raw files: one folder per input, one file per batch, no header (spec section 1.4).

images/batch_0.bin  lengths/batch_0.bin   -> {"images:0": [32, 224, 224, 3], "lengths:0": [32]}
images/batch_1.bin  lengths/batch_1.bin   -> the next
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amct_tensorflow.data.record_files import find_files
from amct_tensorflow.errors import ArgumentTypeError, ArgumentValueError, DatasetError, TooFewFilesError, first_line

RAW_TYPES = (
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
)  # fmt: skip


@dataclass(frozen=True)
class _RawInput:
    """The files of one input.

    Attributes:
        name: the input.
        shape: shape of a batch; -1 for at most one length, which each file tells.
        dtype: type of the values, in the byte order of the machine.
        folder: where the files are.
        files: their paths, sorted by name; one per batch.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    folder: str
    files: tuple[str, ...]

    def read(self, index: int) -> np.ndarray:
        """Reads the values of a batch."""
        path = self.files[index]
        try:
            values = np.fromfile(path, self.dtype)
            size = Path(path).stat().st_size
        except OSError as error:
            raise DatasetError(f"File {path} cannot be read: {first_line(error)}.") from error
        known = math.prod(length for length in self.shape if length >= 0)
        fits = values.size % known == 0 if -1 in self.shape else values.size == known
        if not fits or size != values.nbytes:
            expected = f"{'a multiple of ' * (-1 in self.shape)}{known * self.dtype.itemsize}"
            raise DatasetError(
                f"File {path} has {size} bytes; a batch of input {self.name!r}, {self.dtype.name} "
                f"{list(self.shape)}, takes {expected}. Correct the shape or the type, or write the file again."
            )
        return values.reshape(self.shape)


class RawBatches:
    """The batches of a model whose inputs lie in raw files.

    Attributes:
        num_batches: how many there are.
    """

    def __init__(
        self,
        inputs: Mapping[str, Sequence[int | None]],
        data_paths: Sequence[str],
        data_types: Sequence[str],
        num: int | None = None,
    ) -> None:
        """Finds the files of every input.

        Args:
            inputs: per input the shape of a batch; None or -1 for at most one length, which each file tells.
            data_paths: a folder per input, in their order; its files, sorted by name, are the batches.
            data_types: the type of the values per input, one of ``RAW_TYPES``.
            num: how many batches are wanted; None for all.

        Raises:
            ArgumentTypeError: a type is none of these, or an argument has the wrong type.
            ArgumentValueError: the arguments do not belong together, or hold a wrong value.
            DatasetError: a folder does not exist or holds no file, or folders hold different numbers of files.
            TooFewFilesError: a folder holds fewer files than batches are wanted.
        """
        if not inputs or not len(inputs) == len(data_paths) == len(data_types):
            raise ArgumentValueError(
                f"{len(inputs)} inputs, {len(data_paths)} data_paths and {len(data_types)} data_types are given; "
                "give one folder and one type for each input, and at least one input."
            )
        parts = zip(inputs.items(), data_paths, data_types, strict=True)
        self._inputs = [
            _RawInput(name, _shape(name, shape), _dtype(name, dtype), folder, tuple(find_files(folder)))
            for (name, shape), folder, dtype in parts
        ]
        self.num_batches = _count(self._inputs, num)

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields the values of every input, batch by batch.

        Raises:
            DatasetError: a file cannot be read, or does not hold a batch of the shape.
        """
        return map(self.read, range(self.num_batches))

    def read(self, index: int) -> dict[str, np.ndarray]:
        """Returns one batch: the values of every input. Errors are those of iterating."""
        return {each.name: each.read(index) for each in self._inputs}

    def files(self) -> dict[str, tuple[str, ...]]:
        """Returns per input the files of its batches."""
        return {each.name: each.files[: self.num_batches] for each in self._inputs}


def load_data(
    inputs: Mapping[str, Sequence[int | None]],
    data_paths: Sequence[str],
    data_types: Sequence[str],
    num: int | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches from raw files, each a feed dictionary.

    File i of every folder, sorted by name, is batch i. Arguments and errors are those of ``RawBatches``: wrong
    arguments raise at the call, a wrong file when its batch is read.
    """
    return iter(RawBatches(inputs, data_paths, data_types, num))


def _shape(name: str, shape: Sequence[int | None]) -> tuple[int, ...]:
    if not isinstance(shape, (list, tuple)):
        raise ArgumentTypeError(f"The shape of input {name!r} must be list or tuple, not {type(shape).__name__}.")
    for length in shape:
        if length is not None and (isinstance(length, bool) or not isinstance(length, (int, np.integer))):
            raise ArgumentTypeError(
                f"The shape of input {name!r} must hold int, not {type(length).__name__}. Correct it."
            )
    lengths = tuple(-1 if length is None else int(length) for length in shape)
    if any(length < -1 or length == 0 for length in lengths) or lengths.count(-1) > 1:
        raise ArgumentValueError(
            f"The shape {list(lengths)} of input {name!r} is none of a batch. Give whole numbers above 0; one of them "
            "may be -1, for as many as a file holds."
        )
    return lengths


def _dtype(name: str, dtype: str) -> np.dtype[np.generic]:
    if dtype not in RAW_TYPES:
        raise ArgumentTypeError(f"The type of input {name!r} is {dtype!r}; give one of {', '.join(RAW_TYPES)}.")
    return np.dtype(dtype)


def _count(inputs: Sequence[_RawInput], num: int | None) -> int:
    if num is None:
        counts = {each.folder: len(each.files) for each in inputs}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{folder} holds {count}" for folder, count in counts.items())
            raise DatasetError(f"Each file is a batch, but {told}. Give every input as many files.")
        return min(counts.values())
    if isinstance(num, bool) or not isinstance(num, (int, np.integer)):
        raise ArgumentTypeError(f"The number of batches must be int, not {type(num).__name__}.")
    if num <= 0:
        raise ArgumentValueError(f"The number of batches is {num}; it must be above 0.")
    for each in inputs:
        if len(each.files) < num:
            raise TooFewFilesError(
                f"{num} batches are asked for, but {each.folder} holds {len(each.files)} files, one batch each. Ask "
                "for fewer batches, or add files."
            )
    return int(num)
