"""What a person reads at the end of a run."""

import pytest

from amct_tensorflow.devices.device_table import GENERIC, UNNAMED
from amct_tensorflow.devices.rungs import A16W8, FLOAT, INT8
from amct_tensorflow.results.summary import log_report
from amct_tensorflow.search.evaluator import Evaluation, MetricEval
from amct_tensorflow.search.statistics import LossInterval
from amct_tensorflow.search.trials import RunCost, SearchResult, Trial


def result(*, satisfied=True, loss=0.25, interval=None, target=None, reused=0, wide=None):
    first = Trial({"conv": INT8, "fc": INT8}, Evaluation(89.0, 2.0, None), MetricEval(False, 1.0))
    saved = Trial({"conv": INT8, "fc": wide or FLOAT}, Evaluation(90.0 - loss, 2.0, None), MetricEval(satisfied, loss))
    return SearchResult(
        original=Evaluation(90.0, 2.0, None),
        trials=(first, saved),
        saved=saved,
        plan=None,
        quantized=None,
        ranking={},
        float_mac_share=0.0 if wide else 0.125,
        wide_mac_share=0.125 if wide else 0.0,
        rungs=GENERIC.rungs if wide else UNNAMED.rungs,
        interval=interval,
        target_loss=target,
        calibration=None,
        cost=RunCost(evaluations=3, reused=reused, evaluation_seconds=120.0, seconds=123.5),
        interruption=None,
    )


def report(messages, **options):
    log_report(result(**options), "out", "records")
    return messages


def test_the_table_and_the_closing_lines(messages):
    assert report(messages) == [
        "INFO original model          | 90.0",
        "INFO all layers quantized    | 89.0",
        "INFO saved model             | 89.75",
        "INFO loss of the saved model | 0.25",
        "INFO layers in float         | 1 of 2, 12.5 % of the multiply-accumulates",
        "INFO evaluations             | 3, 2 min",
        "INFO everything else         | 3.5 s",
        "INFO Accuracy of original model is         90.0",
        "INFO Accuracy of global quantized model is 89.0",
        "INFO Accuracy of saved model is            89.75",
        "INFO The generated model is stored in dir: out",
        "INFO The records is stored in dir: records",
    ]


def test_layers_in_16_bits_have_a_row_of_their_own(messages):
    table = report(messages, wide=A16W8)
    assert table[4:6] == [
        "INFO layers in float         | 0 of 2, 0.0 % of the multiply-accumulates",
        "INFO layers in 16 bits       | 1, 12.5 %",
    ]


def test_what_an_earlier_run_had_done(messages):
    assert "INFO evaluations             | 3 (2 of them in the earlier run), 2 min" in report(messages, reused=2)


def test_a_missed_target_is_said(messages):
    warnings = [line for line in report(messages, satisfied=False, loss=2.0) if line.startswith("WARNING")]
    assert warnings == [
        "WARNING No quantized model satisfies the requirement. The best one found is saved: its loss is 2."
    ]


@pytest.mark.parametrize(
    ("target", "warning"),
    [
        (0.5, "100 images are too few to resolve a loss of 0.5: the loss is known to +-1 only. About 400 would."),
        (0.0, "100 images are too few to resolve a loss of 0: the loss is known to +-1 only. No number of them can "
              "resolve 0."),
        (1.0, None),
        (None, None),
    ],
)  # fmt: skip
def test_too_few_images(messages, target, warning):
    lines = report(messages, interval=LossInterval(-0.75, 1.25, 100), target=target)
    assert "INFO loss of the saved model | 0.25 (-0.75 to 1.25 with 95 % confidence, from 100 images)" in lines
    assert [line for line in lines if line.startswith("WARNING")] == ([f"WARNING {warning}"] if warning else [])
