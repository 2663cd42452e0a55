"""The trait of op types that can be quantized."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.ops.matrix_form import ONE_MATRIX, MatrixForm


def unrestricted(_node: NodeDef) -> None:
    """Every node of the type can be quantized."""


def no_products(_node: NodeDef, _weights: Sequence[int]) -> Fraction:
    """The op multiplies nothing."""
    return Fraction(0)


def never(_node: NodeDef, _weights: Sequence[int], _data: Sequence[int | None]) -> bool:
    """No node of the type is a fully connected layer in disguise."""
    return False


def never_pads(_node: NodeDef, _weights: Sequence[int]) -> bool:
    """Every weight meets a value of the data at every position."""
    return False


def always_pads(_node: NodeDef, _weights: Sequence[int]) -> bool:
    """At some positions some weights meet nothing."""
    return True


def of_two_computed(op: "Quantizable", transposing: tuple[str, str]) -> "Quantizable":
    """Returns a product with weights as the product of two computed operands, both without a zero point (spec 10)."""
    return replace(
        op,
        weight_input=None,
        second_input=op.weight_input,
        transposing=transposing,
        weight_rank=0,
        input_axis=None,
        channel_axes=(),
        zero_point=False,
        transposed_by=None,
        matrix_form=None,
    )


def no_window(_node: NodeDef) -> list[int]:
    """The op pools nothing."""
    return [1, 1]


@dataclass(frozen=True)
class Quantizable:
    """An op type that can be quantized.

    Attributes:
        name: TensorFlow's name of it.
        reference: the op in NumPy, for integers (int64): takes the node, its data, and its weights or its second
            operand (None for an op without); returns the output. Data and output are in the node's data format.
        data_input: which input carries the activations.
        weight_input: which input carries the weights; None for an op without.
        second_input: which input carries the second operand of a product of two computed ones, which has a scale of its
            own; None for other ops.
        weight_rank: number of axes of the weights.
        input_axis: the axis of the weights that counts the channels of the data, those of a group where there are some.
        channel_axes: the axes of the weights that make up the output channels (spec section 7.3).
        output_rank: number of axes of the output; None if it has as many as the data, two at least.
        zero_point: whether the activations may have a zero point.
        is_told_its_output_shape: whether an input says how large the output is, number of images included.
        transposed_by: the attribute that says that the weights are taken transposed; None if they never are.
        transposing: of a product of two computed operands, the attributes that say which of them are taken transposed.
        restriction: returns why a node of the type cannot be quantized, None if it can.
        pads: tells from the shape of the weights whether some of them meet no data at some positions of a node.
        products: returns how many products each value of the output sums up on average, from the shape of the weights.
        is_fully_connected: tells from the shapes of weights and data whether a node is a fully connected layer, which
            has one scale for all of its weights by default (spec section 12.1).
        matrix_form: how it multiplies matrices; None for an op without weights.
        window: returns the pooling window that AscendDequant is told (spec section 8.2).
        of_computed: the form of a node whose weights are computed, like its data; None where they cannot be.
    """

    name: str
    reference: Callable[[NodeDef, np.ndarray, np.ndarray | None], np.ndarray]
    data_input: int = 0
    weight_input: int | None = None
    second_input: int | None = None
    weight_rank: int = 0
    input_axis: int | None = None
    channel_axes: tuple[int, ...] = ()
    output_rank: int | None = 4
    zero_point: bool = True
    is_told_its_output_shape: bool = False
    transposed_by: str | None = None
    transposing: tuple[str, ...] = ()
    restriction: Callable[[NodeDef], str | None] = unrestricted
    pads: Callable[[NodeDef, Sequence[int]], bool] = never_pads
    products: Callable[[NodeDef, Sequence[int]], Fraction] = no_products
    is_fully_connected: Callable[[NodeDef, Sequence[int], Sequence[int | None]], bool] = never
    matrix_form: MatrixForm | None = None
    window: Callable[[NodeDef], list[int]] = no_window
    of_computed: "Quantizable | None" = None

    @property
    def has_weights(self) -> bool:
        """Whether it has weights, which may then have one scale per output channel."""
        return self.weight_input is not None

    @property
    def is_dense(self) -> bool:
        """Whether it multiplies what it reads by one matrix at each position."""
        return self.matrix_form is ONE_MATRIX

    @property
    def operands(self) -> tuple[int, ...]:
        """Which inputs are quantized as activations: one, or two of a product of computed operands."""
        return (self.data_input,) if self.second_input is None else (self.data_input, self.second_input)

    def with_operands(self, *, computed: bool) -> "Quantizable":
        """Returns the form of a node; ``computed`` tells whether its weights are computed, if the op type has any."""
        return self.of_computed if computed and self.of_computed is not None else self

    def channels(self, weights: np.ndarray) -> int:
        """Returns the number of output channels of weights."""
        return math.prod(weights.shape[axis] for axis in self.channel_axes)

    def channel_axis(self, data_format: str) -> int:
        """Returns which axis of data and output counts the channels, from the end: -1 is the last."""
        return 1 - self.output_rank if data_format == "NCHW" and self.output_rank is not None else -1

    def positions_per_weight(self, node: NodeDef, weights: np.ndarray) -> int:
        """Returns how many positions of the output share one use of a weight: 1, more for a transposed convolution."""
        products = self.channels(weights) * self.products(node, weights.shape)
        return int(weights.size / products) if products else 1

    def by_channel(self, weights: np.ndarray) -> np.ndarray:
        """Returns weights with a row per output channel, [Cout, weights of a channel]."""
        by_channel = np.moveaxis(weights, self.channel_axes, range(len(self.channel_axes)))
        return by_channel.reshape(self.channels(weights), -1)

    def along_channels(self, weights: np.ndarray, per_channel: np.ndarray) -> np.ndarray:
        """Shapes ``per_channel`` ([Cout] or [1]) so that it broadcasts against the weights' output channels."""
        if per_channel.size == 1:
            return per_channel.reshape((1,) * weights.ndim)
        shape = [length if axis in self.channel_axes else 1 for axis, length in enumerate(weights.shape)]
        return per_channel.reshape(shape)
