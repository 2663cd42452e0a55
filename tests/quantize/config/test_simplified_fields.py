"""Every field of the simplified configuration: what it does, or why it is refused."""

import re

import pytest

from amct_tensorflow.errors import ConfigValueError
from amct_tensorflow.model.layers import LayerSpec
from amct_tensorflow.quantize.algorithms.hfmg import Hfmg
from amct_tensorflow.quantize.algorithms.ifmr import Ifmr
from amct_tensorflow.quantize.config.json_file import dump_config, parse_config
from amct_tensorflow.quantize.config.schema import ActivationConfig
from amct_tensorflow.quantize.config.simplified import parse_simplified
from amct_tensorflow.quantize.config.simplified_message import new_config

CONV, DEPTHWISE, FC, POOL = (
    LayerSpec("conv", "Conv2D", True),
    LayerSpec("depthwise", "DepthwiseConv2dNative", True),
    LayerSpec("fc", "MatMul", True),
    LayerSpec("pool", "AvgPool", False),
)
LAYERS = [CONV, DEPTHWISE, FC, POOL]
OPS = {layer.name: layer.op_type for layer in LAYERS} | {"add": "AddV2", "sum": "AddV2", "relu": "Relu"}
OURS = {
    "bias_correction", "weight_rounding", "range_refinement", "input_balancing", "weight_compress_only",
    "quantize_products",
}  # fmt: skip


def read(text):
    return parse_simplified(text, "net.cfg", LAYERS, OPS)


def common(text):
    return f"common_config : {{ {text} }}"


def algorithm(config, name="conv"):
    return config.layers[name].activation.algorithm


def enabled(config):
    return config.enabled_layers()


def wise(config):
    return {name: layer.weights.channel_wise for name, layer in config.layers.items()}


def asymmetric(config):
    return {layer.activation.asymmetric for layer in config.layers.values()}


def bits(config):
    return {layer.activation.num_bits for layer in config.layers.values()}


def asymmetric_fc(config):
    return config.layers["fc"].activation.asymmetric


def tensor(config):
    return [(each.key, each.activation) for each in config.tensor_quantize]


OVERRIDE_TYPE = 'override_layer_types : { layer_type : "MatMul" calibration_config : { %s } }'
OVERRIDE = 'override_layer_configs : { layer_name : "fc" calibration_config : { %s } }'
TENSOR = 'tensor_quantize : { layer_name : "add" input_index : 1 %s }'

# Per field a text, and what it makes of the configuration: whatever is asked, and the answer.
EFFECTS = {
    "AMCTConfig.batch_num": ("batch_num : 3", lambda config: config.batch_num, 3),
    "AMCTConfig.activation_offset": ("activation_offset : false", asymmetric, {False}),
    "AMCTConfig.joint_quant": ("joint_quant : true", lambda config: config.joint_quant, True),
    "AMCTConfig.skip_layers": ('skip_layers : "conv"', enabled, ["depthwise", "fc", "pool"]),
    "AMCTConfig.skip_layer_types": ('skip_layer_types : "AvgPool"', enabled, ["conv", "depthwise", "fc"]),
    "AMCTConfig.skip_approximation_layers": (
        'skip_approximation_layers : "relu"',
        enabled,
        [layer.name for layer in LAYERS],
    ),
    "AMCTConfig.fakequant_precision_mode": (
        "fakequant_precision_mode : FORCE_FP16_QUANT",
        lambda config: config.fakequant_precision_mode,
        "FORCE_FP16_QUANT",
    ),
    "AMCTConfig.common_config": (common("hfmg_quantize : { }"), algorithm, Hfmg()),
    "AMCTConfig.override_layer_types": (
        OVERRIDE_TYPE % "hfmg_quantize : { }",
        lambda config: [algorithm(config), algorithm(config, "fc")],
        [Ifmr(), Hfmg()],
    ),
    "AMCTConfig.override_layer_configs": (
        OVERRIDE % "hfmg_quantize : { }",
        lambda config: [algorithm(config), algorithm(config, "fc")],
        [Ifmr(), Hfmg()],
    ),
    "AMCTConfig.conv_calibration_config": (
        "conv_calibration_config : { hfmg_quantize : { } }",
        lambda config: [algorithm(config, layer.name) for layer in LAYERS],
        [Hfmg(), Hfmg(), Ifmr(), Ifmr()],
    ),
    "AMCTConfig.fc_calibration_config": (
        "fc_calibration_config : { hfmg_quantize : { } }",
        lambda config: [algorithm(config, layer.name) for layer in LAYERS],
        [Ifmr(), Ifmr(), Hfmg(), Ifmr()],
    ),
    "AMCTConfig.do_fusion": ("do_fusion : false", lambda config: config.unfused_layers() == enabled(config), True),
    "AMCTConfig.skip_fusion_layers": ('skip_fusion_layers : "conv"', lambda config: config.unfused_layers(), ["conv"]),
    "AMCTConfig.tensor_quantize": (TENSOR % "", tensor, [("add:1", ActivationConfig(Ifmr(), True))]),
    "OverrideLayerType.layer_type": (
        OVERRIDE_TYPE % "hfmg_quantize : { }",
        lambda config: algorithm(config, "fc"),
        Hfmg(),
    ),
    "OverrideLayerType.calibration_config": (
        OVERRIDE_TYPE % "ifmr_quantize : { asymmetric : false }",
        asymmetric_fc,
        False,
    ),
    "OverrideLayer.layer_name": (OVERRIDE % "hfmg_quantize : { }", lambda config: algorithm(config, "fc"), Hfmg()),
    "OverrideLayer.calibration_config": (OVERRIDE % "ifmr_quantize : { asymmetric : false }", asymmetric_fc, False),
    "CalibrationConfig.arq_quantize": (
        common("arq_quantize : { channel_wise : false }"),
        wise,
        dict.fromkeys(["conv", "depthwise", "fc", "pool"], False),
    ),
    "CalibrationConfig.ifmr_quantize": (common("ifmr_quantize : { }"), algorithm, Ifmr()),
    "CalibrationConfig.hfmg_quantize": (common("hfmg_quantize : { }"), algorithm, Hfmg()),
    "CalibrationConfig.dmq_balancer": (
        common("dmq_balancer : { }"),
        lambda config: [layer.dmq_strength for layer in config.layers.values()],
        [0.5, 0.5, 0.5, None],
    ),
    "ARQuantize.channel_wise": (
        common("arq_quantize : { channel_wise : true }"),
        wise,
        {"conv": True, "depthwise": True, "fc": True, "pool": False},
    ),
    "FMRQuantize.search_range_start": (
        common("ifmr_quantize : { search_range_start : 0.8 }"),
        algorithm,
        Ifmr(search_range=(0.8, 1.3)),
    ),
    "FMRQuantize.search_range_end": (
        common("ifmr_quantize : { search_range_end : 1.4 }"),
        algorithm,
        Ifmr(search_range=(0.7, 1.4)),
    ),
    "FMRQuantize.search_step": (common("ifmr_quantize : { search_step : 0.02 }"), algorithm, Ifmr(search_step=0.02)),
    "FMRQuantize.max_percentile": (
        common("ifmr_quantize : { max_percentile : 0.99 }"),
        algorithm,
        Ifmr(max_percentile=0.99),
    ),
    "FMRQuantize.min_percentile": (
        common("ifmr_quantize : { min_percentile : 0.99 }"),
        algorithm,
        Ifmr(min_percentile=0.99),
    ),
    "FMRQuantize.asymmetric": (common("ifmr_quantize : { asymmetric : false }"), asymmetric, {False}),
    "FMRQuantize.dst_type": (common("ifmr_quantize : { dst_type : INT16 }"), bits, {16}),
    "HFMGQuantize.num_of_bins": (common("hfmg_quantize : { num_of_bins : 2048 }"), algorithm, Hfmg(2048)),
    "HFMGQuantize.asymmetric": (common("hfmg_quantize : { asymmetric : false }"), asymmetric, {False}),
    "HFMGQuantize.dst_type": (common("hfmg_quantize : { dst_type : INT16 }"), bits, {16}),
    "DMQBalancer.migration_strength": (
        common("dmq_balancer : { migration_strength : 0.7 }"),
        lambda config: config.layers["conv"].dmq_strength,
        0.7,
    ),
    "TensorQuantize.layer_name": (TENSOR % "", lambda config: config.tensor_quantize[0].layer_name, "add"),
    "TensorQuantize.input_index": (TENSOR % "", lambda config: config.tensor_quantize[0].input_index, 1),
    "TensorQuantize.ifmr_quantize": (
        TENSOR % "ifmr_quantize : { asymmetric : false }",
        tensor,
        [("add:1", ActivationConfig(Ifmr(), False))],
    ),
    "TensorQuantize.hfmg_quantize": (
        TENSOR % "hfmg_quantize : { }",
        tensor,
        [("add:1", ActivationConfig(Hfmg(), True))],
    ),
}

NUQ = "asks for non-uniform quantization, which is not supported"
REFUSED = {
    "AMCTConfig.nuq_config": ("nuq_config : { }", NUQ),
    "NuqConfig.mapping_file": ('nuq_config : { mapping_file : "net.json" }', NUQ),
    "NuqConfig.nuq_quantize": ("nuq_config : { nuq_quantize : { } }", NUQ),
    "CalibrationConfig.nuq_quantize": (common("nuq_quantize : { }"), NUQ),
    "NUQuantize.num_steps": (OVERRIDE % "nuq_quantize : { num_steps : 16 }", NUQ),
    "NUQuantize.num_of_iteration": (OVERRIDE_TYPE % "nuq_quantize : { num_of_iteration : 1 }", NUQ),
}


def fields():
    """Returns every field of every message that a simplified configuration may hold."""
    found, waiting = {}, [new_config().DESCRIPTOR]
    while waiting:
        message = waiting.pop()
        if message.name not in found:
            found[message.name] = [field.name for field in message.fields]
            waiting.extend(field.message_type for field in message.fields if field.message_type)
    return {f"{message}.{name}" for message, names in found.items() for name in names if name not in OURS}


def test_every_field_is_here():
    assert fields() == EFFECTS.keys() | REFUSED.keys()


@pytest.mark.parametrize("field", EFFECTS)
def test_what_a_field_does(field):
    text, ask, expected = EFFECTS[field]
    config = read(text)
    assert ask(config) == expected
    assert ask(parse_config(dump_config(config), "config.json", LAYERS, OPS)) == expected


# Fields that only say what holds anyway, or stand for the choice of another one that is told apart there.
@pytest.mark.parametrize(
    "field",
    [field for field in EFFECTS if not field.endswith(("ifmr_quantize", "dst_type", "approximation_layers"))],
)
def test_it_makes_a_difference(field):
    _, ask, expected = EFFECTS[field]
    without = read(TENSOR.replace("add", "sum").replace("1", "0") % "")
    if field == "ARQuantize.channel_wise":  # true is what it is without
        without = read(common("arq_quantize : { channel_wise : false }"))
    assert ask(without) != expected


@pytest.mark.parametrize("field", REFUSED)
def test_what_is_refused(field):
    text, reason = REFUSED[field]
    with pytest.raises(ConfigValueError, match=rf"^net\.cfg.*{reason}.* Delete it\.$"):
        read(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [("joint_quant : true", "joint_quant has no effect"),
     ('skip_approximation_layers : "relu"', "skip_approximation_layers has no effect"),
     (common("") + " conv_calibration_config : { }", "conv_calibration_config has no effect beside common_config"),
     (OVERRIDE_TYPE % "" + " fc_calibration_config : { }", "fc_calibration_config has no effect beside common_config")],
)  # fmt: skip
def test_what_has_no_effect_is_said(text, told, messages):
    read(text)
    assert any(told in message for message in messages)
    messages.clear()
    read("conv_calibration_config : { } fc_calibration_config : { }")
    assert messages == []


@pytest.mark.parametrize("newer", [common("hfmg_quantize : { }"), OVERRIDE_TYPE % "hfmg_quantize : { }"])
def test_deprecated_fields_count_only_alone(newer):
    """Neither are they checked then: files that go through the original go through here."""
    for deprecated in ("ifmr_quantize : { search_step : 0.5 }", "ifmr_quantize : { search_step : 9 }"):
        config = read(f"{newer} conv_calibration_config : {{ {deprecated} }}")
        assert algorithm(config) == (Hfmg() if "common" in newer else Ifmr())


@pytest.mark.parametrize(
    ("text", "told"),
    [(common("ifmr_quantize : { search_step : 9 }"), "search_step"),
     (common("ifmr_quantize : { dst_type : INT16 asymmetric : true }"), "asymmetric must be false for 16 bits"),
     (common("ifmr_quantize : { } hfmg_quantize : { }"), "not both"),
     (common("dmq_balancer : { migration_strength : 0.1 }"), "must lie in"),
     (common("nuq_quantize : { }"), NUQ)],
)  # fmt: skip
def test_what_no_layer_uses_is_checked_all_the_same(text, told):
    """Overrides hold for every layer, so that common_config decides about none."""
    types = ("Conv2D", "DepthwiseConv2dNative", "MatMul", "AvgPool")
    overrides = " ".join(OVERRIDE_TYPE.replace("MatMul", each) % "" for each in types)
    read(overrides)
    with pytest.raises(ConfigValueError, match=told):
        read(f"{overrides} {text}")


def test_the_order_of_precedence():
    """By name, by type, for all; each as a whole. activation_offset decides last about zero points."""
    bins = {"for all": 1024, "by type": 2048, "by name": 8192}
    levels = {
        "for all": common(f"hfmg_quantize : {{ num_of_bins : {bins['for all']} }}"),
        "by type": OVERRIDE_TYPE % f"hfmg_quantize : {{ num_of_bins : {bins['by type']} }}",
        "by name": OVERRIDE % f"hfmg_quantize : {{ num_of_bins : {bins['by name']} }}",
    }
    for count in (1, 2, 3):
        chosen = list(levels)[:count]
        config = read(" ".join(["activation_offset : false", *reversed([levels[level] for level in chosen])]))
        assert algorithm(config, "fc") == Hfmg(bins[chosen[-1]])
        assert algorithm(config, "conv") == Hfmg(bins["for all"])
        assert asymmetric(config) == {False}


def test_the_styles_in_which_people_write_text_format():
    plain = read(
        'batch_num: 2 common_config { ifmr_quantize { search_step: 0.02 } } skip_layers: "fc" skip_layers: "conv"'
    )
    for text in (
        "# comment\nbatch_num : 2\ncommon_config : {\n  ifmr_quantize : {\n    search_step : 0.02\n  }\n}\n"
        'skip_layers : "fc"\nskip_layers : "conv"\n',
        "batch_num:2, common_config<ifmr_quantize{search_step:2e-2};>, skip_layers: ['fc', 'conv']",
    ):
        assert read(text) == plain


def test_a_number_that_no_uint32_is():
    for text in (
        "batch_num : -1",
        "batch_num : 1.5",
        "batch_num : 4294967296",
        'batch_num : "1"',
        "activation_offset : 2",
    ):
        with pytest.raises(ConfigValueError, match=re.escape("net.cfg is malformed")):
            read(text)
