"""What the tool has to know of an op type to quantize it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import attribute


def data_format(node: NodeDef) -> str:
    """Returns ``NHWC`` or ``NCHW``; ``NHWC`` for ops without the attribute."""
    return attribute(node, "data_format").s.decode() or "NHWC"


def unrestricted(_node: NodeDef) -> None:
    """Every node of the type can be quantized."""


def once_per_output(_node: NodeDef) -> int:
    """Every position of the output takes each weight once."""
    return 1


def never_pads(_node: NodeDef, _weights: Sequence[int]) -> bool:
    """Every weight meets a value of the data at every position."""
    return False


def always_pads(_node: NodeDef, _weights: Sequence[int]) -> bool:
    """At some positions some weights meet nothing."""
    return True


def no_window(_node: NodeDef) -> list[int]:
    """The op pools nothing."""
    return [1, 1]


@dataclass(frozen=True)
class OpType:
    """An op type that can be quantized.

    Attributes:
        name: TensorFlow's name of it.
        reference: the op in NumPy, for integers (int64): takes the node, its data, and its weights (None for an op
            without); returns the output. Data and output are in the node's data format.
        data_input: which input carries the activations.
        weight_input: which input carries the weights; None for an op without.
        weight_rank: number of axes of the weights.
        input_axis: the axis of the weights that counts the channels of the data.
        channel_axes: the axes of the weights that make up the output channels (spec section 7.3).
        output_rank: number of axes of the output; the channels are the last of them, or axis 1 of NCHW.
        per_channel: whether the weights may have one scale per output channel; the default then, too.
        is_told_its_output_shape: whether an input says how large the output is, number of images included.
        restriction: returns why a node of the type cannot be quantized, None if it can.
        pads: tells from the shape of the weights whether some of them meet no data at some positions of a node.
        positions_per_weight: returns how many positions of the output share one use of a weight.
        window: returns the pooling window that AscendDequant is told (spec section 8.2).
    """

    name: str
    reference: Callable[[NodeDef, np.ndarray, np.ndarray | None], np.ndarray]
    data_input: int = 0
    weight_input: int | None = None
    weight_rank: int = 0
    input_axis: int | None = None
    channel_axes: tuple[int, ...] = ()
    output_rank: int = 4
    per_channel: bool = False
    is_told_its_output_shape: bool = False
    restriction: Callable[[NodeDef], str | None] = unrestricted
    pads: Callable[[NodeDef, Sequence[int]], bool] = never_pads
    positions_per_weight: Callable[[NodeDef], int] = once_per_output
    window: Callable[[NodeDef], list[int]] = no_window

    def channels(self, weights: np.ndarray) -> int:
        """Returns the number of output channels of weights."""
        return math.prod(weights.shape[axis] for axis in self.channel_axes)

    def channel_axis(self, data_format: str) -> int:
        """Returns which axis of the output counts the channels."""
        return 1 if self.output_rank > 2 and data_format == "NCHW" else self.output_rank - 1

    def along_channels(self, weights: np.ndarray, per_channel: np.ndarray) -> np.ndarray:
        """Shapes ``per_channel`` ([Cout] or [1]) so that it broadcasts against the weights' output channels."""
        if per_channel.size == 1:
            return per_channel.reshape((1,) * weights.ndim)
        shape = [length if axis in self.channel_axes else 1 for axis, length in enumerate(weights.shape)]
        return per_channel.reshape(shape)
