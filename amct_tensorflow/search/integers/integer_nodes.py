"""Makes the nodes that compute a layer in integers.

Their ops take scales as the range of values that the bytes cover. Data has the scale 1, and so have weights where a
kernel yields plain sums of 32 bits, which the simulation goes on with. Where it yields bytes, the range of the weights
tells it what to multiply by (``kernel_bytes``).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

from amct_tensorflow.graph.nodes import Attr, AttrLike, make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.ops.sliding import spatial
from amct_tensorflow.quantize.algorithms.kernel_bytes import HIGHEST_BYTE, HIGHEST_SIGNED_BYTE
from amct_tensorflow.search.integers.kernel_layer import (
    CONVOLUTION,
    DEPTHWISE_CONVOLUTION,
    KernelLayer,
    Requantization,
)

_SCOPE = "in_integers"


class Scope:
    """Adds nodes under the name, and on the device, of a node that they belong to."""

    def __init__(self, editor: GraphEditor, owner: str) -> None:
        self._editor = editor
        self._owner = owner

    def add(self, name: str, op: str, inputs: Sequence[str], **attrs: AttrLike) -> str:
        """Adds a node; returns its name in the graph."""
        return self._editor.add(make_node(self._full(name), op, inputs, **attrs), like=self._owner)

    def const(self, name: str, value: np.ndarray) -> str:
        """Adds a Const."""
        return self._editor.add(make_const(self._full(name), value), like=self._owner)

    def floats(self, name: str, value: float | np.ndarray) -> str:
        """Adds a Const of floats."""
        return self.const(name, np.asarray(value, np.float32))

    def quantized(self, name: str, value: np.ndarray, dtype: tf.DType) -> str:
        """Adds a Const of one of TensorFlow's quantized types, which NumPy does not know."""
        tensor = TensorProto(dtype=dtype.as_datatype_enum, tensor_content=np.ascontiguousarray(value).tobytes())
        tensor.tensor_shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
        return self.add(name, "Const", (), dtype=dtype, value=Attr(tensor=tensor))

    def reshape(self, name: str, tensor: str, dtype: tf.DType, shape: Sequence[int] | str) -> str:
        """Adds a Reshape, to a known shape, or to that in a tensor."""
        text = shape if isinstance(shape, str) else self.const(f"{name}_shape", np.array(shape, np.int32))
        return self.add(name, "Reshape", [tensor, text], T=dtype, Tshape=tf.int32)

    def _full(self, name: str) -> str:
        return self._editor.unique_name(f"{self._owner}/{_SCOPE}/{name}")


def bytes_of(scope: Scope, integers: str, layer: KernelLayer) -> str:
    """Adds nodes that turn the output of a layer's AscendQuant into bytes."""
    shifted = scope.add("shifted", "AddV2", [integers, scope.floats("zero_point", layer.sums.zero_point)], T=tf.float32)
    plain, quantized = _types_of_data(layer)
    cast = scope.add("plain_bytes", "Cast", [shifted], SrcT=tf.float32, DstT=plain)
    return scope.add("bytes", "Bitcast", [cast], T=plain, type=quantized)


def integers_of(scope: Scope, data: str) -> str:
    """Adds a node that turns unsigned bytes with zero point 0 into a type that other ops than integer kernels know."""
    return scope.add("plain", "Bitcast", [data], T=tf.quint8, type=tf.uint8)


def requantized(scope: Scope, layer: KernelLayer, data: str, to: Requantization) -> str:
    """Adds nodes that compute a layer and quantize its values for a reader with zero point 0; returns bytes.

    Outputs have the scale 1, too. The kernel clips them to 0 and 255, which it wants to be told as a Relu.
    """
    ends = [scope.floats("lowest_output", 0), scope.floats("highest_output", HIGHEST_BYTE)]
    result = _convolution(scope, layer, data, to.ranges, ends)
    return _limited(scope, result, to)


def _limited(scope: Scope, data: str, to: Requantization) -> str:
    """Adds nodes that limit bytes, where those of the kernel reach further."""
    bounds = [("Minimum", to.highest, HIGHEST_BYTE), ("Maximum", to.lowest, 0)]
    limits = [(op, bound) for op, bound, end in bounds if bound != end]
    if not limits:
        return data
    limited = integers_of(scope, data)
    for op, bound in limits:
        limited = scope.add("limited", op, [limited, scope.const("limit", np.array(bound, np.uint8))], T=tf.uint8)
    return scope.add("limited_bytes", "Bitcast", [limited], T=tf.uint8, type=tf.quint8)


def float_sums(scope: Scope, layer: KernelLayer, data: str) -> str:
    """Adds nodes that compute the sums of a layer as the floats that its AscendDequant reads."""
    return scope.add("floats", "Cast", [sums(scope, layer, data)], SrcT=tf.int32, DstT=tf.float32)


def sums(scope: Scope, layer: KernelLayer, data: str) -> str:
    """Adds nodes that compute the sums of a layer, bias included, as int32; those of a matrix product in rows again."""
    ranges = np.full(layer.deq_scale.shape, HIGHEST_SIGNED_BYTE, np.float32)
    result = _convolution(scope, layer, data, ranges)
    return scope.add("int32", "Bitcast", [result], T=tf.qint32, type=tf.int32)


def _convolution(
    scope: Scope, layer: KernelLayer, data: str, ranges: np.ndarray, ends: Sequence[str] | None = None
) -> str:
    """Adds a convolution; a product of matrices becomes a convolution of 1x1 images.

    Args:
        scope: adds the nodes.
        layer: the layer.
        data: its bytes.
        ranges: the ranges of its weights, float32 [Cout].
        ends: the range of the bytes that it yields; None if it yields sums.
    """
    strides: tuple[int, ...] = (1, 1)
    dilations, padding = strides, "VALID"
    _, bytes_type = _types_of_data(layer)
    if layer.is_matrix:
        data = scope.reshape("image", data, bytes_type, (-1, 1, 1, layer.weights.shape[2]))
    else:
        strides, dilations = spatial(layer.node, "strides"), spatial(layer.node, "dilations")
        if layer.margins is not None:
            data = _padded(scope, layer, data)
        elif layer.node.attr["padding"].s == b"SAME":
            padding = "SAME"
    weights = scope.quantized("weights", layer.weights, tf.qint8)
    bias = scope.quantized("bias", layer.sums.bias.astype(np.int32), tf.qint32)
    inputs = [data, weights, bias, *_ranges(scope, layer, ranges), *(ends or ())]
    output = tf.qint32 if ends is None else tf.quint8
    result = scope.add(
        "integers",
        DEPTHWISE_CONVOLUTION if layer.is_depthwise else CONVOLUTION,
        inputs,
        **_types(
            [bytes_type, tf.qint8, tf.qint32, *[tf.float32] * (len(inputs) - 3)], [output, tf.float32, tf.float32]
        ),
        Tinput=bytes_type,
        Tfilter=tf.qint8,
        Tbias=tf.qint32,
        Tsummand=output,
        out_type=output,
        strides=[1, *strides, 1],
        dilations=[1, *dilations, 1],
        padding=padding,
        data_format="NHWC",
        fused_ops=Attr(list=Attr.ListValue(s=[b"BiasAdd"] if ends is None else [b"BiasAdd", b"Relu", b"Requantize"])),
    )
    return scope.reshape("rows", result, output, (-1, layer.weights.shape[3])) if layer.is_matrix else result


def _padded(scope: Scope, layer: KernelLayer, data: str) -> str:
    """Pads the data of a layer with its zero point; the kernel would pad with bytes of 0."""
    assert layer.margins is not None
    plain, quantized = _types_of_data(layer)
    around = scope.const("margins", np.array([(0, 0), *layer.margins, (0, 0)], np.int32))
    zero = scope.const("zero", np.array(layer.sums.zero_point, plain.as_numpy_dtype))
    bare = scope.add("bare", "Bitcast", [data], T=quantized, type=plain)
    padded = scope.add("padded", "PadV2", [bare, around, zero], T=plain, Tpaddings=tf.int32)
    return scope.add("padded_bytes", "Bitcast", [padded], T=plain, type=quantized)


def _ranges(scope: Scope, layer: KernelLayer, of_weights: np.ndarray) -> list[str]:
    """Adds the ranges of data, whose step is 1, and of weights."""
    return [
        scope.floats("lowest_data", -HIGHEST_SIGNED_BYTE if layer.sums.signed else 0),
        scope.floats("highest_data", HIGHEST_SIGNED_BYTE if layer.sums.signed else HIGHEST_BYTE),
        scope.floats("lowest_weights", -of_weights),
        scope.floats("highest_weights", of_weights),
    ]


def _types_of_data(layer: KernelLayer) -> tuple[tf.DType, tf.DType]:
    """Returns the type of a layer's data that all ops know, and that which only the integer kernels do."""
    return (tf.int8, tf.qint8) if layer.sums.signed else (tf.uint8, tf.quint8)


def _types(inputs: Sequence[tf.DType], outputs: Sequence[tf.DType]) -> Mapping[str, Attr]:
    """Returns the attributes of these ops that list the types of their inputs and outputs."""
    lists = {"Thost_inputs": inputs, "Thost_outputs": outputs, "Tdevice_inputs": (), "Tdevice_outputs": ()}
    return {
        name: Attr(list=Attr.ListValue(type=[dtype.as_datatype_enum for dtype in types]))
        for name, types in lists.items()
    }
