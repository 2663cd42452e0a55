"""The bundled model is the MobileNet V2 that model/README.md describes."""

import re

import numpy as np
import pytest
from conftest import ROOT, load_script

from amct_tensorflow.data import find_files, scan_records
from amct_tensorflow.graph.view import attribute
from amct_tensorflow.model.model_file import load_graph, read_model

sample = load_script("src/mobilenet_v2_accuracy_based_auto_calibration.py")
fetcher = load_script("model/fetch_mobilenet_v2.py")

MODEL = ROOT / "model" / "mobilenet_v2_0.35_48_fashion_mnist.pb"
DESCRIBED = (ROOT / "model" / "README.md").read_text(encoding="utf-8")


def test_it_has_the_names_and_the_topology_of_the_official_one():
    """Every node that tells the official model has its counterpart, with the same op; no layer is left over."""
    nodes = {node.name: node for node in read_model(MODEL).graph_def.node}
    expected = fetcher.expected_ops()
    assert {name: nodes[name].op for name in expected if name in nodes} == expected
    layers = {name for name, node in nodes.items() if node.op in ("Conv2D", "DepthwiseConv2dNative", "AvgPool")}
    assert layers == {name for name, op in expected.items() if op in ("Conv2D", "DepthwiseConv2dNative", "AvgPool")}
    assert len(layers) == 54
    strides = [attribute(nodes[name], "strides").list.i[1] for name in sorted(layers) if "depthwise" in name]
    assert strides.count(2) == 4


def test_size():
    assert MODEL.stat().st_size < 2.5e6
    assert f"{MODEL.stat().st_size / 1e6:.2f} MB" in DESCRIBED


def test_accuracy_on_the_bundled_images():
    dataset = scan_records(find_files(ROOT / "data" / "fashion_mnist"), sample.FEATURES)
    evaluator = sample.MobileNetV2Evaluator(dataset, 100)
    accuracy = evaluator.evaluate(load_graph(MODEL), [sample.OUTPUT])
    described = float(re.search(r"([\d.]+) % on the 2,000 bundled", DESCRIBED)[1])
    assert accuracy == pytest.approx(described, abs=0.2)
    assert float(np.mean(evaluator.image_results())) == pytest.approx(accuracy)
