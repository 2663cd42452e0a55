"""Layers that a search raises to 16 bits: calibrated from the kept batches, switched, and built into one model."""

from contextlib import closing

import numpy as np
import pytest
from graphs import SMALL_NET_LAYERS, build, normal, run, small_net, tf1
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.calibration.calibrator import Calibrator
from amct_tensorflow.quantize.calibration.wide_rung import wide_plan
from amct_tensorflow.quantize.config.defaults import default_config
from amct_tensorflow.quantize.quantized.builder import quantize_graph
from amct_tensorflow.search.configuration import in_16_bits
from amct_tensorflow.search.sensitivity.divergence import Divergence
from amct_tensorflow.search.sensitivity.switchable_model import SwitchableModel

IMAGES, OUTPUT = normal((6, 12, 12, 3), 50), "probabilities"
LAYERS = st.sets(st.sampled_from(SMALL_NET_LAYERS))


def calibrated(config_of=lambda config: config, batches=(IMAGES,), balance=None):
    """Returns model, configuration and calibration of the small net, and its plan."""
    model = FloatModel.of_graph(import_graph(build(small_net), "test"), [OUTPUT])
    config = config_of(default_config(model.layers, model.op_types, batch_num=len(batches)))
    calibrator = Calibrator(model, config, lambda _: None, for_search=True, balance=balance)
    with tf1.Session(graph=model.graph) as session:
        for images in batches:
            session.run(f"{OUTPUT}:0", {"input:0": images})
    calibration = calibrator.check_complete()
    return model, config, calibration, calibration.plan(calibrator.fused, [OUTPUT])


@pytest.fixture(scope="module")
def raised():
    model, config, calibration, plan = calibrated()
    wide = wide_plan(model.outline, plan, calibration, config)
    with closing(SwitchableModel(model.outline, plan, calibration.batches, wide)) as switchable:
        yield plan, wide, switchable


def same_corrections(one, other):
    assert one.corrections.keys() == other.corrections.keys()
    for name, correction in one.corrections.items():
        parts, others = correction.parts(), other.corrections[name].parts()
        assert parts.keys() == others.keys()
        for part, values in parts.items():
            np.testing.assert_allclose(values, others[part], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("batches", [(IMAGES,), (IMAGES[:2], IMAGES[2:])])
def test_what_is_raised_is_what_the_configuration_would_have_asked_for(batches):
    model, config, calibration, plan = calibrated(batches=batches)
    wide = wide_plan(model.outline, plan, calibration, config)
    # What is balanced in 8 bits stays so; in 16 bits alone it would not gain enough to be.
    assert calibration.balance
    _, _, asked, expected = calibrated(lambda config: config.with_wide(SMALL_NET_LAYERS), batches, calibration.balance)
    assert wide.factors == expected.factors == asked.factors
    assert {factors.num_bits for factors in wide.factors.values()} == {16}
    same_corrections(wide, expected)


def test_what_reads_16_bits_anyway_stays(raised):
    model, config, calibration, plan = calibrated(lambda config: config.with_wide(["dw/depthwise"]))
    wide = wide_plan(model.outline, plan, calibration, config)
    assert wide.factors["dw/depthwise"] is plan.factors["dw/depthwise"]
    assert wide.factors.keys() == plan.factors.keys()


@settings(max_examples=15, deadline=None)
@given(in_8=LAYERS, in_16=LAYERS, base=LAYERS)
def test_every_set_scores_like_its_saved_model(raised, in_8, in_16, base):
    plan, wide, switchable = raised
    in_8 -= in_16
    mixed = plan.with_layers_of(wide, in_16)
    assert {name for name, each in mixed.factors.items() if each.num_bits == 16} == in_16
    quantized = quantize_graph(mixed.restrict({name: name in in_8 | in_16 for name in SMALL_NET_LAYERS}))
    divergence, graph_def = Divergence(1), build(small_net)
    feeds = {"input": IMAGES}
    divergence.add(run(graph_def, [OUTPUT], feeds), run(quantized.graph_def, [OUTPUT], feeds))
    (actual,) = switchable.divergences([{*in_8, *map(in_16_bits, in_16)}], base)
    assert actual == pytest.approx(divergence.value, rel=1e-3, abs=1e-8)


def test_16_bits_move_the_outputs_less(raised):
    """What is left is what weights in 8 bits lose; of a layer without, next to nothing."""
    _, _, switchable = raised
    narrow = switchable.divergences([{name} for name in SMALL_NET_LAYERS])
    wide = switchable.divergences([{in_16_bits(name)} for name in SMALL_NET_LAYERS])
    assert 0 < sum(wide) < 0.7 * sum(narrow)
    pool = SMALL_NET_LAYERS.index("pool/AvgPool")
    assert wide[pool] < narrow[pool] / 1000


def test_a_layer_that_saw_nothing_but_zeros():
    """Its output is its bias, of which the step keeps at least 12 bits, as in 8 bits."""
    model, config, calibration, plan = calibrated(batches=(np.zeros_like(IMAGES),))
    wide = wide_plan(model.outline, plan, calibration, config)
    assert wide.factors["conv/Conv2D"].scale_d == plan.factors["conv/Conv2D"].scale_d
    quantized = quantize_graph(wide)
    (expected,), (actual,) = (
        run(graph_def, [OUTPUT], {"input": np.zeros_like(IMAGES)})
        for graph_def in (build(small_net), quantized.graph_def)
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-2)
