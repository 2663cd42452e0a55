"""Splits batches into parts of a few images, which take less memory, where the values stay the same.

The first axis of fed tensors may count images. It may also count frames, steps or samples, which the model combines, as
a sum over that axis, a delay or a window does. Of many graphs no table of op types tells which it is. Unless it is
known, the beginning of the first batch that is long enough is run in one piece and in several, and parts are used only
if layers read and yield the same values. Their order may differ: behind SpaceToBatchND the first axis counts patches of
all images in turn.
"""

from collections.abc import Sequence
from functools import cached_property, partial

import numpy as np
import tensorflow as tf

from amct_tensorflow.graph.graph_runner import Batch, GraphRunner, Look
from amct_tensorflow.log import log_for

# A part has so many images.
IMAGES_AT_A_TIME = 8
# The beginning of a batch that is tried: a few images, and as many as are small enough. What is small may be frames of
# a recording, which reach far.
_FEWEST_TRIED = 4
_VALUES_TRIED = 1 << 19
# How far sums of values may lie apart, relative to those of their magnitudes: kernels round differently if they are
# given another number of images. What depends on other images differs by more, at the edges of parts if nowhere else.
_TOLERANCE = 1e-4
# So many values are summed up before float64 takes over.
_BLOCK = 1 << 12


class BatchSplitter:
    """Splits the batches that a graph is run on."""

    def __init__(self, runner: GraphRunner, tensors: Sequence[tf.Tensor], *, may_split: bool = False) -> None:
        """Takes the runner of the graph, and the tensors to compare.

        Args:
            runner: what runs the graph on batches of its sources.
            tensors: the tensors whose values must be the same: the observed ones, and the outputs of their readers,
                which tell whether values that belong together stay together.
            may_split: whether they are known to be the same; if they are not, parts are tried.
        """
        self._runner = runner
        self._tensors = tuple(tensors)
        self._takes_any_number = runner.takes_any_number(tensors)
        self._is_the_same = True if may_split else None  # until it is known

    def split(self, batch: Batch, images: int | None) -> list[Batch]:
        """Returns the parts of a batch: of a few images each, or the whole batch alone.

        Args:
            batch: the sources of the runner, by full name.
            images: how many images the caller fed; None if that is not known. Every source must have as many, or be a
                scalar.
        """
        if images is None or images <= IMAGES_AT_A_TIME or not self._takes_any_number:
            return [batch]
        if any(value.ndim and len(value) != images for value in batch.values()):
            return [batch]
        if self._is_the_same is None:
            self._try(some_images(batch, 0, _number_to_try(batch, images)))
        return parts_of(batch, images, IMAGES_AT_A_TIME) if self._is_the_same else [batch]

    def _try(self, beginning: Batch) -> None:
        """Finds out whether parts have the values of the whole; images that do not differ cannot tell."""
        if not any(bool((value != value[:1]).any()) for value in beginning.values() if value.ndim):
            return
        images = max(len(value) for value in beginning.values() if value.ndim)
        self._is_the_same = self._compare(beginning, parts_of(beginning, images, _length_to_try(images)))
        self._runner.look_no_more()
        if not self._is_the_same:
            log_for("calibration").info(
                "Batches are run as a whole, which takes more memory: from parts of one the model computes something "
                "else. The first axis of its inputs does not count images that are independent."
            )

    def _compare(self, batch: Batch, parts: list[Batch]) -> bool:
        """Tells whether tensors hold the same values in parts as in the whole."""
        try:
            whole, cut = (self._summarize(batches) for batches in ([batch], parts))
        except tf.errors.OpError as error:  # such as a Reshape into windows, or patches that make no image
            log_for("calibration").debug("A part of a batch cannot be run: %s", error.message[:300])
            return False
        return all(one.is_same(other) for one, other in zip(whole, cut, strict=True))

    def _summarize(self, batches: list[Batch]) -> list["_Values"]:
        """Returns what the tensors hold in some batches."""
        self._values = [_Values() for _ in self._tensors]
        for batch in batches:
            self._runner.run(self._observers, batch)
        return self._values

    @cached_property
    def _observers(self) -> list[tf.Operation]:
        """The last of the operations that look at the tensors one after the other."""
        return self._runner.look(
            [Look(tensor, partial(self._observe, index)) for index, tensor in enumerate(self._tensors)]
        )

    def _observe(self, index: int, value: np.ndarray) -> None:
        self._values[index].observe(value)


class _Values:
    """A summary of values that depends neither on their order nor on parts."""

    def __init__(self) -> None:
        self._count = 0
        self._ends = np.array([np.inf, -np.inf])
        self._sums = np.zeros(2)  # of values, and of their squares

    def observe(self, value: np.ndarray) -> None:
        if not value.size:
            return
        self._count += value.size
        with np.errstate(over="ignore", invalid="ignore"):  # it is not here that infinite values are named
            self._ends = np.array([min(self._ends[0], value.min()), max(self._ends[1], value.max())])
            self._sums += _sums(np.ravel(value))

    def is_same(self, other: "_Values") -> bool:
        if self._count != other._count:
            return False
        greatest, squares = np.abs(self._ends).max(), self._sums[1]
        magnitudes = [np.sqrt(self._count * squares), squares]  # the former is never less than the sum of magnitudes
        return np.allclose(self._ends, other._ends, 0, _TOLERANCE * greatest, equal_nan=True) and all(
            np.allclose(one, two, 0, _TOLERANCE * magnitude, equal_nan=True)
            for one, two, magnitude in zip(self._sums, other._sums, magnitudes, strict=True)
        )


def _sums(values: np.ndarray) -> np.ndarray:
    """Returns the sums of values and of their squares, each block's in float32 where values are."""
    values = values if values.dtype == np.float32 else values.astype(np.float64)
    whole = len(values) - len(values) % _BLOCK
    blocks = values[:whole].reshape(-1, _BLOCK), values[whole:].reshape(1, -1)
    found = [(each.sum(axis=1), np.einsum("ij,ij->i", each, each)) for each in blocks]
    return np.array([sum(float(one.sum(dtype=np.float64)) for one in each) for each in zip(*found, strict=True)])


def some_images(batch: Batch, start: int, stop: int) -> Batch:
    """Returns some of the images of a batch; scalars belong to all of them."""
    return {name: value[start:stop] if value.ndim else value for name, value in batch.items()}


def images_of(batch: Batch) -> int | None:
    """Returns how many images a batch has, which is the length of all tensors but scalars; None if lengths differ."""
    lengths = {len(value) for value in batch.values() if value.ndim}
    return lengths.pop() if len(lengths) == 1 else None


def parts_of(batch: Batch, images: int, length: int) -> list[Batch]:
    """Returns the first images of a batch in parts of a length."""
    return [some_images(batch, start, start + length) for start in range(0, images, length)]


def _number_to_try(batch: Batch, images: int) -> int:
    values = sum(value.size for value in batch.values())
    return min(images, max(_FEWEST_TRIED, images * _VALUES_TRIED // max(values, 1)))


def _length_to_try(images: int) -> int:
    """Returns a power of two, so that a graph that accepts parts of this length accepts longer ones, too."""
    return 1 << (min(images // 2, IMAGES_AT_A_TIME).bit_length() - 1)
