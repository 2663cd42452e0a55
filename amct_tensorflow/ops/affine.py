"""Affine maps ``scale * x + shift`` per channel, and the nodes that compute them (spec section 9).

BatchNorm in inference form, fused or in small ops, and a bias in any form are such maps. Of small ops, constant folding
leaves Mul, RealDiv, Add or Sub with one constant.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, attribute, parse_tensor_name
from amct_tensorflow.ops.channels import Channels, data_format

_DEFAULT_EPSILON = 1e-4


class Affine(NamedTuple):
    """``scale * x + shift`` per channel; both float64 of shape [channels]."""

    scale: np.ndarray
    shift: np.ndarray

    @classmethod
    def identity(cls, channels: int) -> "Affine":
        """Returns the map that changes nothing."""
        return cls(np.ones(channels), np.zeros(channels))

    def then(self, following: "Affine") -> "Affine":
        """Returns the map that applies ``self`` first and ``following`` next."""
        return Affine(following.scale * self.scale, following.scale * self.shift + following.shift)

    def is_finite(self) -> bool:
        """Tells whether float32 can hold every coefficient."""
        with np.errstate(over="ignore"):
            values = np.concatenate([self.scale, self.shift]).astype(np.float32)
        return bool(np.isfinite(values).all())

    @property
    def scales_alike(self) -> bool:
        """Whether all channels are scaled alike."""
        return bool(np.all(self.scale == self.scale[0]))


# Takes a graph, a node of it, the name of a node that it reads, and where the output of that one has its channels;
# returns what it does to them, None if that is no affine map per channel.
Read: TypeAlias = Callable[[GraphView, NodeDef, str, Channels], Affine | None]


@dataclass(frozen=True)
class PerChannelAffine:
    """Is an affine map per channel, if all but its data is constant.

    Attributes:
        read: returns the map that a node is.
        scales: whether it multiplies.
        shifts: whether it adds.
    """

    read: Read
    scales: bool = False
    shifts: bool = False


def _batch_norm(view: GraphView, node: NodeDef, data: str, channels: Channels) -> Affine | None:
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta``."""
    training = attribute(node, "is_training").b or "is_training" not in node.attr
    if training or parse_tensor_name(node.input[0]).node != data or _reads_statistics(view, node):
        return None
    if channels.axis != (-3 if data_format(node) == "NCHW" else -1):
        return None
    constants = [view.constant(text) for text in node.input[1:5]]
    if any(value is None or value.shape != (channels.number,) for value in constants):
        return None
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in constants)
    epsilon = attribute(node, "epsilon").f if "epsilon" in node.attr else _DEFAULT_EPSILON
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + epsilon)
        return Affine(scale, beta - mean * scale)


def _reads_statistics(view: GraphView, batch_norm: NodeDef) -> bool:
    """Tells whether something reads the mean or variance that a BatchNorm passes on; they vanish with it."""
    edges = [edge for edge in view.consumers(batch_norm.name) if not view.is_control(edge)]
    return any(parse_tensor_name(edge.node.input[edge.input_index]).port > 0 for edge in edges)


def _bias_add(view: GraphView, node: NodeDef, data: str, channels: Channels) -> Affine | None:
    """``x + bias``; the older form, BiasAddV1, has channels only as the last axis, and no attribute for that."""
    bias = view.constant(node.input[1])
    if bias is None or parse_tensor_name(node.input[0]).node != data or bias.shape != (channels.number,):
        return None
    if data_format(node) == "NCHW":
        matches = channels.rank is not None and channels.axis + channels.rank == 1
    else:
        matches = channels.axis == -1
    return Affine(np.ones(channels.number), bias.astype(np.float64)) if matches else None


_Coefficients = tuple[np.ndarray | float, np.ndarray | float]


def _binary(
    of_data: Callable[[np.ndarray], _Coefficients], of_constant: Callable[[np.ndarray], _Coefficients] | None
) -> Read:
    """Returns a reader of ops of ``x`` and a constant.

    Args:
        of_data: returns scale and shift from the constant where ``x`` is the first operand.
        of_constant: the same where the constant is; None if that is no affine map.
    """

    def read(view: GraphView, node: NodeDef, data: str, channels: Channels) -> Affine | None:
        sides = [parse_tensor_name(text).node == data for text in node.input[:2]]
        if sides.count(True) != 1:
            return None
        constant = view.constant(node.input[sides.index(False)])
        coefficients = of_data if sides[0] else of_constant
        if constant is None or coefficients is None:
            return None
        values = _along_channels(constant, channels)
        if values is None:
            return None
        with np.errstate(all="ignore"):
            scale, shift = coefficients(values)
        return Affine(*(np.broadcast_to(np.asarray(each, np.float64), channels.number) for each in (scale, shift)))

    return read


def _along_channels(constant: np.ndarray, channels: Channels) -> np.ndarray | None:
    """Returns a constant as float64 [channels] if it is a scalar, or varies along the channel axis only; else None."""
    if constant.ndim > (channels.rank if channels.rank is not None else max(-channels.axis, 1)):
        return None  # it would give the result more axes
    lengths = {axis - constant.ndim: length for axis, length in enumerate(constant.shape)}
    if any(length != 1 for axis, length in lengths.items() if axis != channels.axis):
        return None
    if lengths.get(channels.axis, 1) not in (1, channels.number):
        return None
    return np.broadcast_to(constant.reshape(-1), channels.number).astype(np.float64)


ADDITION = PerChannelAffine(_binary(lambda c: (1.0, c), lambda c: (1.0, c)), shifts=True)
SUBTRACTION = PerChannelAffine(_binary(lambda c: (1.0, -c), lambda c: (-1.0, c)), shifts=True)
PRODUCT = PerChannelAffine(_binary(lambda c: (c, 0.0), lambda c: (c, 0.0)), scales=True)
QUOTIENT = PerChannelAffine(_binary(lambda c: (1.0 / c, 0.0), None), scales=True)
BIAS = PerChannelAffine(_bias_add, shifts=True)
NORMALIZATION = PerChannelAffine(_batch_norm, scales=True, shifts=True)
