"""state.json keeps its form, and gives back what was put in."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from amct_tensorflow.quantize.algorithms.range_shape import RangeShape
from amct_tensorflow.quantize.calibration.calibrator import CalibrationResult
from amct_tensorflow.quantize.calibration.layer_analysis import LayerAnalysis
from amct_tensorflow.quantize.calibration.observers import ActivationSummary
from amct_tensorflow.quantize.record.factors import LayerCorrection, LayerFactors
from amct_tensorflow.search.evaluator import Evaluation
from amct_tensorflow.search.run_key import RunKey
from amct_tensorflow.search.state import SearchState

KEY = RunKey({"model": "0", "configuration": "1"}, {"dataset": "2"})
CHOICES = {"strategy": "BinarySearch", "device": "ascend"}
CALIBRATION = CalibrationResult(
    {"conv": LayerFactors(0.5, -3, (0.25,)), "pool": LayerFactors(1.0, 0)},
    {"conv": LayerCorrection(np.array([0.1, -2e-7])), "pool": LayerCorrection()},
    {"conv": LayerAnalysis(math.inf, 10, 1e-05, 0.02), "pool": LayerAnalysis(0.1 + 0.2, 0)},
    ({"input:0": np.ones((2, 3), np.float32)},),
    summaries={"conv": ActivationSummary(-1.0, np.float64(2.5), np.ones(4))},
    images=2,
    unquantizable={"fc": "it is \u00fcber"},
)
DOCUMENT = """{
 "version": 3,
 "key": {
  "parts": {
   "model": "0",
   "configuration": "1"
  },
  "identity": {
   "dataset": "2"
  }
 },
 "choices": {
  "strategy": "BinarySearch",
  "device": "ascend"
 },
 "evaluations": {
  "original": {
   "metric": {
    "top1": 0.5,
    "hits": 1
   },
   "model": "m"
  },
  "%s": {
   "metric": 1e-07,
   "model": "n",
   "arrays": {
    "file": "%s.npz",
    "sha256": "%s"
   }
  }
 },
 "calibration": {
  "calibration": {
   "record": "%s",
   "layers": {
    "conv": [
     "inf",
     10
    ],
    "pool": [
     "0.30000000000000004",
     0
    ]
   },
   "noise": {
    "conv": [
     1e-05,
     0.02
    ],
    "pool": [
     null,
     null
    ]
   },
   "ranges": {
    "conv": [
     -1.0,
     2.5
    ]
   },
   "batches": 1,
   "images": 2,
   "obstacles": {
    "fc": "it is \\u00fcber"
   },
   "arrays": {
    "file": "calibration.npz",
    "sha256": "%s"
   }
  }
 }
}"""


@pytest.fixture
def state(tmp_path):
    found = SearchState.begin(tmp_path / "state", KEY, CHOICES)
    found.add_evaluation(None, Evaluation({"top1": 0.5, "hits": 1}, 1.0, None, "m"))
    found.add_calibration(CALIBRATION)
    found.add_evaluation(["conv"], Evaluation(1e-7, 1.0, np.array([0.0, 1.0]), "n"))
    return found


def resume(state, choices=CHOICES):
    return SearchState.resume(state.folder, KEY, choices, lambda _: None)


def test_the_document_keeps_its_form(state):
    text = (state.folder / "state.json").read_text()
    document = json.loads(text)
    name, entry = list(document["evaluations"].items())[1]
    calibration = document["calibration"]["calibration"]
    record = json.dumps(calibration["record"])[1:-1]
    expected = DOCUMENT % (name, name[:16], entry["arrays"]["sha256"], record, calibration["arrays"]["sha256"])
    assert text == expected


def test_what_was_kept_is_known_again(state):
    found = resume(state)
    original = found.evaluation(None)
    assert (original.metric, original.model, original.image_results) == ({"top1": 0.5, "hits": 1}, "m", None)
    again = found.evaluation(["conv"])
    assert (again.metric, again.model, again.image_results.tolist()) == (1e-7, "n", [0, 1])
    calibration = found.calibration
    assert calibration.factors == CALIBRATION.factors and calibration.analyses == CALIBRATION.analyses
    assert calibration.corrections["conv"].bias.tolist() == [0.1, -2e-7] and not calibration.corrections["pool"].parts()
    assert (calibration.images, calibration.unquantizable) == (2, CALIBRATION.unquantizable)
    assert calibration.summaries["conv"].highest == 2.5 and len(calibration.batches) == 1


def test_how_values_fill_their_range_is_known_again(tmp_path):
    """A state that lacks it, as those of before, is read all the same (``DOCUMENT``)."""
    shapes = {"conv": RangeShape(100, 0.25, 1e-3, None), "pool": RangeShape(5, -0.5, 2.0, 9.5)}
    summaries = {name: ActivationSummary(-1.0, 2.0, np.ones(4), shape) for name, shape in shapes.items()}
    state = SearchState.begin(tmp_path / "state", KEY, CHOICES)
    state.add_calibration(replace(CALIBRATION, summaries=summaries))
    assert {name: each.shape for name, each in resume(state).calibration.summaries.items()} == shapes


def test_it_is_said_what_was_chosen_otherwise(state, messages):
    resume(state)
    assert not any("made anew" in line for line in messages)
    found = resume(state, {"strategy": "BinarySearch", "device": "generic"})
    assert found.evaluation(None) is not None and found.calibration is not None
    assert "INFO Decisions are made anew, of what is known: device was ascend and is generic now." in messages
    found.add_evaluation(["pool"], Evaluation(2, 1.0, None, "p"))
    assert json.loads((state.folder / "state.json").read_text())["choices"]["device"] == "generic"


def test_a_state_that_does_not_tell_what_was_chosen_is_read(state, messages):
    """An earlier version wrote such ones."""
    file = state.folder / "state.json"
    document = json.loads(file.read_text())
    del document["choices"]
    file.write_text(json.dumps(document))
    assert resume(state).calibration is not None
    assert not any("made anew" in line for line in messages)


def test_what_was_chosen_otherwise_may_be_why_a_state_is_of_no_use(state, messages):
    document = json.loads((state.folder / "state.json").read_text())
    document["key"]["parts"]["configuration"] = "9"
    (state.folder / "state.json").write_text(json.dumps(document))
    assert resume(state, {**CHOICES, "device": "generic"}).calibration is None
    assert any("The configuration has changed" in line and "(device was ascend and is generic now)" in line
               for line in messages)  # fmt: skip


def test_news_is_added_to_what_was_resumed(state):
    before = json.loads((state.folder / "state.json").read_text())
    found = resume(state)
    found.add_evaluation(["pool"], Evaluation(2, 1.0, None, "p"))
    after = json.loads((state.folder / "state.json").read_text())
    (added,) = [each for name, each in after["evaluations"].items() if name not in before["evaluations"]]
    assert added == {"metric": 2, "model": "p"}
    assert {**after, "evaluations": before["evaluations"]} == before


@pytest.mark.parametrize(
    "metric", [0.1, -0.0, 5e-324, 2**70, True, None, "caf\u00e9", [1, 2.5, {"a": None}], np.float64(0.3)], ids=repr
)
def test_a_metric_that_json_holds_is_kept_exactly(tmp_path, metric):
    SearchState.begin(tmp_path, KEY, CHOICES).add_evaluation(None, Evaluation(metric, 1.0, None))
    again = SearchState.resume(tmp_path, KEY, CHOICES, lambda _: None).evaluation(None).metric
    assert repr(again) == repr(float(metric) if isinstance(metric, np.float64) else metric)


@pytest.mark.parametrize(
    "metric", [math.nan, math.inf, (1, 2), {1: 2}, 1j, "\udce9", np.float32(1), [np.int64(1)]], ids=repr
)
def test_a_metric_that_json_does_not_hold_is_left_out(tmp_path, metric, messages):
    found = SearchState.begin(tmp_path, KEY, CHOICES)
    found.add_evaluation(None, Evaluation(metric, 1.0, None))
    assert found.evaluation(None).metric is metric and not list(tmp_path.iterdir())
    assert any("cannot be kept in a file" in line for line in messages)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda document: document["evaluations"]["original"].pop("metric"), "missing required field `metric`"),
        (lambda document: document["evaluations"]["original"].update(model=3), "evaluations[...].model"),
        (lambda document: document["calibration"]["calibration"]["layers"].update(conv=["0.5", 1.5]), "layers[...][1]"),
        (lambda document: document["calibration"]["calibration"]["layers"].update(conv=["half", 1]), "layer 'conv'"),
        (lambda document: document["calibration"]["calibration"]["ranges"].update(conv=[2, 1]), "range of 'conv'"),
        (lambda document: document["calibration"]["calibration"].update(batches=0), "other batches than 0"),
        (lambda document: document.update(version=2), "another version"),
        (lambda document: document["key"]["parts"].update(model="9"), "The model has changed"),
    ],
)
def test_what_is_damaged_is_said(state, damage, said, messages):
    file = state.folder / "state.json"
    document = json.loads(file.read_text())
    damage(document)
    file.write_text(json.dumps(document))
    assert resume(state).calibration is None
    assert any(
        said in line and str(state.folder) in line and "Starting from the beginning" in line for line in messages
    )
