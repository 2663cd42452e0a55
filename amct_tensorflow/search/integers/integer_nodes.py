"""Makes the nodes that compute a layer in integers.

Their ops take scales as the range of values that the bytes cover. Data and bytes have the scale 1, and so have weights
where a kernel yields plain sums of 32 bits, which the simulation goes on with. Where it yields bytes, the range of the
weights tells it what to multiply by (``kernel_bytes``).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

from amct_tensorflow.graph.nodes import Attr, AttrLike, make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.ops.sliding import spatial
from amct_tensorflow.quantize.algorithms.kernel_bytes import HIGHEST_WEIGHT, ByteForm
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


def bytes_of(scope: Scope, integers: str, form: ByteForm) -> str:
    """Adds nodes that turn the output of an AscendQuant into bytes."""
    shifted = scope.add("shifted", "AddV2", [integers, scope.floats("zero_point", form.zero_point)], T=tf.float32)
    plain, quantized = _types_of(form)
    cast = scope.add("plain_bytes", "Cast", [shifted], SrcT=tf.float32, DstT=plain)
    return scope.add("bytes", "Bitcast", [cast], T=plain, type=quantized)


def integers_of(scope: Scope, data: str, form: ByteForm) -> str:
    """Adds nodes that turn bytes into the output of the AscendQuant which would make them."""
    plain, _ = _types_of(form)
    floats = scope.add("floats", "Cast", [_plain(scope, data, form)], SrcT=plain, DstT=tf.float32)
    return scope.add("relative", "AddV2", [floats, scope.floats("minus_zero_point", -form.zero_point)], T=tf.float32)


def requantized(scope: Scope, layer: KernelLayer, data: str, to: Requantization) -> str:
    """Adds nodes that compute a layer and quantize its values for a reader; returns bytes."""
    return _limited(scope, _convolution(scope, layer, data, to), to)


def _limited(scope: Scope, data: str, to: Requantization) -> str:
    """Adds nodes that limit bytes, where those of the kernel reach further."""
    bounds = [("Minimum", to.highest, to.form.highest), ("Maximum", to.lowest, to.form.lowest)]
    limits = [(op, bound) for op, bound, end in bounds if bound != end]
    if not limits:
        return data
    plain, quantized = _types_of(to.form)
    limited = _plain(scope, data, to.form)
    for op, bound in limits:
        limited = scope.add(
            "limited", op, [limited, scope.const("limit", np.array(bound, plain.as_numpy_dtype))], T=plain
        )
    return scope.add("limited_bytes", "Bitcast", [limited], T=plain, type=quantized)


def _plain(scope: Scope, data: str, form: ByteForm) -> str:
    """Adds a node that turns bytes into a type that other ops than integer kernels know."""
    plain, quantized = _types_of(form)
    return scope.add("plain", "Bitcast", [data], T=quantized, type=plain)


def float_sums(scope: Scope, layer: KernelLayer, data: str) -> str:
    """Adds nodes that compute the sums of a layer as the floats that its AscendDequant reads."""
    return scope.add("floats", "Cast", [sums(scope, layer, data)], SrcT=tf.int32, DstT=tf.float32)


def sums(scope: Scope, layer: KernelLayer, data: str) -> str:
    """Adds nodes that compute the sums of a layer, bias included, as int32."""
    result = _convolution(scope, layer, data)
    return scope.add("int32", "Bitcast", [result], T=tf.qint32, type=tf.int32)


def _convolution(scope: Scope, layer: KernelLayer, data: str, to: Requantization | None = None) -> str:
    """Adds a convolution that yields bytes or, by default, sums.

    A product of matrices becomes a convolution of 1x1 images, and its result rows again.
    """
    strides: tuple[int, ...] = (1, 1)
    dilations, padding = strides, "VALID"
    _, bytes_type = _types_of(layer.sums.form)
    if layer.is_matrix:
        data = scope.reshape("image", data, bytes_type, (-1, 1, 1, layer.weights.shape[2]))
    else:
        strides, dilations = spatial(layer.node, "strides"), spatial(layer.node, "dilations")
        if layer.margins is not None:
            data = _padded(scope, layer, data)
        elif layer.node.attr["padding"].s == b"SAME":
            padding = "SAME"
    weights = scope.quantized("weights", layer.weights, tf.qint8)
    if to is None:
        bias, bias_type, output = _integer_bias(scope, layer), tf.qint32, tf.qint32
    else:
        bias, bias_type, output = scope.floats("bias", to.biases), tf.float32, _types_of(to.form)[1]
    inputs = [data, weights, bias, *_ranges(scope, layer, to)]
    result = scope.add(
        "integers",
        DEPTHWISE_CONVOLUTION if layer.is_depthwise else CONVOLUTION,
        inputs,
        **_types(
            [bytes_type, tf.qint8, bias_type, *[tf.float32] * (len(inputs) - 3)], [output, tf.float32, tf.float32]
        ),
        Tinput=bytes_type,
        Tfilter=tf.qint8,
        Tbias=bias_type,
        Tsummand=output,
        out_type=output,
        strides=[1, *strides, 1],
        dilations=[1, *dilations, 1],
        padding=padding,
        data_format="NHWC",
        fused_ops=Attr(list=Attr.ListValue(s=_fused_ops(to))),
    )
    return scope.reshape("rows", result, output, (-1, layer.weights.shape[3])) if layer.is_matrix else result


def _integer_bias(scope: Scope, layer: KernelLayer) -> str:
    return scope.quantized("bias", layer.sums.bias.astype(np.int32), tf.qint32)


def _fused_ops(to: Requantization | None) -> list[bytes]:
    """Returns what the kernel does with sums; for unsigned bytes it wants a Relu in the list."""
    if to is None:
        return [b"BiasAdd"]
    return [b"BiasAdd", b"Requantize"] if to.form.signed else [b"BiasAdd", b"Relu", b"Requantize"]


def _padded(scope: Scope, layer: KernelLayer, data: str) -> str:
    """Pads the data of a layer with its zero point; the kernel would pad with bytes of 0."""
    assert layer.margins is not None
    plain, quantized = _types_of(layer.sums.form)
    around = scope.const("margins", np.array([(0, 0), *layer.margins, (0, 0)], np.int32))
    zero = scope.const("zero", np.array(layer.sums.form.zero_point, plain.as_numpy_dtype))
    bare = scope.add("bare", "Bitcast", [data], T=quantized, type=plain)
    padded = scope.add("padded", "PadV2", [bare, around, zero], T=plain, Tpaddings=tf.int32)
    return scope.add("padded_bytes", "Bitcast", [padded], T=plain, type=quantized)


def _ranges(scope: Scope, layer: KernelLayer, to: Requantization | None) -> list[str]:
    """Adds the ranges of data, of weights, and of bytes that are yielded."""
    of_weights = np.full(layer.deq_scale.shape, HIGHEST_WEIGHT, np.float32) if to is None else to.ranges
    return [
        *_range(scope, "data", _reach(layer.sums.form)),
        *_range(scope, "weights", (-of_weights, of_weights)),
        *(() if to is None else _range(scope, "output", _reach(to.form))),
    ]


def _reach(form: ByteForm) -> tuple[int, int]:
    """Returns the range that tells the kernel that bytes are in steps of 1."""
    return (-form.highest, form.highest) if form.signed else (0, form.highest)


def _range(scope: Scope, of: str, ends: tuple[float | np.ndarray, float | np.ndarray]) -> list[str]:
    lowest, highest = ends
    return [scope.floats(f"lowest_{of}", lowest), scope.floats(f"highest_{of}", highest)]


def _types_of(form: ByteForm) -> tuple[tf.DType, tf.DType]:
    """Returns the type of bytes that all ops know, and that which only the integer kernels do."""
    return (tf.int8, tf.qint8) if form.signed else (tf.uint8, tf.quint8)


def _types(inputs: Sequence[tf.DType], outputs: Sequence[tf.DType]) -> Mapping[str, Attr]:
    """Returns the attributes of these ops that list the types of their inputs and outputs."""
    lists = {"Thost_inputs": inputs, "Thost_outputs": outputs, "Tdevice_inputs": (), "Tdevice_outputs": ()}
    return {
        name: Attr(list=Attr.ListValue(type=[dtype.as_datatype_enum for dtype in types]))
        for name, types in lists.items()
    }
