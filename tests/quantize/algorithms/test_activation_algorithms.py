"""What is asked of an algorithm for activations, and that one more takes a file and a row in the registry."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from graphs import build, small_net, tf1

from amct_tensorflow.errors import ConfigTypeError, ConfigValueError
from amct_tensorflow.graph.view import GraphView, static_shapes
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.layers import find_layers
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.algorithms import ACTIVATION_ALGORITHMS, DEFAULT_ALGORITHM
from amct_tensorflow.quantize.algorithms.activation_algorithm import ActivationAlgorithm
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors, range_factors
from amct_tensorflow.quantize.calibration.calibrator import Calibrator
from amct_tensorflow.quantize.config.json_file import dump_config, parse_config
from amct_tensorflow.quantize.config.simplified import parse_simplified

GRAPH_DEF = build(small_net)
OP_TYPES = GraphView(GRAPH_DEF).op_types()
LAYERS = find_layers(GraphView(GRAPH_DEF, static_shapes(import_graph(GRAPH_DEF, "small net"))))


@pytest.mark.parametrize("algorithm", ACTIVATION_ALGORITHMS.values(), ids=ACTIVATION_ALGORITHMS)
def test_every_algorithm(algorithm):
    default = algorithm()
    assert ACTIVATION_ALGORITHMS[algorithm.name] is algorithm
    assert default.fault() is None
    assert set(default.content()) == {"act_algo", *algorithm.parameters()}


def test_default():
    assert DEFAULT_ALGORITHM in ACTIVATION_ALGORITHMS.values()


@dataclass(frozen=True)
class Margin(ActivationAlgorithm):
    """The range seen, times a factor on each side, in whole steps of something."""

    name: ClassVar[str] = "margin"
    message: ClassVar[str] = "MarginQuantize"

    factors: tuple[float, float] = (1.0, 1.0)
    tenths: int = 0
    limit: float = 2.0

    def fault(self):
        return f"limit is {self.limit}; it must be above 1." if self.limit <= 1 else None

    def search(self, distribution, asymmetric) -> ActivationFactors:
        below, above = (min(factor + self.tenths / 10, self.limit) for factor in self.factors)
        return range_factors(below * distribution.lowest, above * distribution.highest, asymmetric)


@pytest.fixture
def margin(monkeypatch):
    monkeypatch.setitem(ACTIVATION_ALGORITHMS, Margin.name, Margin)


def from_json(parameters):
    return parse_config(
        f'{{"range_refinement": false, "conv/Conv2D": {{"activation_quant_params": {{{parameters}}}}}}}',
        "config.json",
        LAYERS,
        OP_TYPES,
    )


def from_cfg(parameters):
    layer = f'layer_name: "conv/Conv2D" calibration_config: {{ {parameters} }}'
    return parse_simplified(f"override_layer_configs: {{ {layer} }}", "net.cfg", LAYERS, OP_TYPES)


FORMS = {
    "json": lambda: from_json('"act_algo": "margin", "factors": [1, 1.5], "tenths": 1, "asymmetric": false'),
    "cfg": lambda: from_cfg("margin_quantize: { factors_end: 1.5 tenths: 1 asymmetric: false }"),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_new_algorithm_from_a_configuration_to_factors(margin, form):
    config = form()
    activation = config.layers["conv/Conv2D"].activation
    assert activation.algorithm == Margin((1.0, 1.5), 1)
    assert not activation.asymmetric
    assert parse_config(dump_config(config), "again.json", LAYERS, OP_TYPES) == config

    graph = import_graph(GRAPH_DEF, "small net")
    calibrator = Calibrator(FloatModel.of_graph(graph, ["probabilities"]), config, lambda _: None)
    (placeholder,) = (node for node in graph.get_operations() if node.type == "Placeholder")
    images = np.linspace(-1, 3, 2 * 12 * 12 * 3, dtype=np.float32).reshape(2, 12, 12, 3)
    with tf1.Session(graph=graph) as session:
        session.run("probabilities:0", {placeholder.outputs[0]: images})
    factors = calibrator.check_complete().factors["conv/Conv2D"]
    assert factors.scale_d == np.float32(3 * 1.6 / 127)
    assert factors.offset_d == 0


def test_a_new_algorithm_for_a_tensor(margin):
    def parse(choice):
        text = f'tensor_quantize: {{ layer_name: "add" input_index: 0 {choice} }}'
        return parse_simplified(text, "net.cfg", LAYERS, {**OP_TYPES, "add": "AddV2"})

    config = parse("margin_quantize: { tenths: 3 }")
    assert config.tensor_quantize[0].activation.algorithm == Margin(tenths=3)
    with pytest.raises(ConfigValueError, match="tensor_quantize: give either hfmg_quantize or margin_quantize"):
        parse("hfmg_quantize: { } margin_quantize: { }")


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ('"act_algo": "margin", "limit": 0.5', ConfigValueError, "limit is 0.5; it must be above 1."),
        ('"act_algo": "margin", "tenths": 0.5', ConfigTypeError, "tenths must be an integer"),
        ('"act_algo": "margin", "factors": 0.5', ConfigTypeError, "factors must be an array of two numbers"),
        ('"act_algo": "margin", "num_of_bins": 1024', ConfigValueError, "num_of_bins belongs to act_algo hfmg"),
        ('"limit": 3, "tenths": 1', ConfigValueError, "tenths, limit belong to act_algo margin. Delete them"),
        ('"act_algo": "kl"', ConfigValueError, "use 'ifmr' or 'hfmg' or 'margin'"),
    ],
)
def test_mistakes_with_a_new_algorithm(margin, parameters, error, words):
    with pytest.raises(error, match=r"config\.json, 'conv/Conv2D'") as caught:
        from_json(parameters)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("margin_quantize: { limit: 0.5 }", "limit is 0.5; it must be above 1."),
        ("margin_quantize: { factors_start: inf }", "margin_quantize holds a value that is not finite"),
        ("margin_quantize: { tenths: 0.5 }", "malformed"),
        ("margin_quantize: { dst_type: INT16 asymmetric: true }", "asymmetric must be false for 16 bits"),
    ],
)
def test_mistakes_in_a_simplified_configuration(margin, parameters, words):
    with pytest.raises(ConfigValueError, match=r"net\.cfg") as caught:
        from_cfg(parameters)
    assert words in str(caught.value)
