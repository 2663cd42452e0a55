"""Names of the original toolkit that are not this tool: they are there, and say what to use instead."""

import inspect
import pydoc

import pytest
from amct_tensorflow.common.auto_calibration import AccuracyBasedAutoCalibrationBase

import amct_tensorflow as amct
from amct_tensorflow import tensor_decompose
from amct_tensorflow.errors import UnsupportedError
from amct_tensorflow.original import unsupported

# As the original documents them, or its samples call them.
SIGNATURES = {
    "auto_channel_prune_search": "(graph, outputs, config_defination, input_data, output_cfg)",
    "auto_decomposition": "(meta_path, ckpt_path, save_path)",
    "auto_mixed_precision_search": "(model_file, outputs, config, save_dir, evaluator, sensitivity)",
    "create_compressed_retrain_model": "(graph, config_defination, outputs, record_file)",
    "create_prune_retrain_model": "(graph, outputs, record_file, config_defination)",
    "create_quant_config_ascend": (
        "(config_file, graph, skip_layers=None, activation_offset=True, config_defination=None)"
    ),
    "create_quant_retrain_config": "(config_file, graph, config_defination=None)",
    "create_quant_retrain_model": "(graph, config_file, record_file)",
    "decompose_graph": "(save_path)",
    "perf_based_auto_calibration": (
        "(original_model_file, quantize_model_file, outputs, sampler_config_file, save_dir, strategy='BatchRollBack')"
    ),
    "quantize_model_ascend": "(graph, outputs, config_file, record_file)",
    "save_compressed_retrain_model": "(pb_model, outputs, record_file, save_path)",
    "save_model_ascend": "(pb_model, outputs, record_file, save_path)",
    "save_prune_retrain_model": "(pb_model, outputs, record_file, save_path)",
    "save_quant_retrain_model": "(pb_model, outputs, record_file, save_path)",
}


def find(name):
    return getattr(tensor_decompose if "compos" in name else amct, name)


@pytest.mark.parametrize("name", SIGNATURES)
def test_it_says_what_to_use_instead(name):
    function = find(name)
    for arguments, options in (((), {}), ((1, "2"), {"anything": 3})):
        with pytest.raises(
            UnsupportedError, match=rf"^{name} is not supported: it .*\. (Use|Prune|Quantize) "
        ) as raised:
            function(*arguments, **options)
    assert isinstance(raised.value, (amct.AmctError, NotImplementedError))
    assert isinstance(raised.value, NotImplementedError)


@pytest.mark.parametrize(("name", "signature"), SIGNATURES.items())
def test_help_shows_the_original_arguments(name, signature):
    function = find(name)
    assert str(inspect.signature(function)) == signature
    told = pydoc.plain(pydoc.render_doc(function))
    assert f"{name}{signature}" in told
    assert "Is not supported: it " in told


def test_the_table_is_whole():
    made = {
        name
        for name, value in vars(unsupported).items()
        if callable(value) and value.__module__ == unsupported.__name__
    }
    assert {name for name in made if not name.startswith("_")} == SIGNATURES.keys()


def test_what_the_messages_name_exists():
    for name in SIGNATURES:
        with pytest.raises(UnsupportedError) as raised:
            find(name)()
        offered = [word.strip(".,") for word in str(raised.value).split() if "_" in word and word.strip(".,") != name]
        for word in offered:
            assert hasattr(amct, word) or word == "skip_layers", word


def test_the_search_is_no_class_to_derive_from():
    class Derived(AccuracyBasedAutoCalibrationBase):
        pass

    with pytest.raises(UnsupportedError, match="strategy and sensitivity may be instances"):
        Derived("model.pb")
