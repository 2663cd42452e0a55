"""A whole run, its resumption and its comparison with layers whose activations have 16 bits."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from graphs import SMALL_NET_LAYERS, tf1
from test_auto_calibration import IMAGES, OUTPUT, Evaluator, calibrate, contents, edit_config, prepare

from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.quantize.quantized.quantized_layer import read_layers
from amct_tensorflow.quantize.record.record_file import read_record
from amct_tensorflow.results.comparison.correspondence import read_mapped_model
from amct_tensorflow.results.comparison.layer_comparison import compare_models

WIDE = ("dw/depthwise", "pool/AvgPool")
OPTIONS = {"strategy": "PredictiveSearch", "sensitivity": "OutputDivergence"}


def prepare_wide(folder, names):
    """Returns the arguments of a run in which some layers read 16 bits."""
    arguments = prepare(folder)
    config = json.loads(Path(arguments["config_file"]).read_text())
    for name in names:
        config[name]["activation_quant_params"].update(num_bits=16, asymmetric=False)
    edit_config(arguments, **config)
    return arguments


def bits_of(model):
    graph_def = tf1.GraphDef.FromString(Path(model).read_bytes())
    return {layer.key: layer.input_grid.num_bits for layer in read_layers(GraphView(graph_def))}


def test_a_run_and_its_files(workdir):
    arguments = prepare_wide(workdir, WIDE)
    result = calibrate(arguments)
    expected = {name: 16 if name in WIDE else 8 for name in SMALL_NET_LAYERS}
    assert bits_of(result.model_file) == expected
    assert {name: each.num_bits for name, each in read_record(arguments["record_file"]).items()} == expected
    final = json.loads((workdir / "out" / "accuracy_based_auto_calibration_final_config.json").read_text())
    assert {name: final[name]["activation_quant_params"]["num_bits"] for name in expected} == expected
    report = json.loads((workdir / "out" / "report.json").read_text())
    activations = {layer["name"]: layer["activation"] for layer in report["layers"]}
    assert {name: each["num_bits"] for name, each in activations.items()} == expected
    low, high = activations["dw/depthwise"]["clip"]
    scale = activations["dw/depthwise"]["scale"]
    np.testing.assert_allclose([low, high], [-32768 * scale, 32767 * scale], rtol=1e-5)
    assert activations["dw/depthwise"]["clipped"] == 0
    assert (workdir / "out" / "report.html").read_text().count(", 16 bits.") == len(WIDE)


def test_a_search_is_resumed_with_what_it_had_found(workdir):
    """No image is calibrated again, and all files are those of the run that was not cut off."""
    arguments = prepare_wide(workdir, WIDE)
    loss = calibrate(arguments).loss
    evaluator = Evaluator(limit=0.5 * loss)
    result = calibrate(arguments, evaluator, **OPTIONS)
    assert not all(result.roll_back_config.values()) and len(evaluator.evaluated) > 2
    files = contents(workdir / "out")
    shutil.rmtree(workdir / "out")
    again = prepare_wide(workdir, WIDE)
    following = Evaluator(limit=0.5 * loss)
    calibrate(again, following, resume=True, **OPTIONS)
    assert not following.evaluated
    reports = {path for path in files if path.name.startswith("report.")}  # they tell of another command
    assert {path: data for path, data in contents(workdir / "out").items() if path not in reports} == {
        path: data for path, data in files.items() if path not in reports
    }


def test_16_bits_lose_less_than_8(workdir):
    losses = [calibrate(prepare_wide(workdir, names)).loss for names in ((), WIDE, SMALL_NET_LAYERS)]
    assert losses[2] < losses[1] < losses[0]


def test_layers_are_compared_with_the_original(workdir):
    """What a layer of 16 bits does alone is what its weights do; a pool has none, and does next to nothing."""

    def decibels(names):
        arguments = prepare_wide(workdir, names)
        edit_config(arguments, input_balancing=False)  # so that only the bits differ
        result = calibrate(arguments)
        original = FloatModel.load(arguments["model_file"], [OUTPUT])
        found = compare_models(original, read_mapped_model(result.model_file), [OUTPUT], [{"input": IMAGES}])
        return {each.layer.name: each.alone.sqnr for each in found.layers}

    narrow, wide = decibels(()), decibels(WIDE)
    assert narrow.keys() == wide.keys() == set(SMALL_NET_LAYERS)
    assert narrow["pool/AvgPool"] < 60 and wide["pool/AvgPool"] > 70  # it clips what calibration has not seen
    assert wide["dw/depthwise"] > narrow["dw/depthwise"]
    assert wide["conv/Conv2D"] == pytest.approx(narrow["conv/Conv2D"], abs=1e-4)  # but for settled steps
