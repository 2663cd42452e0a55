"""The rules by which a model is checked for an Ascend NPU, one row each.

None of them was tried with ATC or on an NPU. Each row says where the rule comes from, and of which year that is.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from amct_tensorflow.devices import graph_rules as graph
from amct_tensorflow.devices import quantization_rules as quantization
from amct_tensorflow.devices.examined_graph import ExaminedGraph
from amct_tensorflow.devices.graph_rules import Hit


class Level(Enum):
    """How serious a finding is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Evidence:
    """Where a rule comes from.

    Attributes:
        certainty: how sure it is.
        source: what was read.
        year: of which year that is.
    """

    certainty: str
    source: str
    year: int


CURRENT = Evidence("read in current source", "hicann/ge ffdcbc9 and hicann/ops-nn e5c3fa9", 2026)
DOCUMENTED = Evidence("documented", "documentation of CANN 8.x to 9.2", 2026)
OLD = Evidence("read in old source, passes of today may differ", "a copy of ops and passes of about 2022", 2022)


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes:
        id: its name.
        level: how serious it is to break it.
        text: the rule, as a sentence.
        remedy: what to do about a node that breaks it.
        evidence: where it comes from, the best first.
        find: returns the nodes that break it.
    """

    id: str
    level: Level
    text: str
    remedy: str
    evidence: tuple[Evidence, ...]
    find: Callable[[ExaminedGraph], Iterable[Hit]]


_QUANTIZE_AGAIN = "Quantize the float model again, and do not change the result."

RULES: tuple[Rule, ...] = (
    # Of ATC's parser.
    Rule("duplicate-name", Level.ERROR, "Names of nodes are unique (E13009).",
         "Freeze the model again.", (CURRENT, DOCUMENTED), graph.doubled_names),
    Rule("input-type", Level.ERROR, "Inputs are float16, float32, uint8, int32, int64 or bool.",
         "Feed another type, and cast it in the model.", (CURRENT, DOCUMENTED), graph.input_types),
    Rule("empty-input", Level.ERROR, "No axis of an input has the length 0.",
         "Give the input its real shape (--input_shape).", (CURRENT, DOCUMENTED), graph.empty_axes),
    Rule("explicit-depthwise-padding", Level.ERROR, "Depthwise convolutions do not pad with EXPLICIT.",
         "Put a Pad before it, and let it pad with VALID.", (OLD,), graph.explicit_depthwise_paddings),
    Rule("op-type", Level.WARNING,
         "Each op type has a plug-in or an IR (E10501, E13010); this one is in no public list.",
         "Ask ATC, or write the model without it.", (CURRENT, OLD), graph.unlisted_types),
    Rule("function", Level.WARNING, "Functions of the model are read only for control flow and calls.",
         "Freeze the model with its functions inlined; quantization does so, too.", (CURRENT,), graph.function_calls),
    Rule("name-of-op-type", Level.WARNING, "A node named as its op type is taken for a call if the type has no IR.",
         "Give the node another name.", (CURRENT,), graph.names_of_op_types),
    Rule("layout", Level.WARNING, "The layout is that of the first data_format met, but for BiasAdd.",
         "Write the whole model in one layout.", (CURRENT, DOCUMENTED), graph.several_layouts),
    Rule("open-shape", Level.WARNING, "A quantized model takes no dynamic shapes.",
         "Give every length with --input_shape, here and to ATC.", (DOCUMENTED,), graph.open_lengths),
    # Of the ops of quantization.
    Rule("quantizer-attributes", Level.ERROR,
         "AscendQuant has floats scale and offset, and dst_type INT8, INT4 or INT16.",
         _QUANTIZE_AGAIN, (CURRENT,), quantization.quantizer_attributes),
    Rule("int16-quantizer", Level.WARNING, "Activations of INT16 run on IPV350 alone.",
         "Give the layer 8 bits, or leave it in float, for any other chip.", (DOCUMENTED,),
         quantization.wide_quantizers),
    Rule("quantizer-type", Level.ERROR, "AscendQuant reads float16 or float32.",
         "Cast what it reads.", (CURRENT,), quantization.quantizer_types),
    Rule("weight-quantizer", Level.ERROR, "AscendWeightQuant reads constants of int8.",
         _QUANTIZE_AGAIN, (CURRENT,), quantization.weight_quantizers),
    Rule("anti-quantizer-offset", Level.ERROR, "AscendAntiQuant holds minus the offset of its AscendQuant.",
         "Quantize again with this version; earlier ones, and other tools, wrote plus.", (CURRENT,),
         quantization.anti_quantizer_offsets),
    Rule("deq-scale-kind", Level.ERROR, "deq_scale of AscendDequant is a Const of uint64 or float16.",
         _QUANTIZE_AGAIN, (CURRENT,), quantization.scale_kinds),
    Rule("deq-scale-rank", Level.ERROR,
         "deq_scale of AscendDequant has rank 1, or there is no model; but for the oldest and some embedded chips.",
         "Give it the shape [1] or [channels].", (CURRENT, OLD), quantization.scale_ranks),
    Rule("deq-scale-shift", Level.WARNING,
         "Bits 32 to 39 of deq_scale are a shift, which the simulation does not know.",
         "Write 0 there.", (CURRENT, OLD), quantization.shifted_scales),
    Rule("sqrt-mode", Level.NOTE, "With a scale of AscendQuant outside of [2^-14, 65504] GE uses sqrt_mode.",
         "Nothing has to be done; fakequant_precision_mode FORCE_FP16_QUANT rounds scales.", (DOCUMENTED,),
         quantization.scales_out_of_range),
    # Of the chains of nodes that GE's passes recognize.
    Rule("behind-layer", Level.ERROR, "Between a layer and its AscendDequant stands nothing but a BiasAdd.",
         "Move the node behind the AscendDequant.", (OLD, DOCUMENTED), quantization.nodes_behind_layers),
    Rule("before-layer", Level.ERROR,
         "A layer reads its AscendQuant; a Pad may stand between before Conv2D and DepthwiseConv2dNative.",
         "Move the node before the AscendQuant.", (OLD, DOCUMENTED), quantization.nodes_before_layers),
    Rule("float-weights", Level.ERROR, "The weights of a quantized layer come from an AscendWeightQuant.",
         _QUANTIZE_AGAIN, (OLD, DOCUMENTED), quantization.float_weights),
    Rule("stray-quantizer", Level.ERROR, "What reads an AscendQuant ends in an AscendDequant or an AscendAntiQuant.",
         "Let the node read what the AscendQuant reads.", (OLD, DOCUMENTED), quantization.stray_readers),
    Rule("computed-bias", Level.ERROR, "The bias of a quantized layer is a float Const, or Cast of an int32 Const.",
         "Compute the bias beforehand, or add it behind the AscendDequant.", (OLD,), quantization.computed_biases),
    Rule("fractional-bias", Level.WARNING, "Each value of the bias is truncated to int32.",
         "Round the bias to whole numbers.", (OLD,), quantization.fractional_biases),
    Rule("product-bias", Level.WARNING, "Whether a BiasAdd behind BatchMatMul is recognized is uncertain; an Add is.",
         "Compare a layer on the device, or leave it in float.", (OLD,), quantization.uncertain_biases),
    Rule("barrier", Level.WARNING, "A Snapshot stands in a chain; whether it is taken out before chains are looked for "
         "is not known.",
         "Compare the layer on the device, or leave it in float.", (OLD,), quantization.barriers_in_chains),
    Rule("transposed-product", Level.ERROR, "A quantized MatMul takes no operand transposed.",
         "Transpose the weights beforehand; quantization does.", (OLD,), quantization.transposed_products),
    Rule("computed-size", Level.ERROR, "The input_size of a quantized Conv2DBackpropInput is a Const: else it has no "
         "int8 kernel.",
         "Fix the size, batch included, or leave the layer in float, as runs for this device do.", (OLD,),
         quantization.computed_sizes),
    Rule("computed-operands", Level.WARNING,
         "Products of two computed operands are documented for BatchMatMul; of MatMul they are not known.",
         "Write it as a BatchMatMul, or leave it in float.", (DOCUMENTED,), quantization.computed_operands),
    Rule("operand-offset", Level.ERROR, "Both operands of a product of computed values are symmetric.",
         "Calibrate the inputs of this layer without zero points.", (DOCUMENTED,), quantization.offset_operands),
    Rule("unknown-channels", Level.WARNING, "GE corrects a zero point only where it knows the number of channels "
         "statically; elsewhere results are off.",
         "Fix the shape of what the layer reads, or calibrate it without a zero point, as runs for this device do.",
         (OLD,), quantization.unknown_channels),
    Rule("float16-range", Level.WARNING, "AscendDequant yields float16 on 910B: values beyond 65504 overflow.",
         "Leave the layer in float, or scale the model.", (CURRENT,), quantization.values_beyond_float16),
    # Of what GE undoes, without a word.
    Rule("few-channels", Level.NOTE, "Convolutions whose static input has at most 16 channels run in fp16 (but perhaps "
         "the first one with AIPP on 310P and 310B).",
         "Leave the layer in float, which costs nothing there: runs for this device do.", (OLD,),
         quantization.layers_of_few_channels),
    Rule("unfit-pooling", Level.NOTE,
         "AvgPool runs in fp16 if its output is 1 wide, a stride is above 63, or its window has more than 255 places "
         "and a side of 20 or more.",
         "Leave the layer in float, which costs nothing there: runs for this device do.", (OLD,),
         quantization.unfit_poolings),
)  # fmt: skip
# Rules of layers that run in fp16 although they are quantized.
UNDOING = ("few-channels", "unfit-pooling")
