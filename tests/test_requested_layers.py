"""A layer that is asked for itself, and that preparation writes with other nodes, is quantized like any other."""

import json
from pathlib import Path

import pytest
import tensorflow as tf
from graphs import build, normal, rng, run, save, signal_to_noise, tf1

import amct_tensorflow as amct
from amct_tensorflow.errors import ConfigValueError
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.quantization import make_quant_config, read_config_for
from amct_tensorflow.quantize.algorithms.hfmg import Hfmg

LAYERS = {
    "grouped": ((6, 6, 4), lambda x: tf.nn.conv2d(x, normal((3, 3, 2, 6), 1), 1, "SAME", name="layer")),
    "heads": (
        (6, 4),
        lambda x: tf.raw_ops.Einsum(inputs=[x, normal((4, 2, 3), 1)], equation="bsi,ino->bsno", name="layer"),
    ),
}


@pytest.fixture(params=LAYERS)
def model(request):
    """A graph whose ``layer`` is read by its ``out``, and what it is fed with; it is saved as float.pb."""
    shape, layer = LAYERS[request.param]

    def make():
        tf.nn.relu(layer(tf1.placeholder(tf.float32, [None, *shape], name="x")), name="out")

    graph_def = build(make)
    save(graph_def, Path("float.pb"))
    return graph_def, rng(2).normal(size=(8, *shape)).astype("float32")


def graph_of(graph_def):
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    return graph


def calibrate(model, outputs):
    graph_def, x = model
    graph = graph_of(graph_def)
    amct.quantize_model(graph, "config.json", "record.txt", outputs)
    with tf1.Session(graph=graph) as session:
        session.run(["layer:0", "out:0"], {"x:0": x})


def check_quantized(model, outputs):
    graph_def, x = model
    amct.save_model("float.pb", outputs, "record.txt", "results/net")
    quantized = tf1.GraphDef.FromString(Path("results/net_quantized.pb").read_bytes())
    assert "AscendQuant" in [node.op for node in quantized.node]
    for expected, actual in zip(run(graph_def, outputs, {"x": x}), run(quantized, outputs, {"x": x}), strict=True):
        assert 30 < signal_to_noise(expected, actual) < 80


@pytest.mark.parametrize("calibrated", [["layer", "out"], None])
def test_a_configuration_that_knows_no_outputs_fits_the_model_with_them(model, calibrated):
    amct.create_quant_config("config.json", graph_of(model[0]))
    assert "layer" in json.loads(Path("config.json").read_text())
    calibrate(model, calibrated)
    check_quantized(model, ["layer", "out"])


def test_corrections_are_found_by_either_name(model):
    """The layer has one name in the record and another in the model that is saved."""
    amct.create_quant_config("config.json", graph_of(model[0]))
    models = []
    for outputs in (["layer", "out"], None):
        calibrate(model, outputs)
        amct.save_model("float.pb", ["layer", "out"], "record.txt", "results/net")
        models.append(Path("results/net_quantized.pb").read_bytes())
    assert models[0] == models[1]


def test_lists_name_it_as_the_file_does(model):
    asked = FloatModel.load("float.pb", ["layer", "out"])
    with pytest.raises(ConfigValueError, match="Every quantizable layer is skipped"):
        make_quant_config(asked, skip_layers=["layer"])
    Path("config.json").write_text(json.dumps({"skip_fusion_layers": ["layer"], "layer": {}}))
    config = read_config_for(asked, "config.json")
    assert config.skip_fusion_layers == tuple(config.enabled_layers()) != ()


def test_a_layer_that_is_named_twice_is_refused(model):
    amct.create_quant_config("config.json", graph_of(model[0]))
    calibrate(model, ["layer", "out"])
    other = Path("record.txt").read_text().partition('key: "')[2].partition('"')[0]
    Path("config.json").write_text(json.dumps({"layer": {}, other: {}}))
    with pytest.raises(ConfigValueError, match=r"'layer' is a node that cannot be quantized\. Delete it"):
        amct.quantize_model(graph_of(model[0]), "config.json", "record.txt", ["layer", "out"])


def test_a_simplified_configuration_names_it_as_the_file_does(model):
    Path("net.cfg").write_text(
        'override_layer_configs { layer_name: "layer" calibration_config { hfmg_quantize { num_of_bins: 1024 } } }'
    )
    config = make_quant_config(FloatModel.load("float.pb", ["layer", "out"]), config_defination="net.cfg")
    (layer,) = config.layers.values()
    assert layer.activation.algorithm == Hfmg(1024)
