"""The files that tell what was tried, and what all files of a run are."""

import json
from pathlib import Path

import pytest

from amct_tensorflow.devices.rungs import FLOAT, INT8
from amct_tensorflow.quantize.quantized.model_files import ModelPaths
from amct_tensorflow.results.result_files import ResultFiles, dump_history, dump_ranking
from amct_tensorflow.search.evaluator import Evaluation, MetricEval
from amct_tensorflow.search.trials import Trial

HISTORY = """[
    {
        "roll_back_config":{
            "conv":true,
            "fc":false
        },
        "metric_eval":[
            false,
            0.75
        ]
    }
]"""


def trial(loss):
    return Trial({"conv": INT8, "fc": FLOAT}, Evaluation(90.0, 1.0, None), MetricEval(False, loss))


def test_history_is_the_trials_in_their_order():
    assert dump_history([trial(0.75)]) == HISTORY
    losses = [entry["metric_eval"][1] for entry in json.loads(dump_history([trial(2.0), trial(1.0)]))]
    assert losses == [2.0, 1.0]


def test_ranking_begins_with_the_most_sensitive_layer():
    assert json.loads(dump_ranking({"a": 0.9, "b": 0.5, "c": 1.0})) == [["b", 0.5], ["a", 0.9], ["c", 1.0]]


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_numbers_that_json_does_not_know_are_null(number):
    assert json.loads(dump_history([trial(number)]))[0]["metric_eval"] == [False, None]
    assert json.loads(dump_ranking({"a": number})) == [["a", None]]


FILES = {
    "net_quantized.pb",
    "net_quant.json",
    "record.txt",
    "record_bias_correction.json",
    "record_weights.npz",
    "report.html",
    "report.json",
    "accuracy_based_auto_calibration_final_config.json",
    "accuracy_based_auto_calibration_ranking_information.json",
    "accuracy_based_auto_calibration_record.json",
}


@pytest.mark.parametrize("config", [None, Path("elsewhere/config.json")])
@pytest.mark.parametrize("frozen", [None, b"a model"])
def test_every_file_and_folder_of_the_results_is_named(config, frozen):
    files = ResultFiles(ModelPaths.of("out/net"), Path("records/record.txt"), config, frozen)
    more = {"config.json"} if config else set()
    assert {path.name for path in files.paths} == FILES | more | ({"net_frozen.pb"} if frozen else set())
    assert set(map(str, files.folders)) == {"out", "records", "amct_log", *(["elsewhere"] if config else [])}
