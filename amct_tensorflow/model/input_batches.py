"""Makes the batches on which two models are compared: from files, or random."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from amct_tensorflow.errors import DatasetError
from amct_tensorflow.model.endpoints import Endpoint

Batch = dict[str, np.ndarray]

# Images of a random batch, where the model takes any number.
_IMAGES = 4


@dataclass(frozen=True)
class RandomInputs:
    """Random inputs, the same for the same seed.

    Attributes:
        low: the smallest value.
        high: the largest value; floats stay below.
        of_integers: whether integer inputs get random values, too.
        seed: of the generator.
        batches: number of batches.
    """

    low: float = -1.0
    high: float = 1.0
    of_integers: bool = False
    seed: int = 0
    batches: int = 1

    def draw(self, inputs: Sequence[Endpoint], shapes: Mapping[str, Sequence[int | None]]) -> Iterator[Batch]:
        """Yields batches.

        Args:
            inputs: the inputs of a model.
            shapes: the shapes of inputs for which the model leaves them open.

        Raises:
            DatasetError: a shape is not known, or an input takes values that cannot be drawn at random.
        """
        check_names(shapes, inputs)
        generator = np.random.default_rng(self.seed)
        drawn = [each for each in inputs if not each.has_default or each.name in shapes]
        for _ in range(self.batches):
            yield {each.name: self._values(generator, each, shapes.get(each.name)) for each in drawn}

    def _values(
        self, generator: np.random.Generator, endpoint: Endpoint, given: Sequence[int | None] | None
    ) -> np.ndarray:
        kind, shape = np.dtype(tf.as_dtype(endpoint.dtype).as_numpy_dtype), _whole_shape(endpoint, given)
        if np.issubdtype(kind, np.floating):
            return generator.uniform(self.low, self.high, shape).astype(kind)
        if self.of_integers and np.issubdtype(kind, np.integer):
            return generator.integers(int(self.low), int(self.high), shape, kind, endpoint=True)
        raise DatasetError(
            f"Input {endpoint.name!r} takes {endpoint.dtype}, of which not every value makes sense. Give data, or for "
            "integers say with --range between which values they lie."
        )


def _whole_shape(endpoint: Endpoint, given: Sequence[int | None] | None) -> tuple[int, ...]:
    known = tf.TensorShape(endpoint.shape)
    if given is not None:
        if not known.is_compatible_with(tf.TensorShape(given)):
            raise DatasetError(f"Input {endpoint.name!r} has the shape {known}; {list(given)} does not fit.")
        known = known.merge_with(tf.TensorShape(given))
    lengths = None if known.rank is None else known.as_list()
    if lengths and lengths[0] is None:
        lengths[0] = _IMAGES
    if lengths is None or None in lengths:
        raise DatasetError(
            f"Input {endpoint.name!r} has the shape {known}. Say of what shape random values are to be, as in "
            f'--input_shape "{endpoint.name}:1,224,224,3".'
        )
    return tuple(lengths)


def read_batches(files: Iterable[str | Path], inputs: Sequence[Endpoint]) -> Iterator[Batch]:
    """Yields a batch from each file: ``.npz`` with an array per input, or ``.npy`` for the only input.

    Raises:
        DatasetError: a file cannot be read, or holds something else than the inputs.
    """
    needed = [each for each in inputs if not each.has_default]
    for file in map(Path, files):
        try:
            with file.open("rb") as stream:
                loaded = np.load(stream, allow_pickle=False)
                arrays = dict(loaded.items()) if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
        except (OSError, ValueError, EOFError) as error:
            # NumPy takes whatever it does not know for a pickle, and tells how to load that.
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "it holds no array of numbers"
            raise DatasetError(f"{file} cannot be read ({reason}). Give .npy or .npz files.") from error
        if not isinstance(arrays, dict):
            if len(needed) != 1:
                names = ", ".join(each.name for each in needed)
                raise DatasetError(f"{file} holds one array, but the model has the inputs {names}. Give .npz files.")
            arrays = {needed[0].name: arrays}
        yield checked_batch({name.removesuffix(":0"): each for name, each in arrays.items()}, inputs, str(file))


def read_labels(path: str | Path) -> np.ndarray:
    """Reads the classes of images, a number for each.

    Raises:
        DatasetError: the file cannot be read, or holds something else.
    """
    try:
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path} cannot be read ({error}). Give a .npy file with a class per image.") from error
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DatasetError(f"{path} does not hold one whole number per image. Give a .npy file that does.")
    return labels


def checked_batch(batch: Batch, inputs: Sequence[Endpoint], source: str) -> Batch:
    """Returns a batch in the types of the inputs.

    Raises:
        DatasetError: it lacks an input, or an array fits none; ``source`` says where it comes from.
    """
    missing = [each.name for each in inputs if not each.has_default and each.name not in batch]
    if missing:
        raise DatasetError(f"{source} holds no array for input {missing[0]!r}; it has {', '.join(batch) or 'none'}.")
    check_names(batch, inputs)
    by_name = {each.name: each for each in inputs}
    return {name: _fitting(values, by_name[name], source) for name, values in batch.items()}


def check_names(names: Iterable[str], inputs: Sequence[Endpoint]) -> None:
    """Refuses names that are no inputs.

    Raises:
        DatasetError: one is not.
    """
    known = [each.name for each in inputs]
    for name in names:
        if name not in known:
            raise DatasetError(f"The model has no input {name!r}. Its inputs are {', '.join(known) or 'none'}.")


def _fitting(values: np.ndarray, endpoint: Endpoint, source: str) -> np.ndarray:
    dtype = np.dtype(tf.as_dtype(endpoint.dtype).as_numpy_dtype)
    is_text = dtype.kind == "O" and values.dtype.kind in "SUO"
    if not is_text and (dtype.kind == "O" or not np.can_cast(values.dtype, dtype, "same_kind")):
        raise DatasetError(f"{source}: input {endpoint.name!r} takes {endpoint.dtype}, not {values.dtype}.")
    if not tf.TensorShape(endpoint.shape).is_compatible_with(values.shape):
        raise DatasetError(
            f"{source}: input {endpoint.name!r} has the shape {tf.TensorShape(endpoint.shape)}, not "
            f"{list(values.shape)}. The first axis is that of the images."
        )
    return values.astype(dtype)
