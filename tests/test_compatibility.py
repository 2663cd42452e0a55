"""docs/compatibility.md is whole, and what it says of signatures, keys, fields and op types is what the code has."""

import argparse
import importlib
import inspect
import json
import re

import pytest
import tensorflow as tf
from conftest import ROOT
from graphs import batch_norm, build, normal, save, small_net, tf1

import amct_tensorflow as amct
from amct_tensorflow.cli import COMMANDS
from amct_tensorflow.errors import ModelError
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.model_file import load_graph
from amct_tensorflow.ops import OP_TYPES
from amct_tensorflow.quantize.config.schema import GLOBAL_KEYS
from amct_tensorflow.quantize.config.simplified_message import new_config
from amct_tensorflow.quantize.record.record_file import ScaleOffsetRecord

PAGE = (ROOT / "docs" / "compatibility.md").read_text()
VERDICTS = {"same", "more", "other", "refused", "ours"}

# What the original's documents, samples and clients import.
ORIGINAL = {
    "amct_tensorflow": [
        "accuracy_based_auto_calibration", "auto_channel_prune_search", "auto_mixed_precision_search", "convert_model",
        "convert_qat_model", "create_compressed_retrain_model", "create_prune_retrain_model", "create_quant_config",
        "create_quant_config_ascend", "create_quant_retrain_config", "create_quant_retrain_model", "GraphEvaluator",
        "perf_based_auto_calibration", "quantize_model", "quantize_model_ascend", "quantize_preprocess",
        "quantized_preprocess", "save_compressed_retrain_model", "save_model", "save_model_ascend",
        "save_prune_retrain_model", "save_quant_retrain_model", "set_logging_level",
    ],
    "amct_tensorflow.accuracy_based_auto_calibration": ["accuracy_based_auto_calibration"],
    "amct_tensorflow.common.auto_calibration": [
        "AccuracyBasedAutoCalibrationBase", "AutoCalibrationEvaluatorBase", "AutoCalibrationStrategyBase",
        "BinarySearchStrategy", "CosineSimilaritySensitivity", "SensitivityBase",
    ],
    "amct_tensorflow.common.cmd_line_utils.data_handler": ["load_data"],
    "amct_tensorflow.tensor_decompose": ["auto_decomposition", "decompose_graph"],
    "amct_tensorflow.utils.log": ["LOGGER"],
}  # fmt: skip


def rows(heading):
    """Returns the rows of the tables of a section: the code in their first cell, and their second cell."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    found = [line.strip("|").split("|") for line in section.splitlines() if re.match(r"\| .*[^-| ]", line)]
    cells = [(first.strip(), second.strip()) for first, second, *_ in found if second.strip() != "here"]
    assert cells and {second for _, second in cells} <= VERDICTS
    return [(re.findall(r"`([^`]+)`", first), second) for first, second in cells]


HEADINGS = re.findall(r"(?m)^## (.*)$", PAGE)
FUNCTIONS = {
    code[0].split("(")[0]: (code[0], verdict) for code, verdict in rows("Functions and classes") if "(" in code[0]
}


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_row_has_a_verdict(heading):
    assert rows(heading)


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in ORIGINAL.items() for name in names])
def test_every_name_of_the_original_is_there_and_on_the_page(module, name):
    assert callable(getattr(importlib.import_module(module), name)) or name == "LOGGER"
    assert name in FUNCTIONS if module == "amct_tensorflow" else f"`{module}.{name}`" in PAGE


def test_every_public_name_is_on_the_page():
    ours = re.findall(r"`(\w+)`", PAGE.split("Ours alone: ")[1].split("\n")[0])
    assert sorted([*FUNCTIONS, *ours]) == sorted(amct.__all__)
    assert FUNCTIONS.keys() == set(ORIGINAL["amct_tensorflow"])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures(name):
    """Also whether what is refused is what raises."""
    signature = inspect.signature(getattr(amct, name))
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    assert FUNCTIONS[name][0] == f"{name}{inspect.Signature(plain)}"
    refuses = getattr(amct, name).__module__ == "amct_tensorflow.original.unsupported"
    assert refuses == (FUNCTIONS[name][1] == "refused")


def test_keys_of_the_configuration(workdir):
    """Those that create_quant_config writes, for either algorithm, and those that it writes only if asked."""
    (workdir / "my.cfg").write_text("""
        fakequant_precision_mode: FORCE_FP16_QUANT
        override_layer_types { layer_type: "MatMul" calibration_config { hfmg_quantize { } dmq_balancer { } } }""")

    def make():
        x = tf1.placeholder(tf.float32, [None, 4, 4, 3], name="x")
        tf.matmul(tf.reshape(tf.nn.conv2d(x, normal((3, 3, 3, 2)), 1, "SAME"), [-1, 32]), normal((32, 2)))
        tf.gather(normal((500, 8)), tf1.placeholder(tf.int32, [None], name="ids"))

    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(build(make), name="")
    amct.create_quant_config("config.json", graph, config_defination="my.cfg")
    config = json.loads((workdir / "config.json").read_text())
    layers = [value for key, value in config.items() if key not in GLOBAL_KEYS]
    keys = {*config.keys() & set(GLOBAL_KEYS), *(key for layer in layers for key in layer)}
    keys |= {key for layer in layers for value in layer.values() if isinstance(value, dict) for key in value}
    assert sorted(code[0] for code, _ in rows("config.json")) == sorted(keys)


def test_fields_of_the_simplified_configuration():
    fields, waiting = {}, [new_config().DESCRIPTOR]
    while waiting:
        message = waiting.pop()
        if message.name not in fields:
            fields[message.name] = [field.name for field in message.fields]
            waiting.extend(field.message_type for field in message.fields if field.message_type)
    known = [f"{message}.{name}" for message, names in fields.items() for name in names]
    assert sorted(code[0] for code, _ in rows("Simplified configuration")) == sorted(known)


def test_fields_of_the_record():
    value = ScaleOffsetRecord.DESCRIPTOR.fields_by_name["record"].message_type.fields_by_name["value"].message_type
    assert sorted(code[0] for code, _ in rows("Record")) == sorted(field.name for field in value.fields)


def test_op_types():
    named = {name for code, _ in rows("Op types") for name in code if not name.islower()}
    assert named == OP_TYPES.keys() | {"MaxPool", "Add"}


def folded(make, output="out"):
    """Returns per layer the op types that are folded into it."""
    model = FloatModel.of_graph(_graph(make), [output])
    return [(layer.op_type, *layer.absorbed_types) for layer in model.fuse().layers.values()]


def _graph(make):
    graph = tf.Graph()
    with graph.as_default():
        make()
    return graph


def images(channels=4):
    return tf1.placeholder(tf.float32, [None, 8, 8, channels], name="x")


def conv(x, channels=6):
    return tf.nn.conv2d(x, normal((3, 3, int(x.shape[-1]), channels), 1), 1, "SAME")


def behind_batch_to_space():
    y = tf.batch_to_space(conv(tf.space_to_batch(images(), [2, 2], [[2, 2], [2, 2]])), [2, 2], [[0, 0], [0, 0]])
    return batch_norm(y, 6, "bn")


def in_groups():
    parts = tf.split(images(), 2, 3)
    return batch_norm(tf.concat([conv(part, 3) for part in parts], 3), 6, "bn")


def between_reshapes():
    y = tf.matmul(tf1.placeholder(tf.float32, [None, 4], name="x"), normal((4, 6)))
    return tf.reshape(batch_norm(tf.reshape(y, [-1, 1, 1, 6]), 6, "bn"), [-1, 6])


def in_small_ops():
    values = [normal((6,), seed) for seed in (1, 2, 3)]
    return tf.nn.batch_normalization(conv(images()), values[0], values[1] ** 2, values[2], None, 0.001)


FUSIONS = {
    "BatchNorm": (lambda: batch_norm(conv(images()), 6, "bn"), [("Conv2D", "FusedBatchNormV3")]),
    "BatchToSpaceND": (behind_batch_to_space, [("Conv2D", "FusedBatchNormV3")]),
    "a scalar": (lambda: conv(images()) * tf.constant(0.5), [("Conv2D", "Mul")]),
    "groups": (in_groups, [("Conv2D", "Mul", "AddV2")] * 2),
    "Reshapes": (between_reshapes, [("MatMul", "FusedBatchNormV3")]),
    "Add of a constant": (lambda: conv(images()) + normal((6,)), [("Conv2D", "AddV2")]),
    "small ops": (in_small_ops, [("Conv2D", "Mul", "AddV2")]),
}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fusions(fusion):
    make, expected = FUSIONS[fusion]
    assert folded(lambda: tf.identity(make(), name="out")) == expected


def test_what_has_a_name_of_its_own_in_the_order_of_calls(workdir):
    """quantize_model inserts no variable and leaves outputs as they are, of which one is a BatchNorm that is folded."""
    model = save(build(lambda: batch_norm(conv(images()), 6, "out")), workdir / "net.pb")
    graph, outputs = load_graph(model), ["out"]
    amct.create_quant_config("config.json", load_graph(model))
    fetched = graph.get_tensor_by_name("out:0")
    assert amct.quantize_model(graph, "config.json", "record.txt", outputs) == [] and outputs == ["out"]
    with tf1.Session(graph=graph) as session:
        session.run(fetched, {"x:0": normal((2, 8, 8, 4))})
        record = (workdir / "record.txt").read_text()
        session.run(fetched, {"x:0": normal((2, 8, 8, 4), 2, 9)})
    assert record.count("key:") == 1 and (workdir / "record.txt").read_text() == record
    amct.save_model(model, outputs, "record.txt", "results/")
    assert sorted(path.name for path in (workdir / "results").iterdir()) == ["quant.json", "quantized.pb"]
    save(graph.as_graph_def(), workdir / "calibrated.pb")
    with pytest.raises(ModelError, match="being calibrated already"):
        amct.save_model("calibrated.pb", outputs, "record.txt", "results/")


def test_files_and_folders_have_the_modes_of_the_original(workdir):
    amct.create_quant_config("a/b/config.json", _graph(small_net))
    assert [(workdir / path).stat().st_mode & 0o777 for path in ("a", "a/b", "a/b/config.json")] == [
        0o750,
        0o750,
        0o640,
    ]


def test_a_batch_norm_in_training_mode_stays():
    def make():
        ones = tf.ones([6])
        y = tf.raw_ops.FusedBatchNormV3(
            x=conv(images()), scale=ones, offset=ones, mean=[], variance=[], is_training=True
        )
        tf.identity(y[0], name="out")

    assert folded(make) == [("Conv2D",)]


def command_options(name):
    """Returns the options of a command of the command line."""
    parser = argparse.ArgumentParser()
    next(command for command in COMMANDS if command.name == name).add_arguments(parser)
    return {option for action in parser._actions for option in action.option_strings}


def test_the_command_line():
    """The original's commands have the original's options, and no other than the page tells."""
    table = rows("Command line")
    commands = {command.name for command in COMMANDS}
    named = {name for code, _ in table for name in code}
    told = {option.split()[0] for option in named if option.startswith("--") and "=" not in option} - {"--name", "--h"}
    calibration = command_options("calibration") - {"-h"}
    assert calibration == told - {"--data_type"}
    convert = command_options("convert") - {"-h"}
    assert convert == {"--help", "--model", "--save_path", "--outputs", "--record_file"}
    ours = re.findall(r"`([\w-]+)`", PAGE.split("Ours alone: ")[2].split("\n")[0])
    assert commands == {"calibration", "convert", *ours}
