"""The quantization ops as a GraphDef function library, so that stock TensorFlow executes a quantized model.

A node whose op type is ``AscendQuant`` has exactly the inputs and attributes of spec section 8.1, which is what ATC
parses. TensorFlow finds no registered op of that name and calls the function of that name in the graph's own library.
The functions compute in the integer domain, like the NPU: the quantizer yields integer-valued floats relative to the
zero point, so that zero padding is exact and the layer needs no correction for the zero point (spec section 8.2).

Limits: ``quant_bits`` is 8 or 16 and the shift in bits 39..32 of ``deq_scale`` is 0, the only values post-training
quantization of TensorFlow models produces; 16 is our extension of the original. If another library has registered ops
of the same names in the process,
TensorFlow uses those kernels for the nodes instead, and ignores the functions: the results then are that library's.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import function_pb2, op_def_pb2
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DT_UINT64

from amct_tensorflow.graph.nodes import Attr, AttrLike, attr_value, make_const, make_node
from amct_tensorflow.quantize.algorithms.activation_factors import (
    INT8_BITS,
    INT16_BITS,
    highest_integer,
    lowest_integer,
    type_name,
)

QUANT = "AscendQuant"
WEIGHT_QUANT = "AscendWeightQuant"
DEQUANT = "AscendDequant"
ANTI_QUANT = "AscendAntiQuant"

_T = ("type", tf.float32)
_TYPE = "dst_type"


def _function(
    name: str,
    inputs: Mapping[str, tf.DType],
    attrs: Mapping[str, tuple[str, AttrLike]],
    body: Sequence[NodeDef],
    result: str,
) -> function_pb2.FunctionDef:
    """Makes a FunctionDef ``name(inputs) -> y: float``.

    ``attrs`` maps each attribute to its type in op-def notation and a sample value. TensorFlow's MLIR pass tries to
    instantiate every function of a library on its own, and reports an error for each attribute without a value;
    a node's own attributes take precedence wherever the function is called.
    """
    arg = op_def_pb2.OpDef.ArgDef
    signature = op_def_pb2.OpDef(
        name=name,
        input_arg=[arg(name=key, type=dtype.as_datatype_enum) for key, dtype in inputs.items()],
        output_arg=[arg(name="y", type=tf.float32.as_datatype_enum)],
        attr=[op_def_pb2.OpDef.AttrDef(name=key, type=kind) for key, (kind, _) in attrs.items()],
    )
    samples = {key: attr_value(value) for key, (_, value) in attrs.items()}
    return function_pb2.FunctionDef(signature=signature, node_def=body, ret={"y": result}, attr=samples)


def _float_attribute(name: str) -> list[NodeDef]:
    """Nodes that turn the float attribute ``name`` into a scalar tensor ``<name>:y:0``.

    ``LeakyRelu(-1, alpha)`` is ``-alpha`` exactly, and LeakyRelu is an op that takes a float attribute of any value.
    """
    return [
        make_node(f"minus_{name}", "LeakyRelu", ["minus_one:output:0"], T=tf.float32, alpha=Attr(placeholder=name)),
        make_node(name, "Neg", [f"minus_{name}:activations:0"], T=tf.float32),
    ]


def _minus_one() -> NodeDef:
    return make_const("minus_one", np.array(-1, np.float32))


def _limits_of_8_bits() -> list[NodeDef]:
    """Nodes ``quant_min`` and ``quant_max`` of int8."""
    return [
        make_const("quant_min", np.array(lowest_integer(INT8_BITS), np.float32)),
        make_const("quant_max", np.array(highest_integer(INT8_BITS), np.float32)),
    ]


def _limits_of_any_bits() -> list[NodeDef]:
    """Nodes ``quant_min`` and ``quant_max`` of the integers that the attribute ``quant_bits`` tells: 8 or 16.

    StridedSlice is an op that takes an integer attribute of either value: bit ``i`` of ``end_mask`` lets it take axis
    ``i`` whole. The number 8 is bit 3, and 16 is bit 4. Of each axis the second limit counts.
    """
    halves = np.zeros((1, 1, 1, 2, 2), np.float32)
    halves[..., 1, 0], halves[..., 0, 1] = -lowest_integer(INT8_BITS), -lowest_integer(INT16_BITS)
    bounds = [make_const(name, np.full(5, value, np.int32)) for name, value in (("from", 0), ("to", 1), ("by", 1))]
    return [
        make_const("halves", halves),
        *bounds,
        make_node(
            "taken",
            "StridedSlice",
            ["halves:output:0", "from:output:0", "to:output:0", "by:output:0"],
            T=tf.float32,
            Index=tf.int32,
            end_mask=Attr(placeholder="quant_bits"),
        ),
        make_const("all_axes", np.arange(5, dtype=np.int32)),
        make_node("half", "Sum", ["taken:output:0", "all_axes:output:0"], T=tf.float32, Tidx=tf.int32),
        make_node("least", "Neg", ["half:output:0"], T=tf.float32),
        make_node("greatest", "AddV2", ["half:output:0", "minus_one:output:0"], T=tf.float32),
        # An Identity calls its output as a Const does, which the limits of 8 bits are.
        make_node("quant_min", "Identity", ["least:y:0"], T=tf.float32),
        make_node("quant_max", "Identity", ["greatest:z:0"], T=tf.float32),
    ]


def _ascend_quant(bits: Collection[int]) -> function_pb2.FunctionDef:
    """``clip(rint(x * scale), lowest - offset, highest - offset)`` with ``scale = 1 / scale_d``; ties go to even.

    For offset -128, the usual one behind a Relu, the integers are [0, 255], which is what one TensorFlow op rounds and
    clips to in a single pass over memory. For other offsets it takes three, each in place (ClipByValue is not).
    """
    is_wide = INT16_BITS in bits
    body = [
        _minus_one(),
        *_float_attribute("scale"),
        *_float_attribute("offset"),
        *(_limits_of_any_bits() if is_wide else _limits_of_8_bits()),
        make_node("lowest", "Sub", ["quant_min:output:0", "offset:y:0"], T=tf.float32),
        make_node("highest", "Sub", ["quant_max:output:0", "offset:y:0"], T=tf.float32),
        make_node("is_unsigned", "Equal", ["offset:y:0", "quant_min:output:0"], T=tf.float32),
        make_node("scaled", "Mul", ["x", "scale:y:0"], T=tf.float32),
        make_node("way", "Switch", ["scaled:z:0", "is_unsigned:z:0"], T=tf.float32),
        make_node("rounded", "Round", ["way:output_false:0"], T=tf.float32),
        make_node("limited", "Minimum", ["rounded:y:0", "highest:z:0"], T=tf.float32),
        make_node("clipped", "Maximum", ["limited:z:0", "lowest:z:0"], T=tf.float32),
        make_node(
            "unsigned",
            "QuantizeAndDequantizeV2",
            ["way:output_true:0", "lowest:z:0", "highest:z:0"],
            T=tf.float32,
            signed_input=False,
            num_bits=8,
            range_given=True,
            round_mode="HALF_TO_EVEN",
        ),
        make_node("quantized", "Merge", ["clipped:z:0", "unsigned:output:0"], T=tf.float32, N=2),
    ]
    attrs = {"T": _T, "quant_bits": ("int", 8), "scale": ("float", 1.0), "offset": ("float", 0.0)}
    function = _function(QUANT, {"x": tf.float32}, attrs, body, "quantized:output:0")
    if is_wide:
        function.signature.attr.add(name=_TYPE, type="string", default_value=attr_value(type_name(INT8_BITS)))
        function.attr[_TYPE].CopyFrom(attr_value(type_name(INT8_BITS)))
    return function


def _ascend_weight_quant() -> function_pb2.FunctionDef:
    """``float(x) - float(offset_w)``; ``offset_w`` broadcasts along the last axis."""
    body = [
        make_node("values", "Cast", ["x"], SrcT=tf.int8, DstT=tf.float32),
        make_node("offsets", "Cast", ["offset_w"], SrcT=tf.int8, DstT=tf.float32),
        make_node("shifted", "Sub", ["values:y:0", "offsets:y:0"], T=tf.float32),
    ]
    return _function(WEIGHT_QUANT, {"x": tf.int8, "offset_w": tf.int8}, {"T": _T}, body, "shifted:z:0")


def _ascend_dequant(*, float16: bool = False) -> function_pb2.FunctionDef:
    """``x * deq_scale`` per channel, the scale being the low word of each ``deq_scale`` element (spec section 8.2).

    The factor is given the shape [Cout] for NHWC, which also serves inputs of lower rank (MatMul), and [Cout, 1, 1] for
    NCHW. It is visible to TensorFlow as a constant, so that it and the factor of a quantizer behind become one product.
    With ``float16`` the product is rounded to that.
    """
    body = [
        # TensorFlow would multiply the factor into the weights of a convolution right before it, whose products would
        # no longer be integers. It does not look through this op, which passes the tensor on as it is.
        make_node(
            "accumulator",
            "PlaceholderWithDefault",
            ["x"],
            dtype=tf.float32,
            shape=Attr(shape={"unknown_rank": True}),
        ),
        make_node("words", "Bitcast", ["deq_scale"], T=tf.uint64, type=tf.float32),
        make_const("begin", np.array([0, 0], np.int32)),
        make_const("end", np.array([0, 1], np.int32)),
        make_const("step", np.array([1, 1], np.int32)),
        make_node(
            "factor",
            "StridedSlice",
            ["words:output:0", "begin:output:0", "end:output:0", "step:output:0"],
            T=tf.float32,
            Index=tf.int32,
            begin_mask=1,
            end_mask=1,
            shrink_axis_mask=2,
        ),
        make_const("last_axis", np.array([1, 1, 1, -1], np.int32)),
        make_node(
            "axes",
            "DataFormatVecPermute",
            ["last_axis:output:0"],
            T=tf.int32,
            src_format="NHWC",
            dst_format=Attr(placeholder="data_format"),
        ),
        make_const("only_axis", np.array(0, np.int32)),
        make_node(
            "channel_axis",
            "ArgMin",
            ["axes:y:0", "only_axis:output:0"],
            T=tf.int32,
            Tidx=tf.int32,
            output_type=tf.int32,
        ),
        make_node("first", "ExpandDims", ["channel_axis:output:0", "only_axis:output:0"], T=tf.int32, Tdim=tf.int32),
        make_const("one", np.array([1], np.int32)),
        make_node(
            "from_channel_axis",
            "StridedSlice",
            ["axes:y:0", "first:output:0", "one:output:0", "one:output:0"],
            T=tf.int32,
            Index=tf.int32,
            end_mask=1,
        ),
        make_node(
            "factors", "Reshape", ["factor:output:0", "from_channel_axis:output:0"], T=tf.float32, Tshape=tf.int32
        ),
        make_node("product", "Mul", ["accumulator:output:0", "factors:output:0"], T=tf.float32),
    ]
    result = "product:z:0"
    if float16:
        body += [
            make_node("half", "Cast", [result], SrcT=tf.float32, DstT=tf.float16),
            make_node("rounded", "Cast", ["half:y:0"], SrcT=tf.float16, DstT=tf.float32),
        ]
        result = "rounded:y:0"
    attrs = {"T": _T, "ksize": ("list(int)", [1, 1]), "data_format": ("string", "NHWC")}
    return _function(DEQUANT, {"x": tf.float32, "deq_scale": tf.uint64}, attrs, body, result)


def _ascend_anti_quant() -> function_pb2.FunctionDef:
    """``x * scale`` with ``scale = scale_d``.

    The NPU computes ``(x + offset) * scale``, of an ``x`` with the zero point in it; it is taken off already in what an
    AscendQuant of this library yields.
    """
    body = [
        _minus_one(),
        *_float_attribute("scale"),
        make_node("product", "Mul", ["x", "scale:y:0"], T=tf.float32),
    ]
    attrs = {"T": _T, "scale": ("float", 1.0), "offset": ("float", 0.0)}
    return _function(ANTI_QUANT, {"x": tf.float32}, attrs, body, "product:z:0")


def function_library(
    bits: Collection[int] = (INT8_BITS,), op_types: Collection[str] | None = None
) -> function_pb2.FunctionDefLibrary:
    """Returns the functions that a graph with Ascend nodes needs in its ``library``.

    Args:
        bits: those of its quantizers; without any of 16, the functions are those of earlier versions.
        op_types: those of its nodes, of which some need no function; None for all functions.
    """
    functions = [_ascend_quant(bits), _ascend_weight_quant(), _ascend_dequant(), _ascend_anti_quant()]
    needed = (each for each in functions if op_types is None or each.signature.name in op_types)
    return function_pb2.FunctionDefLibrary(function=needed)


def with_float16_values(graph_def: GraphDef) -> GraphDef:
    """Returns a quantized graph whose AscendDequants round what they yield to float16, as those of Ascend 910B do.

    Values beyond 65504 become infinite.
    """
    rounded = GraphDef()
    rounded.CopyFrom(graph_def)
    for function in rounded.library.function:
        if function.signature.name == DEQUANT:
            function.CopyFrom(_ascend_dequant(float16=True))
    return rounded


def quant_node(name: str, tensor: str, scale_d: float, offset_d: int, num_bits: int = INT8_BITS) -> NodeDef:
    """Makes an AscendQuant node; its ``scale`` attribute is ``1 / scale_d`` in float32."""
    scale = float(np.float32(1) / np.float32(scale_d))
    node = make_node(name, QUANT, [tensor], T=tf.float32, quant_bits=num_bits, scale=scale, offset=float(offset_d))
    if num_bits != INT8_BITS:  # what is missing is INT8, and early versions of the op do not know the attribute
        node.attr[_TYPE].CopyFrom(attr_value(type_name(num_bits)))
    return node


def anti_quant_node(name: str, tensor: str, scale_d: float, offset_d: int) -> NodeDef:
    """Makes an AscendAntiQuant node, which brings the output of an AscendQuant back to values.

    Its ``offset`` is what the NPU adds: minus that of the AscendQuant.
    """
    scale, offset = float(np.float32(scale_d)), float(-offset_d)
    return make_node(name, ANTI_QUANT, [tensor], T=tf.float32, scale=scale, offset=offset)


def weight_quant_node(name: str, weights: str, offsets: str) -> NodeDef:
    """Makes an AscendWeightQuant node from int8 weights and their int8 offsets."""
    return make_node(name, WEIGHT_QUANT, [weights, offsets], T=tf.float32)


def dequant_node(name: str, tensor: str, deq_scale: str, ksize: Sequence[int], data_format: str) -> NodeDef:
    """Makes an AscendDequant node; ``deq_scale`` names a uint64 tensor made by ``pack_deq_scale``."""
    return make_node(name, DEQUANT, [tensor, deq_scale], T=tf.float32, ksize=ksize, data_format=data_format)


def pack_deq_scale(deq_scale: np.ndarray) -> np.ndarray:
    """Packs float32 scales, shape [Cout] or [1], into the low words of uint64 (spec section 8.2)."""
    return deq_scale.astype(np.float32).view(np.uint32).astype(np.uint64)


def deq_scale_node(name: str, deq_scale: np.ndarray) -> NodeDef:
    """Makes a Const of packed scales, float32 [Cout] or [1].

    It lists them as numbers, which takes 5 bytes each: the content of the tensor would take 8, half of them zeros.
    """
    words = pack_deq_scale(deq_scale)
    tensor = TensorProto(
        dtype=DT_UINT64, tensor_shape=tf.TensorShape(words.shape).as_proto(), uint64_val=words.tolist()
    )
    return make_node(name, "Const", (), dtype=tf.uint64, value=Attr(tensor=tensor))


def unpack_deq_scale(words: np.ndarray) -> np.ndarray:
    """Returns the float32 scales in the low words of what an AscendDequant reads (spec section 8.2)."""
    return np.asarray((words & 0xFFFFFFFF).astype(np.uint32).view(np.float32))
