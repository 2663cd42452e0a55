"""The form of an op with weights as products of matrices, for rounding.

A convolution multiplies its window at a position, one row of ``inputs`` values, by a matrix of weights ``[inputs,
outputs]``. Each group of channels is a product of its own: a plain convolution has one group, a depthwise one a group
per channel.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef


@dataclass(frozen=True)
class Sample:
    """Which positions of data are looked at: evenly spread ones.

    Attributes:
        most: how many at most, 1 or more.
        start: where the first one is, as a share of the step from one to the next, at least 0 and below 1.
    """

    most: int
    start: float = 0.0


# Takes the node, its data, the shape of its weights, and which positions of the data become rows.
Rows: TypeAlias = Callable[[NodeDef, np.ndarray, tuple[int, ...], Sample], np.ndarray]


def group_by_group(_node: NodeDef, products: np.ndarray, _shape: tuple[int, ...], _data: tuple[int, ...]) -> np.ndarray:
    """The output channels are those of the first group, then those of the next."""
    return products.reshape(-1)


@dataclass(frozen=True)
class MatrixForm:
    """How the data and the weights of an op become matrices, and how matrices become its weights.

    Attributes:
        rows: returns rows of the data, [groups, rows, inputs] in the data's dtype: all of them, or evenly spread ones.
        matrices: returns weights as [groups, inputs, outputs]; takes the number of groups.
        weights: returns matrices as weights of the shape given; undoes ``matrices``.
        per_channel: takes the node, what its products come to on average, [groups, outputs], and the shapes of the
            weights and of the data; returns what the output comes to on average, [Cout].
    """

    rows: Rows
    matrices: Callable[[np.ndarray, int], np.ndarray]
    weights: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
    per_channel: Callable[[NodeDef, np.ndarray, tuple[int, ...], tuple[int, ...]], np.ndarray] = group_by_group


def spread(shape: tuple[int, ...], sample: Sample) -> tuple[np.ndarray, ...]:
    """Returns the indices of evenly spread positions on a grid, one array per axis.

    Positions are counted with the last axis running fastest. The step between two of them has no factor in common with
    any axis but the first, so that all rows and columns of an image count alike.
    """
    total = math.prod(shape)
    step = max(1, math.ceil(total / sample.most))
    while any(math.gcd(step, length) > 1 for length in shape[1:]):
        step += 1
    first = int(sample.start * min(step, total))
    return np.unravel_index(np.arange(first, total, step), shape)


def _rows_of_last_axis(_node: NodeDef, data: np.ndarray, _shape: tuple[int, ...], sample: Sample) -> np.ndarray:
    return np.asarray(data[spread(data.shape[:-1], sample)][np.newaxis])


def _one_matrix(weights: np.ndarray, _groups: int) -> np.ndarray:
    return weights[np.newaxis]


def _of_one_matrix(matrices: np.ndarray, _shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(matrices[0])


# Weights [inputs, outputs], and data with the inputs as its last axis.
ONE_MATRIX = MatrixForm(_rows_of_last_axis, _one_matrix, _of_one_matrix)
