"""config.json and the simplified configuration."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.errors import AmctError, ConfigEmptyError, ConfigTypeError, ConfigValueError
from amct_tensorflow.model.layers import LayerSpec
from amct_tensorflow.quantize.algorithms.hfmg import Hfmg
from amct_tensorflow.quantize.algorithms.ifmr import Ifmr
from amct_tensorflow.quantize.config.defaults import default_config
from amct_tensorflow.quantize.config.json_file import dump_config, parse_config, read_config, write_config
from amct_tensorflow.quantize.config.schema import ActivationConfig
from amct_tensorflow.quantize.config.simplified import parse_simplified, read_simplified

CONV, POOL, DEPTHWISE, FC = (
    LayerSpec("MobilenetV2/Conv/Conv2D", "Conv2D", True),
    LayerSpec("MobilenetV2/Logits/AvgPool", "AvgPool", False),
    LayerSpec("MobilenetV2/expanded_conv/depthwise/depthwise", "DepthwiseConv2dNative", True),
    LayerSpec("fc", "MatMul", True),
)
VOLUME = LayerSpec("volume", "Conv3D", True)
LAYERS = [DEPTHWISE, POOL, CONV]
OPS = {layer.name: layer.op_type for layer in (*LAYERS, FC, VOLUME)} | {
    "relu": "Relu",
    "pool": "MaxPool",
    "add": "AddV2",
}

# The example of spec section 2.2, with the keys that are ours.
EXAMPLE = """{
    "version":1,
    "batch_num":1,
    "activation_offset":true,
    "joint_quant":false,
    "do_fusion":true,
    "skip_fusion_layers":[],
    "tensor_quantize":[],
    "bias_correction":true,
    "weight_rounding":"second_moments",
    "range_refinement":true,
    "input_balancing":true,
    "MobilenetV2/Conv/Conv2D":{
        "quant_enable":true,
        "activation_quant_params":{
            "num_bits":8,
            "max_percentile":0.999999,
            "min_percentile":0.999999,
            "search_range":[
                0.7,
                1.3
            ],
            "search_step":0.01,
            "act_algo":"ifmr",
            "asymmetric":true
        },
        "weight_quant_params":{
            "num_bits":8,
            "wts_algo":"arq_quantize",
            "channel_wise":true
        }
    },
    "MobilenetV2/Logits/AvgPool":{
        "quant_enable":true,
        "activation_quant_params":{
            "num_bits":8,
            "max_percentile":0.999999,
            "min_percentile":0.999999,
            "search_range":[
                0.7,
                1.3
            ],
            "search_step":0.01,
            "act_algo":"ifmr",
            "asymmetric":true
        },
        "weight_quant_params":{
            "num_bits":8,
            "wts_algo":"arq_quantize",
            "channel_wise":false
        }
    },
    "MobilenetV2/expanded_conv/depthwise/depthwise":{
        "quant_enable":true,
        "activation_quant_params":{
            "num_bits":8,
            "act_algo":"hfmg",
            "num_of_bins":4096,
            "asymmetric":false
        },
        "weight_quant_params":{
            "num_bits":8,
            "wts_algo":"arq_quantize",
            "channel_wise":true
        }
    }
}"""


def parse(content, layers=LAYERS):
    text = content if isinstance(content, str) else json.dumps(content)
    return parse_config(text, "config.json", layers, OPS)


def test_example_of_the_specification_survives_reading_and_writing():
    config = parse(EXAMPLE)
    assert dump_config(config) == EXAMPLE
    assert config.layers[DEPTHWISE.name].activation.algorithm == Hfmg(4096)
    assert config.layers[CONV.name].activation.algorithm == Ifmr()


def test_default_config_lists_every_layer_sorted():
    config = default_config(LAYERS, OPS)
    assert list(config.layers) == sorted(layer.name for layer in LAYERS)
    assert config.enabled_layers() == list(config.layers)
    assert parse(dump_config(config)) == config


def test_skipped_layers_stay_listed():
    config = default_config(LAYERS, OPS, skip_layers=[CONV.name], batch_num=3, activation_offset=False)
    assert not config.layers[CONV.name].quant_enable
    assert config.batch_num == 3
    assert not config.layers[POOL.name].activation.asymmetric


@pytest.mark.parametrize(
    ("skip_layers", "words"),
    [
        (["nowhere"], "not in the graph"),
        (["relu"], "cannot be quantized"),
        ([CONV.name, CONV.name], "twice"),
        ([layer.name for layer in LAYERS], "Every quantizable layer is skipped"),
    ],
)
def test_wrong_skip_layers(skip_layers, words):
    with pytest.raises(ConfigValueError, match=words):
        default_config(LAYERS, OPS, skip_layers=skip_layers)


def test_nothing_to_quantize():
    with pytest.raises(ConfigValueError, match="no layer that can be quantized"):
        default_config([], OPS)


def test_every_key_is_optional():
    config = parse({CONV.name: {}})
    assert config.enabled_layers() == [CONV.name]
    assert config.layers[CONV.name] == default_config(LAYERS, OPS).layers[CONV.name]
    assert config.batch_num == 1 and config.do_fusion and config.bias_correction
    assert parse({"activation_offset": False, CONV.name: {}}).layers[CONV.name].activation.asymmetric is False


def conv(**changes):
    return {CONV.name: changes}


def activation(**changes):
    return conv(activation_quant_params=changes)


def weights(**changes):
    return conv(weight_quant_params=changes)


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ({"unknown": 1, **conv()}, ConfigValueError, "'unknown'"),
        ({"nowhere/Conv2D": {}, **conv()}, ConfigValueError, "'nowhere/Conv2D'"),
        ({"relu": {}, **conv()}, ConfigValueError, "cannot be quantized"),
        (conv(quant_enabled=True), ConfigValueError, "'quant_enabled'"),
        (activation(percentile=1), ConfigValueError, "'percentile'"),
        (conv(quant_enable=1), ConfigTypeError, "quant_enable"),
        (conv(quant_enable="true"), ConfigTypeError, CONV.name),
        ({CONV.name: True}, ConfigTypeError, "object"),
        ({"batch_num": True, **conv()}, ConfigTypeError, "batch_num"),
        ({"batch_num": 1.0, **conv()}, ConfigTypeError, "batch_num"),
        ({"batch_num": 0, **conv()}, ConfigValueError, "batch_num"),
        ({"version": 2, **conv()}, ConfigValueError, "version"),
        ({"activation_offset": None, **conv()}, ConfigTypeError, "null"),
        ({"skip_fusion_layers": "x", **conv()}, ConfigTypeError, "array"),
        ({"skip_fusion_layers": ["nowhere"], **conv()}, ConfigValueError, "nowhere"),
        ({"tensor_quantize": [{}]}, ConfigValueError, "layer_name"),
        ({"tensor_quantize": [{"layer_name": "pool"}]}, ConfigValueError, "input_index"),
        ({"tensor_quantize": [{"layer_name": "pool", "input_index": 1}]}, ConfigValueError, "input_index"),
        ({"tensor_quantize": [{"layer_name": "relu", "input_index": 0}]}, ConfigValueError, "'relu'"),
        ({"tensor_quantize": [{"layer_name": "gone", "input_index": 0}]}, ConfigValueError, "'gone'"),
        ({"tensor_quantize": [{"layer_name": "add", "input_index": 0}] * 2}, ConfigValueError, "twice"),
        ({"tensor_quantize": [{"layer_name": "add", "input_index": 0, "x": 1}]}, ConfigValueError, "'x'"),
        ({"tensor_quantize": [3]}, ConfigTypeError, "object"),
        ({"fakequant_precision_mode": "HALF", **conv()}, ConfigValueError, "FORCE_FP16_QUANT"),
        (activation(max_percentile=0.5), ConfigValueError, "max_percentile"),
        (activation(max_percentile=1.1), ConfigValueError, "max_percentile"),
        (activation(min_percentile="1"), ConfigTypeError, "min_percentile"),
        (activation(search_range=[1.3, 0.7]), ConfigValueError, "search_range"),
        (activation(search_range=[0, 1]), ConfigValueError, "search_range"),
        (activation(search_range=[1]), ConfigTypeError, "two numbers"),
        (activation(search_step=0.61), ConfigValueError, "search_step"),
        (activation(search_step=0), ConfigValueError, "search_step"),
        (activation(search_step=1e-9), ConfigValueError, "search_step"),
        (activation(act_algo="kl"), ConfigValueError, "act_algo"),
        (activation(act_algo="hfmg", search_step=0.01), ConfigValueError, "search_step"),
        (activation(num_of_bins=1024), ConfigValueError, "num_of_bins"),
        (activation(act_algo="hfmg", num_of_bins=1000), ConfigValueError, "num_of_bins"),
        (activation(num_bits=12), ConfigValueError, "num_bits is 12; use 8 or 16"),
        (activation(num_bits=16, asymmetric=True), ConfigValueError, "asymmetric must be false for 16 bits"),
        (weights(num_bits=16), ConfigValueError, "num_bits is 16; only 8"),
        (weights(num_bits=4), ConfigValueError, "num_bits"),
        (weights(wts_algo="nuq_quantize"), ConfigValueError, "wts_algo"),
        (conv(dmq_balancer_param=0.1), ConfigValueError, "dmq_balancer_param"),
        (conv(dmq_balancer_param=0.9), ConfigValueError, "dmq_balancer_param"),
        (conv(dmq_balancer_param="a lot"), ConfigTypeError, "dmq_balancer_param"),
        ({POOL.name: {"dmq_balancer_param": 0.5}}, ConfigValueError, "AvgPool"),
        ({POOL.name: {"weight_quant_params": {"channel_wise": True}}}, ConfigValueError, "channel_wise"),
        ({}, ConfigEmptyError, "no layer"),
        (conv(quant_enable=False), ConfigEmptyError, "no layer"),
        ("[1, 2]", ConfigTypeError, "object"),
        ('{"batch_num": 1', ConfigValueError, "JSON"),
        ('{"batch_num": NaN}', ConfigTypeError, "batch_num"),
        ('{"batch_num": 1, "batch_num": 2}', ConfigValueError, "repeated"),
        ("[" * 100_000, ConfigValueError, "JSON"),
        ('{"batch_num": 1' + "0" * 6000 + "}", ConfigValueError, "config.json"),
    ],
)
def test_mistakes_are_named(content, error, words):
    with pytest.raises(error) as caught:
        parse(content)
    assert words in str(caught.value)
    assert "config.json" in str(caught.value)


def test_a_type_without_zero_points_is_symmetric():
    assert not default_config([CONV, VOLUME], OPS).layers[VOLUME.name].activation.asymmetric
    config = parse(conv() | {VOLUME.name: {}}, [CONV, VOLUME])
    assert config.layers[CONV.name].activation.asymmetric
    assert not config.layers[VOLUME.name].activation.asymmetric
    with pytest.raises(ConfigValueError, match="asymmetric must be false for Conv3D"):
        parse({VOLUME.name: {"activation_quant_params": {"asymmetric": True}}}, [VOLUME])


def test_search_step_may_span_the_whole_range():
    # 1.3 - 0.7 is less than 0.6 in binary.
    parse(activation(search_step=0.6))


def test_a_layer_named_like_a_key():
    with pytest.raises(ConfigValueError, match="Rename the node"):
        parse({"version": {}}, [LayerSpec("version", "MatMul", True)])
    with pytest.raises(ConfigValueError, match="Rename the node"):
        default_config([LayerSpec("version", "MatMul", True)], {"version": "MatMul"})


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(ConfigValueError, match="create_quant_config"):
        read_config(tmp_path / "none.json", LAYERS, OPS)
    with pytest.raises(ConfigValueError):
        read_config(tmp_path, LAYERS, OPS)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ConfigValueError, match="UTF-8"):
        read_config(tmp_path / "binary.json", LAYERS, OPS)
    write_config(tmp_path / "new" / "config.json", parse(EXAMPLE))
    assert read_config(tmp_path / "new" / "config.json", LAYERS, OPS) == parse(EXAMPLE)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_replaces_a_value_only_our_errors_come_out(data):
    content = json.loads(EXAMPLE)
    target = content
    for _ in range(data.draw(st.integers(0, 2))):
        inner = [key for key, value in target.items() if isinstance(value, dict)]
        if inner:
            target = target[data.draw(st.sampled_from(inner))]
    target[data.draw(st.sampled_from([*target, "other"]))] = data.draw(json_values)
    try:
        config = parse(content)
    except AmctError:
        return
    assert parse(dump_config(config)) == config


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, len(EXAMPLE)))
def test_damaged_text_gives_only_our_errors(noise, position):
    text = EXAMPLE[:position] + noise.decode("latin-1") + EXAMPLE[position + len(noise) :]
    try:
        parse(text)
    except AmctError:
        pass


def test_tensors_to_quantize():
    entry = {"layer_name": "add", "input_index": 1, "activation_quant_params": {"asymmetric": False}}
    config = parse({"tensor_quantize": [entry]})
    assert config.enabled_layers() == []
    assert config.tensor_quantize[0].key == "add:1"
    assert parse(dump_config(config)) == config
    same = simplified('tensor_quantize : { layer_name : "add" input_index : 1 ifmr_quantize : { asymmetric : false } }')
    assert same.tensor_quantize == config.tensor_quantize
    with pytest.raises(ConfigValueError, match="input_index"):
        simplified('tensor_quantize : { layer_name : "add" }')


def simplified(text, layers=(*LAYERS, FC)):
    return parse_simplified(text, "net.cfg", layers, OPS)


def test_a_client_s_simplified_configuration():
    config = simplified("""
        batch_num : 2
        activation_offset : true
        common_config : {
            arq_quantize : { channel_wise : true }
            ifmr_quantize : { search_range_start : 0.7 search_range_end : 1.3 search_step : 0.01
                              max_percentile : 0.999999 min_percentile : 0.999999 }
        }""")
    assert config.batch_num == 2
    assert config.layers[CONV.name].activation.algorithm == Ifmr()
    assert config.layers[CONV.name].weights.channel_wise
    assert config.layers[FC.name].weights.channel_wise
    assert not config.layers[POOL.name].weights.channel_wise
    assert "0.7," in dump_config(config)


def test_a_type_without_zero_points_is_symmetric_in_the_simplified_configuration():
    common = "common_config : { ifmr_quantize : { asymmetric : true } }"
    override = 'override_layer_types : { layer_type : "Conv3D" calibration_config : { ifmr_quantize : { %s } } }'
    for text in ("", common, common + override % "", override % "asymmetric : false"):
        config = simplified(text, [CONV, VOLUME])
        assert config.layers[CONV.name].activation.asymmetric
        assert not config.layers[VOLUME.name].activation.asymmetric
    with pytest.raises(ConfigValueError, match="asymmetric must be false for Conv3D"):
        simplified(override % "asymmetric : true", [VOLUME])


def test_the_most_specific_message_applies_as_a_whole():
    config = simplified(f"""
        common_config : {{ hfmg_quantize : {{ num_of_bins : 1024 asymmetric : false }} }}
        override_layer_types : {{
            layer_type : "DepthwiseConv2dNative"
            calibration_config : {{ arq_quantize : {{ channel_wise : false }} }} }}
        override_layer_configs : {{
            layer_name : "{CONV.name}"
            calibration_config : {{ hfmg_quantize : {{ num_of_bins : 8192 }} }} }}""")
    assert config.layers[POOL.name].activation.algorithm == Hfmg(1024)
    assert config.layers[CONV.name].activation.algorithm == Hfmg(8192)
    # Same algorithm as common_config, hence its asymmetric; another algorithm, hence activation_offset.
    assert config.layers[CONV.name].activation.asymmetric is False
    assert config.layers[DEPTHWISE.name].activation.asymmetric is True
    assert config.layers[DEPTHWISE.name].activation.algorithm == Ifmr()
    assert not config.layers[DEPTHWISE.name].weights.channel_wise


def test_skips_and_deprecated_fields():
    config = simplified("""
        skip_layers : "fc" skip_layer_types : "AvgPool" do_fusion : false
        conv_calibration_config : { ifmr_quantize : { search_range_start : 0.8 } }
        fc_calibration_config : { ifmr_quantize : { search_range_start : 0.9 } }""")
    assert config.enabled_layers() == [CONV.name, DEPTHWISE.name]
    assert config.layers[CONV.name].activation.algorithm.search_range == (0.8, 1.3)
    assert config.layers[FC.name].activation.algorithm.search_range == (0.9, 1.3)
    assert not config.do_fusion


@pytest.mark.parametrize(
    "text",
    [
        'skip_layers : "fc" skip_layers : "fc"',
        'skip_layers : "nowhere"',
        'skip_layer_types : "Conv3DBackpropInputV2"',
        'skip_layer_types : "AvgPool" skip_layer_types : "AvgPool"',
        "batch_num : 0",
        "unknown : 1",
        "common_config : { ifmr_quantize : { max_percentile : 2 } }",
        "common_config : { ifmr_quantize : { search_step : nan } }",
        "common_config : { hfmg_quantize : { num_of_bins : 7 } }",
        "common_config : { hfmg_quantize : { } ifmr_quantize : { } }",
        "common_config : { ifmr_quantize : { dst_type : INT4 } }",
        "common_config : { ifmr_quantize : { dst_type : INT16 asymmetric : true } }",
        "common_config : { dmq_balancer : { migration_strength : 0.9 } }",
        "common_config : { dmq_balancer : { migration_strength : nan } }",
        'override_layer_types : { layer_type : "AvgPool" calibration_config : { dmq_balancer : { } } }',
        "common_config : { nuq_quantize : { num_steps : 32 } }",
        "nuq_config : { }",
        'override_layer_types : { layer_type : "AvgPool" '
        "calibration_config : { arq_quantize : { channel_wise : true } } }",
        'override_layer_types : { layer_type : "MatMul" }',
        'override_layer_configs : { layer_name : "relu" calibration_config : { } }',
        'skip_layer_types : "Conv2D" skip_layer_types : "MatMul" skip_layer_types : "AvgPool" '
        'skip_layer_types : "DepthwiseConv2dNative"',
    ],
)
def test_mistakes_in_a_simplified_configuration(text):
    with pytest.raises(ConfigValueError) as caught:
        simplified(text)
    assert str(caught.value)


def test_strengths_of_balancing():
    config = simplified(
        "common_config : { dmq_balancer : { } } override_layer_types : { layer_type : "
        '"DepthwiseConv2dNative" calibration_config : { dmq_balancer : { migration_strength : 0.7 } } }'
    )
    strengths = {name: layer.dmq_strength for name, layer in config.layers.items()}
    assert (strengths[CONV.name], strengths[DEPTHWISE.name], strengths[POOL.name]) == (0.5, 0.7, None)
    assert config.asks_for_balancing()
    assert json.loads(dump_config(config))[DEPTHWISE.name]["dmq_balancer_param"] == 0.7
    assert parse_config(dump_config(config), "config.json", [*LAYERS, FC], OPS) == config
    assert not simplified("").asks_for_balancing()


def test_missing_simplified_configuration(tmp_path):
    with pytest.raises(ConfigValueError, match="cannot be read"):
        read_simplified(tmp_path / "none.cfg", LAYERS, OPS)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_any_text_as_simplified_configuration(text):
    try:
        simplified(text)
    except AmctError:
        pass


def test_layers_behind_which_batch_norm_is_kept():
    config = parse_config(EXAMPLE, "config.json", LAYERS, OPS)
    first, *_ = names = config.enabled_layers()
    assert config.unfused_layers() == []
    assert replace(config, do_fusion=False).unfused_layers() == names
    assert replace(config, skip_fusion_layers=(first,)).unfused_layers() == [first]
    assert replace(config.with_enabled({first: False}), do_fusion=False).unfused_layers() == names[1:]


@pytest.mark.parametrize("rounding", ["NEAREST", "SECOND_MOMENTS"])
def test_our_own_fields_of_the_simplified_configuration(tmp_path, rounding):
    path = tmp_path / "ours.cfg"
    switches = "bias_correction: false  range_refinement: false  input_balancing: false"
    path.write_text(f"{switches}  weight_rounding: {rounding}")
    config = read_simplified(str(path), LAYERS, OPS)
    assert config.bias_correction is False and config.range_refinement is False and config.input_balancing is False
    assert config.weight_rounding == rounding.lower()
    path.write_text("batch_num: 1")
    config = read_simplified(str(path), LAYERS, OPS)
    assert config.bias_correction and config.weight_rounding == "second_moments" and config.range_refinement
    assert config.input_balancing


@pytest.mark.parametrize(
    "named",
    [
        "common_config: { ifmr_quantize: { } }",
        "conv_calibration_config: { ifmr_quantize: { asymmetric: false } }",
        'override_layer_types: { layer_type: "AvgPool" calibration_config: { hfmg_quantize: { } } }',
        f'override_layer_configs: {{ layer_name: "{CONV.name}" calibration_config: {{ ifmr_quantize: {{ }} }} }}',
        'tensor_quantize: { layer_name: "add" input_index: 0 ifmr_quantize: { } }',
    ],
)
def test_who_names_an_algorithm_for_activations_gets_what_that_finds(tmp_path, named):
    path = tmp_path / "named.cfg"
    path.write_text(named)
    assert read_simplified(str(path), LAYERS, OPS).range_refinement is False
    path.write_text(f"{named} range_refinement: true")
    assert read_simplified(str(path), LAYERS, OPS).range_refinement is True


def test_a_configuration_of_weights_names_no_algorithm_for_activations(tmp_path):
    path = tmp_path / "weights.cfg"
    path.write_text("common_config: { arq_quantize: { channel_wise: false } }")
    assert read_simplified(str(path), LAYERS, OPS).range_refinement is True


@pytest.mark.parametrize("value", ['"stochastic"', "null", "true"])
def test_an_unknown_rounding_is_refused(value):
    with pytest.raises((ConfigValueError, ConfigTypeError), match="weight_rounding"):
        parse_config(f'{{"weight_rounding": {value}}}', "config.json", LAYERS, OPS)


def test_activations_in_16_bits():
    """Without a word on it they are symmetric, and the entry says so when it is written again."""
    config = parse({CONV.name: {"activation_quant_params": {"num_bits": 16}}, POOL.name: {}})
    assert config.layers[CONV.name].activation == ActivationConfig(Ifmr(), asymmetric=False, num_bits=16)
    assert config.layers[POOL.name].activation.num_bits == 8
    written = json.loads(dump_config(config))[CONV.name]["activation_quant_params"]
    assert (written["num_bits"], written["asymmetric"], written["act_algo"]) == (16, False, "ifmr")
    assert parse(json.loads(dump_config(config))) == config
    pool = parse({POOL.name: {"activation_quant_params": {"num_bits": 16}}}).layers[POOL.name]
    assert pool.activation.num_bits == 16


def test_bits_of_a_layer_can_be_changed():
    activation = ActivationConfig(Ifmr(), asymmetric=True)
    assert activation.with_bits(16) == ActivationConfig(Ifmr(), asymmetric=False, num_bits=16)
    assert activation.with_bits(8) == activation
