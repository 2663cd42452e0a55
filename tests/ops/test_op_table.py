"""The table of ops is true of TensorFlow's kernels, and no other file keeps a list of op types of its own."""

import ast
from functools import cache

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from graphs import normal, tf1
from tensorflow.python.framework import op_def_registry

from amct_tensorflow.graph.nodes import BARRIER
from amct_tensorflow.ops import OP_TYPES, UNQUANTIZED, has, op_types_with, trait
from amct_tensorflow.ops.affine import PerChannelAffine
from amct_tensorflow.ops.channels import ChannelMove
from amct_tensorflow.ops.clips import Clips
from amct_tensorflow.ops.fused import Fused
from amct_tensorflow.ops.op_table import FAMILIES, TABLE, row
from amct_tensorflow.ops.traits import (
    Chance,
    Concatenation,
    Convolution,
    Elementwise,
    Identity,
    Moves,
    Quantized,
    Sum,
)
from amct_tensorflow.quantize.quantized import ascend_ops

raw = tf.raw_ops
ALONG = [0, 0]


def normalized(op):
    def make(x):
        vectors = [normal((4,), seed) for seed in range(3)]
        return op(x=x, scale=vectors[0], offset=vectors[1], mean=vectors[2], variance=np.ones(4, np.float32),
                  is_training=False)[0]  # fmt: skip

    return make


# Every op type that computes something of an image and constants, so that it can be tried: from data [n, 6, 6, 4].
MAKERS = {
    "Conv2D": lambda x: tf.nn.conv2d(x, normal((3, 3, 4, 5)), 1, "SAME"),
    "DepthwiseConv2dNative": lambda x: tf.nn.depthwise_conv2d(x, normal((3, 3, 4, 1)), [1] * 4, "SAME"),
    "Conv3D": lambda x: tf.nn.conv3d(x[..., tf.newaxis], normal((2, 2, 2, 1, 3)), [1] * 5, "SAME"),
    "MatMul": lambda x: tf.matmul(tf.reshape(x, [-1, 144]), normal((144, 3))),
    "AvgPool": lambda x: tf.nn.avg_pool2d(x, 2, 2, "SAME"),
    "MaxPool": lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID"),
    "Max": lambda x: raw.Max(input=x, axis=[1, 2]),
    "Mean": lambda x: raw.Mean(input=x, axis=[1, 2]),
    "Sum": lambda x: raw.Sum(input=x, axis=[1, 2]),
    "FusedBatchNorm": normalized(raw.FusedBatchNorm),
    "FusedBatchNormV2": normalized(raw.FusedBatchNormV2),
    "FusedBatchNormV3": normalized(raw.FusedBatchNormV3),
    "BiasAdd": lambda x: raw.BiasAdd(value=x, bias=normal((4,))),
    "BiasAddV1": lambda x: raw.BiasAddV1(value=x, bias=normal((4,))),
    **{op: lambda x, op=op: getattr(raw, op)(x=x, y=np.full(4, 2, np.float32))
       for op in ("Add", "AddV2", "Sub", "Mul", "RealDiv", "Maximum", "Minimum", "Pow", "SquaredDifference")},
    **{op: lambda x, op=op: getattr(raw, op)(features=x)
       for op in ("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Softplus", "Softsign")},
    **{op: lambda x, op=op: getattr(raw, op)(x=x)
       for op in ("Abs", "Tanh", "Erf", "Erfc", "Exp", "Floor", "Log", "Neg", "Round", "Rsqrt", "Sigmoid", "Sqrt",
                  "Square")},
    **{op: lambda x, op=op: getattr(raw, op)(input=x) for op in ("Identity", "Snapshot", "StopGradient")},
    "PreventGradient": lambda x: raw.PreventGradient(input=x),
    "IdentityN": lambda x: raw.IdentityN(input=[x, x])[0],
    "CheckNumerics": lambda x: raw.CheckNumerics(tensor=x, message=""),
    "CheckNumericsV2": lambda x: raw.CheckNumericsV2(tensor=x, message=""),
    "Print": lambda x: raw.Print(input=x, data=[]),
    "ClipByValue": lambda x: tf1.raw_ops.ClipByValue(t=x, clip_value_min=-1.0, clip_value_max=2.0),
    "EnsureShape": lambda x: raw.EnsureShape(input=x, shape=[None, 6, 6, 4]),
    "ExpandDims": lambda x: raw.ExpandDims(input=x, axis=1),
    "Reshape": lambda x: raw.Reshape(tensor=x, shape=[-1, 36, 4]),
    "Squeeze": lambda x: raw.Squeeze(input=tf.reshape(x, [-1, 36, 1, 4]), axis=[2]),
    "Transpose": lambda x: raw.Transpose(x=x, perm=[0, 2, 1, 3]),
    "BatchToSpace": lambda x: raw.BatchToSpace(input=x, crops=[ALONG] * 2, block_size=2),
    "BatchToSpaceND": lambda x: raw.BatchToSpaceND(input=x, block_shape=[2, 2], crops=[ALONG] * 2),
    "SpaceToBatch": lambda x: raw.SpaceToBatch(input=x, paddings=[[1, 1]] * 2, block_size=2),
    "SpaceToBatchND": lambda x: raw.SpaceToBatchND(input=x, block_shape=[2, 2], paddings=[[1, 1]] * 2),
    "DepthToSpace": lambda x: raw.DepthToSpace(input=x, block_size=2),
    "SpaceToDepth": lambda x: raw.SpaceToDepth(input=x, block_size=2),
    "Slice": lambda x: raw.Slice(input=x, begin=[0, 1, 1, 1], size=[-1, 3, 3, 2]),
    "StridedSlice": lambda x: x[:, ::2, 1:],
    "Pad": lambda x: raw.Pad(input=x, paddings=[ALONG, [1, 2], [0, 1], ALONG]),
    "ConcatV2": lambda x: raw.ConcatV2(values=[x, x], axis=3),
    "Multinomial": lambda x: raw.Multinomial(logits=x[:, 0, 0], num_samples=99),
    "ParameterizedTruncatedNormal": lambda x: raw.ParameterizedTruncatedNormal(
        shape=[99], means=0.0, stdevs=1.0, minvals=-1.0, maxvals=1.0),
    "RandomGamma": lambda x: raw.RandomGamma(shape=[99], alpha=2.0),
    "RandomPoissonV2": lambda x: raw.RandomPoissonV2(shape=[99], rate=9.0),
    "RandomShuffle": lambda x: raw.RandomShuffle(value=tf.range(99)),
    "RandomStandardNormal": lambda x: raw.RandomStandardNormal(shape=[99], dtype=tf.float32),
    "RandomUniform": lambda x: raw.RandomUniform(shape=[99], dtype=tf.float32),
    "RandomUniformInt": lambda x: raw.RandomUniformInt(shape=[99], minval=0, maxval=999),
    "TruncatedNormal": lambda x: raw.TruncatedNormal(shape=[99], dtype=tf.float32),
}  # fmt: skip
TRIED = (Elementwise, Moves, Identity, ChannelMove, Clips, PerChannelAffine, Sum,
         Concatenation, Convolution, Chance)  # fmt: skip
IMAGES = normal((4, 6, 6, 4), 1)


def of(kind, *also):
    return sorted(op for op in op_types_with(kind) if op in MAKERS and all(has(op, each) for each in also))


@cache
def session_of(op):
    """Returns a session that has an op type, and a node of it as ``out``."""
    with tf.Graph().as_default() as graph:
        tf.identity(MAKERS[op](tf1.placeholder(tf.float32, [None, 6, 6, 4], name="x")), name="out")
    assert op in {operation.type for operation in graph.get_operations()}
    return tf1.Session(graph=graph)


def compute(op, images):
    """Returns what an op type makes of images, [n, 6, 6, 4]."""
    return session_of(op).run("out:0", {"x:0": np.asarray(images, np.float32)})


def test_what_can_be_tried_is_tried():
    named = {op for kind in TRIED for op in op_types_with(kind) if not has(op, Quantized)}
    assert named - MAKERS.keys() == set()


def test_rows_are_of_ops_of_tensorflows():
    own = {op for op in TABLE if not op.startswith("_") and not has(op, Quantized) and not has(op, Fused)}
    assert [op for op in own if op_def_registry.get(op) is None] == []
    assert BARRIER in op_types_with(Identity)


def test_ops_of_quantizers_have_rows():
    names = {ascend_ops.QUANT, ascend_ops.DEQUANT, ascend_ops.WEIGHT_QUANT, ascend_ops.ANTI_QUANT}
    assert all(trait(name, Quantized).is_custom for name in names)
    assert not trait("_FusedQuantizedConv2D", Quantized).is_custom


def test_an_op_type_has_one_trait_of_a_kind():
    for op, traits in (*TABLE.items(), *FAMILIES.items()):
        kinds = [type(each) for each in traits]
        assert kinds and len(set(kinds)) == len(kinds), op


def test_a_row_of_its_own_stands_before_that_of_the_family():
    assert row("TensorArrayV3") == TABLE["TensorArrayV3"]
    assert row("TensorArrayReadV3") == FAMILIES["TensorArray"]
    assert row("NoOp") == () and not has("NoOp", Identity)


def test_what_can_be_quantized_is_not_said_to_be_unquantized():
    assert OP_TYPES.keys().isdisjoint(UNQUANTIZED) and OP_TYPES.keys() | UNQUANTIZED.keys() <= TABLE.keys()


@pytest.mark.parametrize("op", of(Identity))
def test_an_identity_yields_what_it_reads(op):
    np.testing.assert_array_equal(compute(op, IMAGES), IMAGES)


@pytest.mark.parametrize("op", of(Chance))
def test_what_is_drawn_is_another_in_each_run(op):
    assert np.any(compute(op, IMAGES) != compute(op, IMAGES))


@pytest.mark.parametrize("op", of(Elementwise))
def test_an_elementwise_op_does_the_same_at_every_position(op):
    images = np.abs(IMAGES) + 0.5 if op in ("Log", "Rsqrt", "Sqrt") else IMAGES
    turned = images[::-1, ::-1, ::-1]
    np.testing.assert_allclose(compute(op, turned), compute(op, images)[::-1, ::-1, ::-1], rtol=1e-5)


@pytest.mark.parametrize("op", of(Elementwise))
def test_what_keeps_zero_makes_zero_of_it(op):
    if trait(op, Elementwise).keeps_zero:
        np.testing.assert_array_equal(compute(op, np.zeros_like(IMAGES)), 0)


@pytest.mark.parametrize("op", of(Moves))
def test_what_moves_values_yields_no_others(op):
    moved = compute(op, IMAGES)
    assert set(moved.ravel()) <= {*IMAGES.ravel(), 0}
    if trait(op, Moves).keeps_order:
        np.testing.assert_array_equal(moved.ravel(), IMAGES.ravel())


@pytest.mark.parametrize("op", of(ChannelMove))
def test_positive_factors_go_through(op):
    np.testing.assert_allclose(compute(op, 4 * IMAGES), 4 * compute(op, IMAGES), rtol=1e-6)


@pytest.mark.parametrize("op", of(PerChannelAffine))
def test_an_affine_op_scales_and_shifts_as_it_says(op):
    affine, zero = trait(op, PerChannelAffine), compute(op, np.zeros_like(IMAGES))
    scaled = compute(op, IMAGES) - zero
    assert affine.shifts == bool(np.any(zero))
    assert affine.scales == (not np.allclose(scaled, IMAGES, atol=1e-5))


# Names of op types that a file may keep together, and what they are there.
ELSEWHERE = {
    "devices/chains.py": "what GE's passes look for",
    "devices/quantization_rules.py": "what GE's passes look for",
    "export/float_reference.py": "what it writes, to clip",
    "export/onnx/onnx_forms.py": "how ONNX has the layers",
    "export/onnx/onnx_model.py": "ops of ONNX",
    "export/openvino/openvino_reading.py": "ops of OpenVINO",
    "export/tflite/tflite_forms.py": "how TensorFlow Lite has the layers",
    "export/tflite/tflite_products.py": "what its converter mistakes, and how each transposes",
    "model/preparation/affine_before_concat.py": "what it writes, to scale and to shift",
    "model/preparation/fold_constants.py": "what GraphView.constant reads",
    "model/preparation/merge_clips.py": "what it writes, to clip",
}
NAMES = frozenset(dir(raw)) | TABLE.keys() | FAMILIES.keys()


def op_types_together(source):
    """Yields the line and the names of each set, list or comparison of two op types or more that a text spells out."""
    for node in ast.walk(ast.parse(source)):
        parts = []
        if isinstance(node, (ast.Set, ast.List, ast.Tuple)):
            parts = node.elts
        elif isinstance(node, ast.Dict):
            parts = node.keys
        elif isinstance(node, ast.BoolOp):
            compared = [value for value in node.values if isinstance(value, ast.Compare)]
            same = [value for value in compared if ast.dump(value.left) == ast.dump(compared[0].left)]
            parts = [each for value in same for each in value.comparators]
        elif isinstance(node, ast.MatchOr):
            parts = [each.value for each in node.patterns if isinstance(each, ast.MatchValue)]
        names = {part.value for part in parts if isinstance(part, ast.Constant)} & NAMES
        if len(names) > 1:
            yield node.lineno, sorted(names)


def test_every_way_to_list_op_types_is_seen():
    for text in ('{"Relu", "Elu"}', '["Relu", "Elu"]', '("Relu", "x", "Elu")', '{"Relu": 1, "Elu": 2}',
                 'op == "Relu" or op == "Elu"', 'match op:\n    case "Relu" | "Elu": pass'):  # fmt: skip
        assert [names for _, names in op_types_together(text)] == [["Elu", "Relu"]], text
    assert list(op_types_together('("Relu", "x")')) == []
    assert list(op_types_together('one == "Relu" and other == "Elu"')) == []


def test_op_types_are_listed_in_the_table_alone():
    package = ROOT / "amct_tensorflow"
    files = {str(path.relative_to(package)): path for path in package.rglob("*.py")}
    found = {name: list(op_types_together(path.read_text())) for name, path in files.items()}
    listing = {name: lists for name, lists in found.items() if lists and not name.startswith("ops/")}
    assert {name: lists for name, lists in listing.items() if name not in ELSEWHERE} == {}
    assert ELSEWHERE.keys() - listing.keys() == set()
