"""Makes the nodes that compute a layer in integers.

Their ops take scales as the range of values that the bytes cover. Here data has the scale 1, the range [0, 255] or
[-127, 127], and the weights carry the whole factor from sums to values, so that it is rounded only once.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

from amct_tensorflow.graph.nodes import Attr, AttrLike, make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.ops.sliding import spatial
from amct_tensorflow.search.integers.kernel_layer import (
    CONVOLUTION,
    DEPTHWISE_CONVOLUTION,
    HIGHEST_BYTE,
    MATRIX_PRODUCT,
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


_HIGHEST_SIGNED = 127.0


def bytes_of(scope: Scope, integers: str, layer: KernelLayer) -> str:
    """Adds nodes that turn the output of a layer's AscendQuant into bytes."""
    shifted = scope.add("shifted", "AddV2", [integers, scope.floats("zero_point", layer.zero_point)], T=tf.float32)
    plain, quantized = _types_of_data(layer)
    cast = scope.add("plain_bytes", "Cast", [shifted], SrcT=tf.float32, DstT=plain)
    return scope.add("bytes", "Bitcast", [cast], T=plain, type=quantized)


def integers_of(scope: Scope, data: str) -> str:
    """Adds a node that turns unsigned bytes with zero point 0 into a type that other ops than integer kernels know."""
    return scope.add("plain", "Bitcast", [data], T=tf.quint8, type=tf.uint8)


def requantized(scope: Scope, layer: KernelLayer, data: str, to: Requantization) -> str:
    """Adds nodes that compute a layer and quantize its values for a reader with zero point 0; returns bytes.

    They are ``clip(rint(sums * (deq_scale * factor)), lowest, highest)``: TensorFlow multiplies the two factors in the
    simulation, too, so that at most the last digit of the product differs.
    """
    factors = layer.deq_scale * to.factor
    ends = [scope.floats("lowest_output", 0), scope.floats("highest_output", HIGHEST_BYTE)]
    result = _convolution(scope, layer, data, factors, ["BiasAdd", "Relu", "Requantize"], tf.quint8, ends)
    bounds = [("Minimum", to.highest, HIGHEST_BYTE), ("Maximum", to.lowest, 0)]
    limits = [(op, bound) for op, bound, end in bounds if bound != end]
    if not limits:
        return result
    limited = integers_of(scope, result)
    for op, bound in limits:
        limit = scope.const("limit", np.array(bound, np.uint8))
        limited = scope.add("limited", op, [limited, limit], T=tf.uint8)
    return scope.add("limited_bytes", "Bitcast", [limited], T=tf.uint8, type=tf.quint8)


def values(scope: Scope, layer: KernelLayer, data: str, addend: str | None = None) -> str:
    """Adds nodes that compute the values of a layer, as floats.

    A tensor of the same shape may be added to those of a product of matrices.
    """
    if layer.is_product:
        return _matrix_product(scope, layer, data, addend)
    plain = plain_sums(scope, sums(scope, layer, data))
    floats = scope.add("float", "Cast", [plain], SrcT=tf.int32, DstT=tf.float32)
    return scope.add("values", "Mul", [floats, scope.floats("factors", layer.deq_scale)], T=tf.float32)


def sums(scope: Scope, layer: KernelLayer, data: str) -> str:
    """Adds nodes that compute the sums of a layer, bias included, as qint32."""
    return _convolution(scope, layer, data, np.ones_like(layer.deq_scale), ["BiasAdd"], tf.qint32, [])


def plain_sums(scope: Scope, tensor: str) -> str:
    """Adds a node that turns sums into a type that other ops than integer kernels know."""
    return scope.add("int32", "Bitcast", [tensor], T=tf.qint32, type=tf.int32)


def _convolution(
    scope: Scope,
    layer: KernelLayer,
    data: str,
    factors: np.ndarray,
    fused: Sequence[str],
    output: tf.DType,
    limits: Sequence[str],
) -> str:
    """Adds a convolution; a product of matrices becomes a convolution of 1x1 images."""
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
    bias = scope.quantized("bias", layer.bias, tf.qint32)
    inputs = [data, weights, bias, *_ranges(scope, layer, factors), *limits]
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
        fused_ops=_strings(fused),
    )
    return scope.reshape("rows", result, output, (-1, layer.weights.shape[3])) if layer.is_matrix else result


def _matrix_product(scope: Scope, layer: KernelLayer, data: str, addend: str | None) -> str:
    """Adds a product of matrices; the rows of a pointwise convolution are all positions of all images."""
    channels, outputs = layer.weights.shape[2:]
    _, bytes_type = _types_of_data(layer)
    rows, added = data, addend
    if not layer.is_matrix:
        rows = scope.reshape("rows", data, bytes_type, (-1, channels))
        added = None if addend is None else scope.reshape("added_rows", addend, tf.float32, (-1, outputs))
    bias = layer.bias * layer.deq_scale.astype(np.float64)
    inputs = [
        rows,
        scope.quantized("weights", layer.weights[0, 0], tf.qint8),
        scope.floats("bias", bias),
        *([] if added is None else [added]),
        *_ranges(scope, layer, layer.deq_scale),
    ]
    product = scope.add(
        "product",
        MATRIX_PRODUCT,
        inputs,
        **_types([bytes_type, tf.qint8, *[tf.float32] * (len(inputs) - 2)], [tf.float32]),
        T1=bytes_type,
        T2=tf.qint8,
        Tbias=tf.float32,
        U=tf.float32,
        Tout=tf.float32,
        input_quant_mode="SCALED",
        output_quant_mode="SCALED",
        fused_ops=_strings(["BiasAdd", *([] if added is None else ["Add"]), "Dequantize"]),
    )
    return product if layer.is_matrix else _as_image(scope, product, data, bytes_type, outputs)


def _as_image(scope: Scope, rows: str, data: str, bytes_type: tf.DType, channels: int) -> str:
    """Reshapes rows to the images, the height and the width of the layer's input."""
    shape = scope.add("shape", "Shape", [data], T=bytes_type, out_type=tf.int32)
    bounds = [scope.const(name, np.array([index], np.int32)) for name, index in (("from", 0), ("to", 3), ("by", 1))]
    places = scope.add("places", "StridedSlice", [shape, *bounds], T=tf.int32, Index=tf.int32)
    axes = [places, scope.const("channels", np.array([channels], np.int32)), scope.const("axis", np.array(0, np.int32))]
    whole = scope.add("image_shape", "ConcatV2", axes, T=tf.int32, N=2, Tidx=tf.int32)
    return scope.reshape("image", rows, tf.float32, whole)


def _padded(scope: Scope, layer: KernelLayer, data: str) -> str:
    """Pads the data of a layer with its zero point; the kernel would pad with bytes of 0."""
    assert layer.margins is not None
    plain, quantized = _types_of_data(layer)
    around = scope.const("margins", np.array([(0, 0), *layer.margins, (0, 0)], np.int32))
    zero = scope.const("zero", np.array(layer.zero_point, plain.as_numpy_dtype))
    bare = scope.add("bare", "Bitcast", [data], T=quantized, type=plain)
    padded = scope.add("padded", "PadV2", [bare, around, zero], T=plain, Tpaddings=tf.int32)
    return scope.add("padded_bytes", "Bitcast", [padded], T=plain, type=quantized)


def _ranges(scope: Scope, layer: KernelLayer, factors: np.ndarray) -> list[str]:
    """Adds the ranges of data and weights; the latter carry the factors from sums to values."""
    reach = _HIGHEST_SIGNED * factors.astype(np.float64)
    return [
        scope.floats("lowest_data", -_HIGHEST_SIGNED if layer.signed else 0),
        scope.floats("highest_data", _HIGHEST_SIGNED if layer.signed else HIGHEST_BYTE),
        scope.floats("lowest_weights", -reach),
        scope.floats("highest_weights", reach),
    ]


def _types_of_data(layer: KernelLayer) -> tuple[tf.DType, tf.DType]:
    """Returns the type of a layer's data that all ops know, and that which only the integer kernels do."""
    return (tf.int8, tf.qint8) if layer.signed else (tf.uint8, tf.quint8)


def _types(inputs: Sequence[tf.DType], outputs: Sequence[tf.DType]) -> Mapping[str, Attr]:
    """Returns the attributes of these ops that list the types of their inputs and outputs."""
    lists = {"Thost_inputs": inputs, "Thost_outputs": outputs, "Tdevice_inputs": (), "Tdevice_outputs": ()}
    return {
        name: Attr(list=Attr.ListValue(type=[dtype.as_datatype_enum for dtype in types]))
        for name, types in lists.items()
    }


def _strings(texts: Sequence[str]) -> Attr:
    return Attr(list=Attr.ListValue(s=[text.encode() for text in texts]))
