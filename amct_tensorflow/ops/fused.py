"""Ops that compute what a layer and the nodes behind it compute, and how to write them as these.

    _FusedConv2D(x, w, b, alpha), fused_ops: BiasAdd, Prelu
                                        becomes
    Conv2D(x, w) --> BiasAdd(b) --> Relu(y) - alpha * Relu(-y)

TensorFlow's graph optimizer makes some of them, the converter of TensorFlow.js others, which TensorFlow does not know.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.nodes import AttrLike, make_const, make_node
from amct_tensorflow.graph.view import attribute, data_inputs

_FLOATS = (tf.float32, tf.float16, tf.bfloat16, tf.float64)
_EPSILON, _SLOPE = 0.0001, 0.2  # what TensorFlow takes where the attribute is left out


class Writer:
    """Writes the nodes that one node stands for; the last of them takes its name.

    Attributes:
        node: the node that is replaced.
        value: the tensor written last.
    """

    def __init__(self, node: NodeDef, name: Callable[[str], str]) -> None:
        """Takes the node, and what makes a wanted name one of its own."""
        self.node = node
        self.value = str(node.input[0])
        self._name = name
        self._nodes: list[NodeDef] = []

    def add(self, op: str, inputs: Sequence[str], shared: Sequence[str] = (), **attributes: AttrLike) -> str:
        """Writes a node, which is the value from now on.

        Args:
            op: its op type.
            inputs: what it reads.
            shared: the attributes that it has as the replaced node has them, if that has them.
            **attributes: others.

        Returns:
            Its name.
        """
        self.value = self._name(f"{self.node.name}/{op}")
        new = make_node(self.value, op, inputs, T=_type(self.node), **attributes)
        for each in shared:
            if each in self.node.attr:
                new.attr[each].CopyFrom(self.node.attr[each])
        self._nodes.append(new)
        return self.value

    def number(self, name: str, value: float) -> str:
        """Writes a number; returns its name."""
        const = make_const(self._name(f"{self.node.name}/{name}"), np.array(value, _type(self.node).as_numpy_dtype))
        self._nodes.append(const)
        return str(const.name)

    def finish(self) -> list[NodeDef]:
        """Returns the nodes; the first that computes waits for what the replaced node waits for."""
        first = next(new for new in self._nodes if new.op != "Const")
        first.input.extend(text for text in self.node.input if text.startswith("^"))
        self._nodes[-1].name = self.node.name
        return self._nodes


class Part(NamedTuple):
    """What a name among ``fused_ops`` stands for.

    Attributes:
        arguments: how many inputs of the node it takes.
        write: writes it behind the value, of these inputs.
        is_known_for: tells whether the nodes of a node's type and layout can be written.
    """

    arguments: int
    write: Callable[[Writer, Sequence[str]], object]
    is_known_for: Callable[[NodeDef], bool] = lambda _: True


def _type(node: NodeDef) -> tf.DType:
    return tf.as_dtype(attribute(node, "T").type or tf.float32)  # the converter of TensorFlow.js may leave it out


def _channels_first(node: NodeDef) -> bool:
    return bool(attribute(node, "data_format").s.startswith(b"NC"))


def _bias(writer: Writer, arguments: Sequence[str]) -> None:
    layout = "NCHW" if _channels_first(writer.node) else "NHWC"
    writer.add("BiasAdd", [writer.value, *arguments], data_format=layout)


def _batch_norm(writer: Writer, arguments: Sequence[str]) -> None:
    epsilon = attribute(writer.node, "epsilon").f if "epsilon" in writer.node.attr else _EPSILON
    inputs = [writer.value, *arguments]
    writer.add("FusedBatchNorm", inputs, ["data_format"], epsilon=epsilon, is_training=False)


def _leaky_relu(writer: Writer, _: Sequence[str]) -> None:
    slope = attribute(writer.node, "leakyrelu_alpha").f if "leakyrelu_alpha" in writer.node.attr else _SLOPE
    writer.add("LeakyRelu", [writer.value], alpha=slope)


def _prelu(writer: Writer, arguments: Sequence[str]) -> None:
    value = writer.value
    below = writer.add("Mul", [*arguments, writer.add("Relu", [writer.add("Neg", [value])])])
    writer.add("Sub", [writer.add("Relu", [value]), below])


def _gelu(writer: Writer, _: Sequence[str]) -> None:
    value = writer.value
    argument = writer.add("Mul", [value, writer.number("root", 0.5**0.5)])
    _gate(writer, value, writer.add("Erf", [argument]))


def _gelu_by_tanh(writer: Writer, _: Sequence[str]) -> None:
    """As Hendrycks and Gimpel approximate it (https://arxiv.org/abs/1606.08415)."""
    value = writer.value
    cube = writer.add("Mul", [value, writer.add("Square", [value])])
    inner = writer.add("AddV2", [value, writer.add("Mul", [cube, writer.number("cubed", 0.044715)])])
    argument = writer.add("Mul", [inner, writer.number("root", (2 / np.pi) ** 0.5)])
    _gate(writer, value, writer.add("Tanh", [argument]))


def _gate(writer: Writer, value: str, step: str) -> None:
    """Writes value * (0.5 * (1 + step))."""
    gate = writer.add("Mul", [writer.add("AddV2", [step, writer.number("one", 1)]), writer.number("half", 0.5)])
    writer.add("Mul", [value, gate])


def _hard_swish(writer: Writer, _: Sequence[str]) -> None:
    value = writer.value
    gate = writer.add("Relu6", [writer.add("AddV2", [value, writer.number("three", 3)])])
    writer.add("Mul", [value, writer.add("Mul", [gate, writer.number("sixth", 1 / 6)])])


def _activation(op: str) -> Part:
    return Part(0, lambda writer, _: writer.add(op, [writer.value]))


_PARTS = {
    "BiasAdd": Part(1, _bias),
    "FusedBatchNorm": Part(4, _batch_norm, lambda node: _type(node) == tf.float32),
    "Add": Part(1, lambda writer, arguments: writer.add("AddV2", [writer.value, *arguments])),
    "Prelu": Part(1, _prelu, lambda node: not _channels_first(node)),
    "LeakyRelu": Part(0, _leaky_relu),
    "GeluExact": Part(0, _gelu),
    "GeluApproximate": Part(0, _gelu_by_tanh),
    "_FusedHardSwish": Part(0, _hard_swish),
    **{op: _activation(op) for op in ("Relu", "Relu6", "Elu", "Tanh", "Sigmoid")},
}


@dataclass(frozen=True)
class Fused:
    """Computes what a layer and nodes behind it compute.

    Attributes:
        inputs: how many inputs the layer takes; those of the parts behind it follow.
        write: writes the layer, of its inputs.
    """

    inputs: int
    write: Callable[[Writer, Sequence[str]], object]

    def separate(self, node: NodeDef, name: Callable[[str], str]) -> list[NodeDef] | None:
        """Returns the nodes that a node stands for, each after those that it reads; None if they cannot be told.

        Args:
            node: the node, whose name the last of them has.
            name: makes a wanted name one of its own.
        """
        parts = [_PARTS.get(text.decode()) for text in attribute(node, "fused_ops").list.s]
        known = [part for part in parts if part is not None and part.is_known_for(node)]
        inputs = data_inputs(node.input)
        taken = self.inputs + sum(part.arguments for part in known)
        if len(known) < len(parts) or taken != len(inputs) or _type(node) not in _FLOATS or _has_other_layout(node):
            return None
        writer = Writer(node, name)
        self.write(writer, inputs[: self.inputs])
        rest = inputs[self.inputs :]
        for part in known:
            part.write(writer, rest[: part.arguments])
            rest = rest[part.arguments :]
        return writer.finish()


def _has_other_layout(node: NodeDef) -> bool:
    """Tells whether a node's filters or paddings are not laid out as those of the layer alone."""
    filters = attribute(node, "filter_format").s not in (b"", b"HWIO")
    return filters or bool(attribute(node, "padding_list").list.i) or attribute(node, "num_host_args").i > 0


def _layer(op: str, *shared: str) -> Fused:
    return Fused(2, lambda writer, inputs: writer.add(op, inputs, shared))


def _padded_conv2d(writer: Writer, inputs: Sequence[str]) -> None:
    data, paddings, filters = inputs
    padded = writer.add("MirrorPad", [data, paddings], ["mode"], Tpaddings=tf.int32)
    writer.add("Conv2D", [padded, filters], ["strides", "padding"])


_SLIDING = ("strides", "padding", "data_format", "dilations")

DEPTHWISE = _layer("DepthwiseConv2dNative", *_SLIDING, "explicit_paddings")
FUSED = {
    "_FusedConv2D": _layer("Conv2D", *_SLIDING, "explicit_paddings"),
    "_FusedConv3D": _layer("Conv3D", *_SLIDING),
    "_FusedDepthwiseConv2dNative": DEPTHWISE,
    "FusedDepthwiseConv2dNative": DEPTHWISE,  # of TensorFlow.js
    "_FusedMatMul": _layer("MatMul", "transpose_a", "transpose_b"),
    "FusedPadConv2D": Fused(3, _padded_conv2d),
    "Prelu": Fused(2, lambda writer, inputs: _prelu(writer, inputs[1:])),  # of TensorFlow.js
}
