"""Products of two computed operands take part in a search as other layers do, and stand in its report."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal, save, tf1
from layers import PRODUCTS_TOO

import amct_tensorflow as amct
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.quantize.quantized.quantized_layer import read_layers
from amct_tensorflow.quantize.record.record_file import read_record
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase

X = normal((16, 6, 8), 5)


def net():
    """One head of attention, in front of a dense layer."""
    x = tf1.placeholder(tf.float32, [None, 6, 8], name="x")
    q, k, v = (tf.matmul(x, normal((8, 8), seed, 0.4), name=name) for seed, name in enumerate("qkv"))
    scores = tf.nn.softmax(8.0 * tf.matmul(q, k, transpose_b=True, name="qk"))
    y = tf.matmul(tf.matmul(scores, v, name="av"), normal((8, 4), 4), name="fc")
    tf.identity(y, name="out")


class Noise(AutoCalibrationEvaluatorBase):
    """Judges by the squared error of the output."""

    def __init__(self, most):
        self.most = most

    def calibration(self, graph, outputs):
        self.evaluate(graph, outputs)

    def evaluate(self, graph, outputs):
        with tf1.Session(graph=graph) as session:
            y = session.run(f"{outputs[0]}:0", {"x:0": X})
        (exact,) = EXACT
        return float(np.mean(np.square(y - exact)))

    def metric_eval(self, original_metric, new_metric):
        return new_metric <= self.most, new_metric - original_metric


EXACT = []


@pytest.fixture(name="search")
def searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph_def = build(net)
    model = save(graph_def, Path("float.pb"))
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    with tf1.Session(graph=graph) as session:
        EXACT[:] = [session.run("out:0", {"x:0": X})]
    Path("simple.cfg").write_text(PRODUCTS_TOO)
    amct.create_quant_config("config.json", graph, config_defination="simple.cfg")

    def run(most, **options):
        return amct.accuracy_based_auto_calibration(
            str(model), ["out"], "record.txt", "config.json", "results/net", Noise(most), **options
        )

    return run


@pytest.mark.parametrize("sensitivity", ["CosineSimilarity", "OutputDivergence"])
def test_a_search_with_products(search, sensitivity):
    everything = search(np.inf)
    assert all(everything.roll_back_config.values()) and everything.roll_back_config.keys() >= {"qk", "av"}
    strict = search(0.0, strategy="BinarySearch", sensitivity=sensitivity)
    assert strict.roll_back_config.keys() == everything.roll_back_config.keys()
    assert strict.evaluations > everything.evaluations and strict.loss <= everything.loss


def test_one_product_in_int8_and_one_in_float(search):
    config = json.loads(Path("config.json").read_text())
    config["av"]["quant_enable"] = False
    Path("config.json").write_text(json.dumps(config))
    search(np.inf)
    quantized = tf1.GraphDef.FromString(Path("results/net_quantized.pb").read_bytes())
    assert {layer.key for layer in read_layers(GraphView(quantized))} == {"q", "k", "v", "qk", "fc"}
    (path,) = Path("results").glob("*report.json")
    report = json.loads(path.read_text())
    layers = {layer["name"]: layer for layer in report["layers"]}
    # The second operand of the scores is k; that of a layer with weights is no activation.
    second = layers["qk"]["second_operand"]
    k = X @ normal((8, 8), 1, 0.4)
    assert [second["observed"][end] for end in ("lowest", "highest")] == pytest.approx([k.min(), k.max()], rel=1e-4)
    assert (second["offset"], second["num_bits"]) == (0, 8)
    assert second["scale"] == pytest.approx(read_record("record.txt")["qk"].scale_w[0], rel=1e-6)
    assert layers["q"]["second_operand"] is None
    assert layers["qk"]["int8"] and not layers["av"]["int8"]
    assert layers["qk"]["multiply_accumulates"] == 6 * 6 * 8
