"""A block of a transformer whose dense layers read balanced values, in integers and in the files of all formats."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal, run, save, signal_to_noise, tf1, unoptimized
from test_every_format import OneBatch

import amct_tensorflow as amct
from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_plan import plan_export
from amct_tensorflow.export.verification import check_export
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.quantized.node_map import read_node_map
from amct_tensorflow.quantize.record.record_file import read_balance
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
pytest.importorskip("openvino", reason="the extra openvino is not installed")

WIDTH = 8
# One channel is much larger than the others, as in trained transformers.
GAIN = np.where(np.arange(WIDTH) == 3, 30, 1).astype(np.float32)
DENSE = ["q", "k", "v", "after", "up", "beside", "down"]
ROWS = normal((16, 5, WIDTH), 1)


def dense(x, width, name, seed):
    weights = normal((int(x.shape[-1]), width), seed, 0.1)
    return tf.nn.bias_add(tf.matmul(x, weights, name=name), normal((width,), seed, 0.1), name=f"{name}/bias")


def norm(x, seed):
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, normal((WIDTH,), seed), GAIN, 1e-5)


def block():
    x = norm(tf1.placeholder(tf.float32, [None, 5, WIDTH], name="x"), 2)
    weights = tf.nn.softmax(tf.matmul(dense(x, WIDTH, "q", 3), dense(x, WIDTH, "k", 4), transpose_b=True) / 8.0)
    x = norm(x + dense(tf.matmul(weights, dense(x, WIDTH, "v", 5)), WIDTH, "after", 6), 7)
    y = tf.nn.sigmoid(dense(x, 16, "up", 8)) * dense(x, 16, "beside", 9)
    tf.add(x, dense(y, WIDTH, "down", 10), name="out")


@pytest.fixture
def balanced(workdir):
    """The float model, and the quantized one, whose layers are all balanced by name."""
    graph_def = build(block)
    path = save(graph_def, Path("float.pb"))
    amct.create_quant_config("config.json", import_graph(graph_def, path))
    config = json.loads(Path("config.json").read_text())
    for name in DENSE:
        config[name]["dmq_balancer_param"] = 0.5
    Path("config.json").write_text(json.dumps(config))
    for step in (amct.quantize_preprocess, amct.quantize_model):
        graph = import_graph(graph_def, path)
        step(graph, "config.json", "record.txt", ["out"])
        with tf1.Session(graph=graph) as session:
            session.run("out:0", {"x:0": ROWS})
    amct.save_model(path, ["out"], "record.txt", "results/net")
    return graph_def, tf1.GraphDef.FromString(Path("results/net_quantized.pb").read_bytes())


def test_the_products_stand_once_in_front_of_the_quantizers(balanced):
    graph_def, quantized = balanced
    assert set(read_balance("record.txt")) == set(DENSE)
    view = GraphView(quantized)
    products = [node for node in quantized.node if node.name.endswith("balanced_input")]
    assert len(products) == 2  # of what q, k and v read, and of what up and beside do; others are free
    node_map = read_node_map("results/net_quant.json", view)
    for product in products:
        assert node_map.originals[product.name] == () and product.name not in node_map.values
        readers = view.readers(product.name)
        assert {reader.op for reader in readers} == {"AscendQuant"} and len(readers) == 1
    (expected,), (actual,) = (run(each, ["out"], {"x": ROWS}, unoptimized()) for each in (graph_def, quantized))
    assert signal_to_noise(expected, actual) > 30


@pytest.mark.parametrize("target", TARGETS)
def test_files_compute_the_same(balanced, target):
    evaluator = CheckedEvaluator(OneBatch(ROWS))
    plan = plan_export(Path("results/net_quantized.pb"), [], evaluator)
    exported = TARGETS[target].export(plan, evaluator)
    assert not exported.in_float
    assert check_export(plan, exported, evaluator).exported.divergence < 1e-4
