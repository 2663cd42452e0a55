"""The evaluator that needs no more than raw files of a model's inputs."""

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal, save, small_net

import amct_tensorflow as amct
from amct_tensorflow.errors import ArgumentTypeError, ArgumentValueError, EvaluatorError
from amct_tensorflow.model.model_file import load_graph
from amct_tensorflow.quantize.record.record_file import read_record
from amct_tensorflow.search.sensitivity.divergence import Divergence


@pytest.fixture
def net(workdir):
    """A model, and three batches of data in a folder."""
    (workdir / "data").mkdir()
    for index in range(3):
        normal((2, 12, 12, 3), index).astype(np.float32).tofile(workdir / "data" / f"{index}.bin")
    return save(build(small_net), workdir / "net.pb")


SHAPE = "input:0:2,12,12,3"


def evaluator(**options):
    return amct.GraphEvaluator("data/", SHAPE, "float32", **options)


def outputs_of(net):
    return evaluator().evaluate(load_graph(net), ["probabilities"])


def test_calibration_by_the_steps(net):
    amct.create_quant_config("config.json", load_graph(net), batch_num=3)
    graph = load_graph(net)
    amct.quantize_model(graph, "config.json", "record.txt")
    evaluator().calibration(graph, ["probabilities"])
    assert read_record("record.txt")
    amct.save_model(str(net), ["probabilities"], "record.txt", "results/net")


def test_as_many_batches_as_asked_for(net):
    amct.create_quant_config("config.json", load_graph(net), batch_num=2)
    for count, complete in ((1, False), (2, True)):
        graph = load_graph(net)
        amct.quantize_model(graph, "config.json", "record.txt")
        evaluator(batch_num=count).calibration(graph, ["probabilities:0"])
        assert bool(Path("record.txt").read_text()) == complete


def test_the_whole_search(net):
    result = amct.accuracy_based_auto_calibration(
        str(net), ["probabilities"], "record.txt", _config(net), "results/net", evaluator(max_divergence=0.5)
    )
    assert result.target_met
    assert 0 < result.loss < 0.5


def _config(net):
    amct.create_quant_config("config.json", load_graph(net))
    return "config.json"


def test_evaluate_returns_the_outputs_batch_by_batch(net):
    metric = outputs_of(net)
    graph = load_graph(net)
    with tf.compat.v1.Session(graph=graph) as session:
        for index, [values] in enumerate(metric.batches):
            batch = np.fromfile(f"data/{index}.bin", np.float32).reshape(2, 12, 12, 3)
            np.testing.assert_array_equal(values, session.run("probabilities:0", {"input:0": batch}))
    assert str(metric) == "<outputs for 3 batches>"


def test_the_loss_is_the_divergence_of_the_outputs(net):
    original = outputs_of(net)
    other = type(original)([[values + 0.1 for values in batch] for batch in original.batches])
    expected = Divergence(1)
    for one, two in zip(original.batches, other.batches, strict=True):
        expected.add(one, two)
    assert expected.value > 0
    for largest, satisfied in ((expected.value, True), (expected.value * 0.99, False)):
        assert evaluator(max_divergence=largest).metric_eval(original, other) == (satisfied, expected.value)


def test_without_a_requirement_nothing_is_judged(net):
    original = outputs_of(net)
    with pytest.raises(EvaluatorError, match="Say with max_divergence how far"):
        evaluator().metric_eval(original, original)


def test_an_input_that_the_model_does_not_have(net):
    other = amct.GraphEvaluator(["data"], {"y": [2, 12, 12, 3]}, ["float32"])
    with pytest.raises(EvaluatorError, match=re.escape("names y:0, but the inputs of the model are input:0")):
        other.calibration(load_graph(net), ["probabilities"])


def test_other_data_has_another_identity(net, workdir):
    before = evaluator().identity()
    assert before == evaluator().identity() != evaluator(batch_num=1).identity()
    (workdir / "data" / "2.bin").unlink()
    assert evaluator().identity() != before


@pytest.mark.parametrize(
    ("arguments", "error"),
    [((1, SHAPE, "float32"), ArgumentTypeError),
     (("data", 1, "float32"), ArgumentTypeError),
     (("data", SHAPE, [1]), ArgumentTypeError),
     (("data", "input:2,a", "float32"), ArgumentValueError),
     (("data;data", SHAPE, "float32"), ArgumentValueError)],
)  # fmt: skip
def test_wrong_arguments(net, arguments, error):
    with pytest.raises(error):
        amct.GraphEvaluator(*arguments)
