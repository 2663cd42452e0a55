"""The table of ops: a row for each op type of which anything is known, and how to ask it.

An op type's row holds its traits (``traits``). What an op type that can be quantized needs has a file of its own.
"""

from collections.abc import Mapping
from functools import cache
from typing import TypeAlias, TypeVar

from amct_tensorflow.ops import affine, channels, clips, factors_of_arithmetic, factors_of_moves, per_image
from amct_tensorflow.ops.channel_factors import AsksForShape
from amct_tensorflow.ops.channels import ChannelMove
from amct_tensorflow.ops.conv2d_transpose import CONV2D_TRANSPOSE
from amct_tensorflow.ops.convolution import CONV2D, CONV3D
from amct_tensorflow.ops.depthwise_conv2d import DEPTHWISE_CONV2D
from amct_tensorflow.ops.fused import FUSED
from amct_tensorflow.ops.matrix_product import BATCH_MATMUL, BATCH_MATMUL_V2, MATMUL
from amct_tensorflow.ops.pooling import AVG_POOL, POOLING, REDUCTION
from amct_tensorflow.ops.quantizable import Quantizable
from amct_tensorflow.ops.traits import (
    BatchNorm,
    Call,
    Chance,
    Concatenation,
    ControlFlow,
    Conversion,
    Convolution,
    DealsOut,
    Elementwise,
    FakeQuantizer,
    Fed,
    Identity,
    IntegerKernel,
    Iterator,
    Lookup,
    Moves,
    Observer,
    PutsTogether,
    QuantizableInputs,
    Quantized,
    ReadsVariable,
    Reference,
    Root,
    RunsPython,
    RunState,
    Sum,
    Variable,
    WritesVariable,
)
from amct_tensorflow.ops.unquantized import UNQUANTIZED

Row: TypeAlias = tuple[object, ...]
_Trait = TypeVar("_Trait")

_UNARY: Row = (Elementwise(), per_image.OF_DATA)
_UNARY_OF_ZERO: Row = (Elementwise(keeps_zero=True), per_image.OF_DATA)
_BINARY: Row = (Elementwise(operands=2), per_image.BROADCAST)
_IDENTITY: Row = (Identity(), *_UNARY_OF_ZERO, Moves(keeps_order=True), factors_of_moves.ALIKE)
_CONVOLUTION: Row = (Convolution(), per_image.WINDOWS)
_SUM: Row = (*_BINARY, Sum(), affine.ADDITION, factors_of_arithmetic.TERMS, QuantizableInputs(2))
_BATCH_NORM: Row = (
    Elementwise(), BatchNorm(), affine.NORMALIZATION, factors_of_arithmetic.BATCH_NORM, per_image.NORMALIZATION,
)  # fmt: skip
_BIAS: Row = (*_UNARY, affine.BIAS, factors_of_arithmetic.BIAS)
_REDUCTION: Row = (REDUCTION, per_image.REDUCTION)
_RESIZING: Row = (factors_of_moves.RESIZING, per_image.OF_DATA)
_PADDING: Row = (factors_of_moves.PADDING, per_image.PADDING)
_CUSTOM = Quantized(is_custom=True)
_RESHAPE = Moves(keeps_order=True)

TABLE: dict[str, Row] = {
    # Layers; configurations and messages have them in this order.
    "Conv2D": (CONV2D, *_CONVOLUTION, IntegerKernel.CONVOLUTION),
    "DepthwiseConv2dNative": (DEPTHWISE_CONV2D, *_CONVOLUTION, IntegerKernel.DEPTHWISE_CONVOLUTION),
    "MatMul": (MATMUL, IntegerKernel.MATRIX_PRODUCT, factors_of_arithmetic.MATRICES, per_image.PRODUCT),
    "AvgPool": (AVG_POOL, POOLING, per_image.WINDOWS),
    "Conv2DBackpropInput": (CONV2D_TRANSPOSE,),
    "Conv3D": (CONV3D, *_CONVOLUTION),
    "BatchMatMul": (BATCH_MATMUL, factors_of_arithmetic.MATRICES),
    "BatchMatMulV2": (BATCH_MATMUL_V2, factors_of_arithmetic.MATRICES),
    **{name: (each,) for name, each in UNQUANTIZED.items()},
    "Einsum": (UNQUANTIZED["Einsum"], factors_of_arithmetic.EINSUM),
    **{name: (*((UNQUANTIZED[name],) if name in UNQUANTIZED else ()), each) for name, each in FUSED.items()},
    # Pooling and sums over axes.
    "MaxPool": (Moves(), POOLING, QuantizableInputs(1), per_image.WINDOWS),
    "Max": _REDUCTION,
    "Mean": _REDUCTION,
    "Sum": _REDUCTION,
    # Means of neighbours.
    "ResizeBilinear": _RESIZING,
    "ResizeNearestNeighbor": _RESIZING,
    "ResizeBicubic": _RESIZING,
    # What computes each value by itself.
    "FusedBatchNorm": _BATCH_NORM,
    "FusedBatchNormV2": _BATCH_NORM,
    "FusedBatchNormV3": _BATCH_NORM,
    "BiasAdd": _BIAS,
    "BiasAddV1": _BIAS,
    "Add": _SUM,
    "AddV2": _SUM,
    "Sub": (*_BINARY, affine.SUBTRACTION, factors_of_arithmetic.TERMS),
    "Mul": (*_BINARY, affine.PRODUCT, factors_of_arithmetic.PRODUCT),
    "RealDiv": (*_BINARY, affine.QUOTIENT, factors_of_arithmetic.QUOTIENT),
    "Maximum": (*_BINARY, clips.MAXIMUM, factors_of_arithmetic.TERMS),
    "Minimum": (*_BINARY, clips.MINIMUM, factors_of_arithmetic.TERMS),
    "ClipByValue": (clips.BY_VALUE,),
    "Pow": _BINARY,
    "SquaredDifference": _BINARY,
    "Relu": (*_UNARY_OF_ZERO, clips.RELU, factors_of_moves.ALIKE),
    "Relu6": (*_UNARY_OF_ZERO, clips.RELU6),
    "LeakyRelu": (*_UNARY_OF_ZERO, factors_of_moves.ALIKE),
    "Abs": (*_UNARY_OF_ZERO, factors_of_moves.ALIKE),
    "Elu": _UNARY_OF_ZERO,
    "Selu": _UNARY_OF_ZERO,
    "Tanh": _UNARY_OF_ZERO,
    "Erf": _UNARY,
    "Erfc": _UNARY,
    "Exp": _UNARY,
    "Floor": _UNARY,
    "Log": _UNARY,
    "Neg": (*_UNARY, factors_of_moves.ALIKE),
    "Round": _UNARY,
    "Rsqrt": (*_UNARY, Root()),
    "Sigmoid": _UNARY,
    "Softplus": _UNARY,
    "Softsign": _UNARY,
    "Sqrt": (*_UNARY, Root()),
    "Square": _UNARY,
    # What moves values.
    "Identity": _IDENTITY,
    "IdentityN": (Identity(all_inputs=True),),
    "PreventGradient": _IDENTITY,
    "Snapshot": _IDENTITY,
    "StopGradient": _IDENTITY,
    "EnsureShape": (_RESHAPE, ChannelMove(channels.alike), factors_of_moves.ALIKE),
    "ExpandDims": (_RESHAPE, ChannelMove(channels.expand_dims), factors_of_moves.RESHAPE),
    "Reshape": (_RESHAPE, ChannelMove(channels.reshape), factors_of_moves.RESHAPE, per_image.RESHAPE),
    "Squeeze": (_RESHAPE, ChannelMove(channels.squeeze), factors_of_moves.RESHAPE, per_image.SQUEEZE),
    "Transpose": (Moves(), ChannelMove(channels.transpose), factors_of_moves.TRANSPOSE),
    "BatchToSpace": (Moves(), PutsTogether(), ChannelMove(channels.batch_to_space), factors_of_moves.DEALING),
    "BatchToSpaceND": (Moves(), PutsTogether(), ChannelMove(channels.batch_to_space_nd), factors_of_moves.DEALING),
    "SpaceToBatch": (Moves(), DealsOut(), factors_of_moves.DEALING),
    "SpaceToBatchND": (Moves(), DealsOut(), factors_of_moves.DEALING),
    "DepthToSpace": (Moves(),),
    "SpaceToDepth": (Moves(),),
    "Slice": (Moves(), factors_of_moves.SLICE),
    "StridedSlice": (Moves(), factors_of_moves.STRIDED_SLICE),
    "Pad": (Moves(), *_PADDING),
    "PadV2": _PADDING,
    "MirrorPad": _PADDING,
    "Split": (factors_of_moves.SPLIT,),
    "SplitV": (factors_of_moves.SPLIT,),
    "Unpack": (factors_of_moves.SPLIT,),
    "ConcatV2": (Concatenation(), factors_of_moves.CONCATENATION, per_image.CONCATENATION),
    # What looks parts up by index.
    "Gather": (Lookup(),),
    "GatherV2": (Lookup(axis_input=2),),
    "GatherNd": (Lookup(by_coordinates=True),),
    # What changes the type of values.
    "Cast": (Conversion(),),
    # What looks at values.
    "Assert": (Observer.CHECK,),
    "CheckNumerics": (*_IDENTITY, Observer.CHECK),
    "CheckNumericsV2": (*_IDENTITY, Observer.CHECK),
    "Print": (*_IDENTITY, Observer.MESSAGE),
    "PrintV2": (Observer.MESSAGE,),
    # Where values come from.
    "Placeholder": (Fed(),),
    "PlaceholderV2": (Fed(),),
    "PlaceholderWithDefault": (Fed(has_default=True),),
    "Multinomial": (Chance(),),
    "ParameterizedTruncatedNormal": (Chance(),),
    "RandomGamma": (Chance(),),
    "RandomPoissonV2": (Chance(),),
    "RandomShuffle": (Chance(),),
    "RandomStandardNormal": (Chance(),),
    "RandomUniform": (Chance(),),
    "RandomUniformInt": (Chance(),),
    "TruncatedNormal": (Chance(),),
    "Variable": (Variable(by_reference=True),),
    "VariableV2": (Variable(by_reference=True),),
    "VarHandleOp": (Variable(),),
    "ReadVariableOp": (ReadsVariable(),),
    # What asks for shapes.
    "Shape": (AsksForShape(),),
    "ShapeN": (AsksForShape(),),
    "Size": (AsksForShape(),),
    "Rank": (AsksForShape(),),
    "ZerosLike": (AsksForShape(),),
    "OnesLike": (AsksForShape(),),
    # Branches, loops and functions.
    "Switch": (ControlFlow.SWITCH,),
    "Merge": (ControlFlow.MERGE,),
    "Enter": (ControlFlow.ENTER,),
    "Exit": (ControlFlow.EXIT,),
    "NextIteration": (ControlFlow.NEXT_ITERATION,),
    "LoopCond": (ControlFlow.LOOP_CONDITION,),
    "RefSwitch": (ControlFlow.SWITCH, Reference("Switch")),
    "RefMerge": (ControlFlow.MERGE, Reference("Merge")),
    "RefEnter": (ControlFlow.ENTER, Reference("Enter")),
    "RefExit": (ControlFlow.EXIT, Reference("Exit")),
    "RefNextIteration": (ControlFlow.NEXT_ITERATION, Reference("NextIteration")),
    "RefIdentity": (ReadsVariable(), Reference("Identity")),
    "PartitionedCall": (Call.DIRECT,),
    "StatefulPartitionedCall": (Call.DIRECT,),
    "If": (Call.IF,),
    "StatelessIf": (Call.IF,),
    "Case": (Call.CASE,),
    "StatelessCase": (Call.CASE,),
    "While": (Call.WHILE,),
    "StatelessWhile": (Call.WHILE,),
    "EagerPyFunc": (RunsPython(),),
    "PyFunc": (RunsPython(),),
    "PyFuncStateless": (RunsPython(),),
    # Lists that each run fills anew.
    "TensorArray": (RunState(makes=True),),
    "TensorArrayV2": (RunState(makes=True),),
    "TensorArrayV3": (RunState(makes=True),),
    "Stack": (RunState(makes=True),),
    "StackV2": (RunState(makes=True),),
    # What quantizes.
    "FakeQuantWithMinMaxArgs": (FakeQuantizer(to_range=True),),
    "FakeQuantWithMinMaxVars": (FakeQuantizer(to_range=True),),
    "FakeQuantWithMinMaxVarsPerChannel": (FakeQuantizer(to_range=True),),
    "AscendQuant": (_CUSTOM, *_UNARY_OF_ZERO),
    "AscendDequant": (_CUSTOM, *_UNARY),
    "AscendAntiQuant": (_CUSTOM, *_UNARY),
    "AscendWeightQuant": (_CUSTOM,),
    "QuantIfmr": (_CUSTOM,),
    "QuantArq": (_CUSTOM,),
    "SearchN": (_CUSTOM,),
}

# Rows of all op types that begin so, and have none of their own.
FAMILIES: dict[str, Row] = {
    "IteratorGetNext": (Iterator(),),
    "TensorArray": (RunState(takes_flow=True),),
    "Stack": (RunState(),),
    "Assign": (WritesVariable(),),
    "ResourceApply": (WritesVariable(),),
    "ResourceScatter": (WritesVariable(),),
    "Rng": (WritesVariable(),),
    "ScatterAdd": (WritesVariable(),),
    "ScatterSub": (WritesVariable(),),
    "ScatterUpdate": (WritesVariable(),),
    "FakeQuantWithMinMax": (FakeQuantizer(),),
    "QuantizeAndDequantize": (FakeQuantizer(),),
    "QuantizedConv2D": (Quantized(),),
    "QuantizedDepthwiseConv2D": (Quantized(),),
    "QuantizedMatMul": (Quantized(),),
    "_FusedQuantized": (Quantized(),),
    "UniformQuant": (Quantized(),),
}


@cache
def row(op: str) -> Row:
    """Returns the traits of an op type; none if nothing is known of it."""
    families = (each for prefix, each in FAMILIES.items() if op.startswith(prefix))
    return TABLE.get(op) or next(families, ())


def trait(op: str, kind: type[_Trait]) -> _Trait | None:
    """Returns the trait of a kind that an op type has; None if it is not known to have one."""
    return next((each for each in row(op) if isinstance(each, kind)), None)


def has(op: str, kind: type) -> bool:
    """Tells whether an op type is known to have a trait of a kind."""
    return trait(op, kind) is not None


def op_types_with(kind: type[_Trait]) -> Mapping[str, _Trait]:
    """Returns the op types that have a trait of a kind, with it, in the order of the table."""
    found = ((op, trait(op, kind)) for op in TABLE)
    return {op: each for op, each in found if each is not None}


# The op types that can be quantized (spec section 10).
OP_TYPES: Mapping[str, Quantizable] = op_types_with(Quantizable)
