"""What a calibration computes beside the caller: the same, one thing after the other, and errors are not lost."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from graphs import build, normal, small_net, tf1
from threadpoolctl import threadpool_info, threadpool_limits

from amct_tensorflow.errors import CalibrationError
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.calibration import calibrator as calibrators
from amct_tensorflow.quantize.calibration.calibrator import Calibrator
from amct_tensorflow.quantize.calibration.layer_analysis import AnalysesToCome, LayerAnalyser, LayerAnalysis
from amct_tensorflow.quantize.calibration.output_comparison import sum_of_products
from amct_tensorflow.quantize.config.defaults import default_config

IMAGES = normal((20, 12, 12, 3), 60)


@pytest.fixture
def beside():
    with ThreadPoolExecutor(1) as thread:
        yield thread


def calibrate(images=IMAGES, beside=None, overlaps=True):
    """Runs a calibration of a small graph, for a search; returns the calibrator."""
    model = FloatModel.of_graph(import_graph(build(small_net), "test"), ["probabilities"])
    config = default_config(model.layers, model.op_types)
    calibrator = Calibrator(model, config, lambda _: None, for_search=True, beside=beside, overlaps=overlaps)
    with tf1.Session(graph=model.graph) as session:
        session.run("probabilities:0", {"input:0": images})
    return calibrator


@pytest.mark.parametrize("smallest", [0, 1 << 26], ids=["large", "small"])
def test_the_result_is_that_of_the_callers_session(beside, monkeypatch, smallest):
    monkeypatch.setattr(calibrators, "_SMALL_BYTES", smallest)
    expected = calibrate().check_complete()
    calibrator = calibrate(beside=beside)
    assert calibrator.computes_beside == bool(smallest)
    found = calibrator.check_complete()
    assert found.factors == expected.factors and dict(found.analyses) == expected.analyses
    assert found.images == expected.images == len(IMAGES)
    for name, correction in expected.corrections.items():
        for part, values in correction.parts().items():
            np.testing.assert_array_equal(getattr(found.corrections[name], part), values)


def test_factors_are_computed_when_the_result_is_asked_for_unless_they_may_overlap(beside):
    """The caller's session has ended by then, and its memory is free."""
    calibrator = calibrate(beside=beside, overlaps=False)
    beside.submit(lambda: None).result()
    assert not calibrator.computes_beside and calibrator.result is None
    calibrator.check_fed()
    assert calibrator.check_complete().factors.keys() == calibrate().check_complete().factors.keys()


def test_factors_are_computed_in_the_callers_session_if_nobody_asks_for_the_result():
    assert calibrate().result is not None


def test_layers_of_a_large_model_are_measured_before_it_is_quantized(beside, monkeypatch):
    monkeypatch.setattr(calibrators, "_SMALL_BYTES", 0)
    assert isinstance(calibrate(beside=beside).check_complete().analyses, dict)


def test_what_nobody_wants_any_more_is_not_computed(beside):
    go_on = threading.Event()
    beside.submit(go_on.wait, 10)
    calibrator = calibrate(beside=beside)
    calibrator.stop()
    go_on.set()
    with pytest.raises(CalibrationError, match="stopped"):
        calibrator.check_complete()
    assert calibrator.result is None


@pytest.mark.parametrize("threads", [1, 2])
def test_measuring_takes_one_thread_of_blas(threads):
    """So that sums are the same however many there are, and need no limit that others would be under, too."""
    left, right = normal((300_000,), 1), normal((300_000,), 2)
    with threadpool_limits(1, "blas"):
        expected = sum_of_products(left, right)
    with threadpool_limits(threads, "blas"):
        assert sum_of_products(left, right) == expected


def test_the_threads_of_blas_are_as_many_as_before(beside):
    def counts():
        return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]

    before = counts()
    calibrator = calibrate(beside=beside)
    calibrator.check_complete()
    assert counts() == before
    assert len(calibrator.check_complete().analyses) > 0 and counts() == before


def test_layers_are_measured_from_when_the_result_is_taken(beside, monkeypatch):
    """Not while the caller is busy: there the processors have enough to do."""
    measured, analyse = threading.Event(), LayerAnalyser.analyse

    def note(*arguments):
        measured.set()
        return analyse(*arguments)

    monkeypatch.setattr(LayerAnalyser, "analyse", note)
    calibrator = calibrate(beside=beside)
    beside.submit(lambda: None).result()  # all that was begun has ended
    assert not measured.is_set()
    first, second = calibrator.check_complete(), calibrator.check_complete()
    assert len(first.analyses) > 0 and first.analyses is second.analyses and measured.is_set()


def test_an_error_beside_is_raised_where_the_result_is_asked_for(beside):
    images = np.array(IMAGES)
    images[3, 0, 0, 0] = np.nan
    calibrator = calibrate(images, beside)
    calibrator.check_fed()
    with pytest.raises(CalibrationError, match="invalid value inf or nan"):
        calibrator.check_complete()


def test_too_few_batches_show_before_anything_is_waited_for(beside):
    model = FloatModel.of_graph(import_graph(build(small_net), "test"), ["probabilities"])
    config = replace(default_config(model.layers, model.op_types), batch_num=2)
    calibrator = Calibrator(model, config, lambda _: None, for_search=True, beside=beside, overlaps=True)
    with tf1.Session(graph=model.graph) as session:
        session.run("probabilities:0", {"input:0": IMAGES})
    with pytest.raises(CalibrationError, match="needs 2 batches, but saw 1"):
        calibrator.check_fed()


def test_who_asks_for_an_analysis_waits_for_all_and_gets_their_error():
    future = Future()
    analyses = AnalysesToCome(future)
    timer = threading.Timer(0.1, future.set_result, [{"layer": LayerAnalysis(1.0, 2)}])
    timer.start()
    assert list(analyses) == ["layer"] and len(analyses) == 1 and analyses["layer"].multiply_accumulates == 2
    failed = Future()
    failed.set_exception(CalibrationError("broken"))
    with pytest.raises(CalibrationError, match="broken"):
        len(AnalysesToCome(failed))
