"""Accuracy-based auto-calibration on a small graph: results, files, and what wrong input gets."""

import json
import math
import platform
import shutil
import subprocess
import sys
from collections import Counter, OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from amct_tensorflow.common.auto_calibration import (
    AutoCalibrationEvaluatorBase,
    AutoCalibrationStrategyBase,
    CosineSimilaritySensitivity,
    SensitivityBase,
)
from graphs import PLAIN, SMALL_NET_LAYERS, build, normal, run, save, small_net, tf1
from programs import run_program
from reports import without_times

import amct_tensorflow as amct
from amct_tensorflow.errors import (
    AmctError,
    ArgumentTypeError,
    ArgumentValueError,
    CalibrationError,
    ConfigTypeError,
    ConfigValueError,
    EvaluatorError,
    MetricError,
    ModelError,
    ModelNotFoundError,
    OutputError,
)
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.record.record_file import read_record
from amct_tensorflow.search import roll_back
from amct_tensorflow.search.sensitivity.measures import OutputDivergenceSensitivity

IMAGES = normal((16, 12, 12, 3), 50)
OUTPUT = "probabilities"
FILES = {
    "net_quantized.pb",
    "net_quant.json",
    "record.txt",
    "config.json",
    "accuracy_based_auto_calibration_final_config.json",
    "accuracy_based_auto_calibration_ranking_information.json",
    "report.html",
    "report.json",
}


class Evaluator(AutoCalibrationEvaluatorBase):
    """The metric is the mean distance of the probabilities from those of the original, times 1000."""

    def __init__(self, limit=1e9, batches=1):
        self.limit = limit
        self.batches = batches
        self.reference = None
        self.evaluated = []

    def predict(self, graph, outputs):
        with tf1.Session(graph=graph) as session:
            return session.run(outputs[0] + ":0", {"input:0": IMAGES})

    def calibration(self, graph, outputs):
        with graph.as_default(), tf1.Session(graph=graph) as session:
            session.run(tf1.global_variables_initializer())
            for batch in np.split(IMAGES, 4)[: self.batches]:
                session.run(outputs[0] + ":0", {"input:0": batch})

    def evaluate(self, graph, outputs):
        with graph.as_default():
            tf.constant(1, name="the_graph_may_be_extended")
        self.evaluated.append(sum(operation.type == "AscendQuant" for operation in graph.get_operations()))
        probabilities = self.predict(graph, outputs)
        if self.reference is None:
            self.reference = probabilities
        return 1000 * float(np.abs(probabilities - self.reference).mean())

    def metric_eval(self, original_metric, new_metric):
        loss = new_metric - original_metric
        return loss <= self.limit, loss


def prepare(folder, make=small_net, **options):
    """Writes model and configuration; returns the arguments of a run."""
    graph_def = build(make)
    amct.create_quant_config(str(folder / "out" / "config.json"), import_graph(graph_def, "test"), **options)
    return {
        "model_file": save(graph_def, folder / "net.pb"),
        "outputs": [OUTPUT],
        "record_file": str(folder / "out" / "record.txt"),
        "config_file": str(folder / "out" / "config.json"),
        "save_dir": str(folder / "out" / "net"),
    }


def edit_config(arguments, **changes):
    path = Path(arguments["config_file"])
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def contents(folder):
    """Returns the results under a folder; the log and the state for resuming are none."""
    files = [path for path in Path(folder).rglob("*") if path.is_file() and path.suffix != ".log"]
    files = [path for path in files if "accuracy_based_auto_calibration_state" not in path.parts]
    return {path: without_times(path.name, path.read_bytes()) for path in files}


def calibrate(arguments, evaluator=None, **options):
    return amct.accuracy_based_auto_calibration(**arguments, evaluator=evaluator or Evaluator(), **options)


def test_all_layers_quantized_when_that_suffices(workdir, messages):
    arguments = prepare(workdir)
    before = Path(arguments["config_file"]).read_bytes()
    evaluator = Evaluator()
    result = calibrate(arguments, evaluator)
    assert result.target_met and result.evaluations == 2
    assert evaluator.evaluated == [0, 5]
    assert all(result.roll_back_config.values())
    names = {path.name for path in (workdir / "out").iterdir()}
    assert names == FILES | {"record_bias_correction.json", "record_weights.npz"}
    assert Path(arguments["config_file"]).read_bytes() == before
    final = [line for line in messages if line.startswith("INFO")][-5:]
    assert [line.split("is ")[0] for line in final[:3]] == [
        "INFO Accuracy of original model ",
        "INFO Accuracy of global quantized model ",
        "INFO Accuracy of saved model ",
    ]
    assert final[0] == "INFO Accuracy of original model is         0.0"
    assert final[3] == f"INFO The generated model is stored in dir: {workdir}/out"
    assert final[4] == f"INFO The records is stored in dir: {workdir}/out"


def test_model_and_configuration_as_objects(workdir):
    """The configuration then appears with the results; all of them are those of a run that reads files."""
    arguments = prepare(workdir, batch_num=2)
    calibrate(arguments, Evaluator(batches=2))
    expected = contents(workdir / "out")
    shutil.rmtree(workdir / "out")
    model = amct.FloatModel.load(arguments["model_file"], [OUTPUT])
    config = amct.make_quant_config(model, batch_num=2)
    objects = {**arguments, "model_file": model}
    for _ in range(2):
        calibrate(objects, Evaluator(batches=2), config=config)
        assert contents(workdir / "out") == expected
        shutil.rmtree(workdir / "out")
    with pytest.raises(ArgumentValueError, match="was loaded with"):
        calibrate({**arguments, "model_file": amct.FloatModel.load(arguments["model_file"], ["conv/Conv2D"])})
    with pytest.raises(ArgumentTypeError, match="config must be QuantConfig"):
        calibrate(arguments, config="config.json")
    with pytest.raises(ArgumentTypeError, match="make_quant_config: model must be FloatModel"):
        amct.make_quant_config(arguments["model_file"])


@pytest.mark.parametrize("balancing", [False, True])
def test_data_goes_one_way(workdir, monkeypatch, balancing):
    """Each form of the model is indexed once: as read, after each rewrite, with its shapes, fused, balanced, and saved.

    And it is imported once as read and once prepared, however often it is asked for.
    """
    arguments = prepare(workdir)
    counts = Counter()

    def count(owner, name, counted=lambda *_, **__: True):
        original = getattr(owner, name)

        def counting(*args, **kwargs):
            counts[name] += counted(*args, **kwargs)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    count(Path, "read_bytes", lambda path: path.suffix == ".pb")
    count(amct.graph.view.NamedGraph, "__init__")
    count(tf, "import_graph_def")
    model = amct.FloatModel.load(arguments["model_file"], [OUTPUT])
    config = replace(amct.make_quant_config(model), input_balancing=balancing)
    calibrate({**arguments, "model_file": model}, config=config)
    # Of the rewrites one finds something to do here. The other imports: the model for one image, whose multiplications
    # are counted, the layers in float and quantized that calibration compares, and the two models to evaluate. What is
    # balanced is a form of its own, whose ranges are observed anew.
    assert counts == {"read_bytes": 1, "__init__": 5 + balancing, "import_graph_def": 2 + 1 + 2 + 2 + balancing}


def test_the_log_says_with_what_it_ran(workdir, messages):
    arguments = prepare(workdir)
    calibrate(arguments)
    text = "\n".join(messages)
    for part in (f" {tf.__version__}, ", f"Python {platform.python_version()}", "CPUs", "GiB of memory",
                 repr(arguments["model_file"]), "Command: ", "SHA-256 of the model: ", "SHA-256 of the configuration: ",
                 "SHA-256 of the evaluator: "):  # fmt: skip
        assert part in text


def test_search_rolls_back_and_all_files_agree(workdir):
    arguments = prepare(workdir)
    edit_config(arguments, **PLAIN)
    all_quantized = calibrate(arguments).loss
    evaluator = Evaluator(limit=all_quantized * 0.6)
    result = calibrate(arguments, evaluator)
    rolled_back = [name for name, kept in result.roll_back_config.items() if not kept]
    assert rolled_back and len(rolled_back) < 5
    assert result.target_met
    folder = workdir / "out"
    quantized = {name for name, kept in result.roll_back_config.items() if kept}
    final = json.loads((folder / "accuracy_based_auto_calibration_final_config.json").read_text())
    assert {name for name in SMALL_NET_LAYERS if final[name]["quant_enable"]} == quantized
    assert final["bias_correction"] is False
    assert set(read_record(folder / "record.txt")) == quantized
    found = json.loads((folder / "record_bias_correction.json").read_text())
    assert set(found) == quantized - {"pool/AvgPool"}
    assert not any("bias_correction" in layer for layer in found.values())
    graph_def = tf1.GraphDef.FromString((folder / "net_quantized.pb").read_bytes())
    assert sum(node.op == "AscendDequant" for node in graph_def.node) == len(quantized)
    history = json.loads((workdir / "amct_log" / "accuracy_based_auto_calibration_record.json").read_text())
    assert history[0]["roll_back_config"] == dict.fromkeys(sorted(SMALL_NET_LAYERS), True)
    assert {"roll_back_config": result.roll_back_config, "metric_eval": [True, result.loss]} in history
    ranking = json.loads((folder / "accuracy_based_auto_calibration_ranking_information.json").read_text())
    assert [value for _, value in ranking] == sorted(value for _, value in ranking)
    most_sensitive = [name for name, _ in ranking[: len(rolled_back)]]
    assert sorted(most_sensitive) == sorted(rolled_back)
    # The saved model, run by itself, has the logged accuracy, and the saved record reproduces it.
    metric = Evaluator()
    metric.reference = evaluator.reference
    assert metric.evaluate(import_graph(graph_def, "saved"), [OUTPUT]) == pytest.approx(result.saved_metric)
    amct.save_model(arguments["model_file"], [OUTPUT], arguments["record_file"], str(workdir / "again"))
    assert (workdir / "again_quantized.pb").read_bytes() == (folder / "net_quantized.pb").read_bytes()


def test_no_configuration_is_evaluated_twice(workdir):
    arguments = prepare(workdir)
    evaluator = Evaluator(limit=0.3 * calibrate(arguments).loss)
    result = calibrate(arguments, evaluator)
    assert len(evaluator.evaluated) == result.evaluations
    history = json.loads((workdir / "amct_log" / "accuracy_based_auto_calibration_record.json").read_text())
    keys = [tuple(sorted(trial["roll_back_config"].items())) for trial in history]
    assert len(set(keys)) == len(keys)


def test_an_unreachable_target_leaves_the_best_model(workdir, messages):
    arguments = prepare(workdir)
    result = calibrate(arguments, Evaluator(limit=0))
    assert not result.target_met
    history = json.loads((workdir / "amct_log" / "accuracy_based_auto_calibration_record.json").read_text())
    assert not any(history[-1]["roll_back_config"].values()) and history[-1]["metric_eval"] == [True, 0.0]
    losses = [trial["metric_eval"][1] for trial in history if any(trial["roll_back_config"].values())]
    assert result.loss == min(losses)
    assert (workdir / "out" / "net_quantized.pb").exists()
    assert any("No quantized model satisfies" in line for line in messages)


def test_runs_are_reproducible_and_overwriting_is_said(workdir, messages):
    arguments = prepare(workdir)
    calibrate(arguments)
    first = contents(workdir)
    calibrate(arguments)
    assert contents(workdir) == first
    assert any("will be overwritten" in line for line in messages)


def test_the_saved_model_needs_only_tensorflow(workdir):
    arguments = prepare(workdir)
    result = calibrate(arguments)
    np.save(workdir / "images.npy", IMAGES)
    script = f"""
import sys, numpy as np, tensorflow as tf
graph_def = tf.compat.v1.GraphDef.FromString(open({str(result.model_file)!r}, 'rb').read())
with tf.Graph().as_default() as graph:
    tf.import_graph_def(graph_def, name='')
    with tf.compat.v1.Session() as session:
        y = session.run('{OUTPUT}:0', {{'input:0': np.load('images.npy')}})
assert not any(name.startswith('amct') for name in sys.modules)
np.save('y.npy', y)
"""
    done = run_program("-c", script)
    assert done.returncode == 0, done.stderr
    graph_def = tf1.GraphDef.FromString(result.model_file.read_bytes())
    np.testing.assert_array_equal(np.load(workdir / "y.npy"), run(graph_def, [OUTPUT], {"input": IMAGES})[0])


def test_tensors_alone_can_be_quantized(workdir):
    def make():
        x = tf1.placeholder(tf.float32, [None, 12, 12, 3], name="input")
        y = tf.nn.conv2d(x, normal((3, 3, 3, 4), 1), 1, "SAME", name="conv/Conv2D")
        tf.nn.softmax(tf.reduce_mean(tf.nn.max_pool2d(y, 2, 2, "SAME", name="pool"), [1, 2]), name=OUTPUT)

    arguments = prepare(workdir, make)
    tensor = {"layer_name": "pool", "input_index": 0}
    edit_config(arguments, **{"conv/Conv2D": {"quant_enable": False}, "tensor_quantize": [tensor]})
    result = calibrate(arguments, Evaluator(limit=0))
    assert not result.target_met and result.roll_back_config == {}
    assert list(read_record(arguments["record_file"])) == ["pool:0"]
    assert calibrate(arguments).target_met


def decision(names, rolled_back, stop=False):
    return {"stop_flag": stop, "roll_back_config": OrderedDict((name, name not in rolled_back) for name in names)}


class Scripted(AutoCalibrationStrategyBase):
    """Decides as it was told: each time on the layers to roll back, or to raise."""

    def __init__(self, decide):
        self.decide = decide
        self.asked = []

    def initialize(self, ranking_info):
        self.names = list(ranking_info)

    def update_quant_config(self, metric_eval):
        self.asked.append(metric_eval)
        return self.decide(self)


def raising(error):
    def method(self, *arguments):
        raise error

    return method


@pytest.mark.parametrize("method", ["prepare", "initialize", "update_quant_config", "evaluations_to_expect"])
def test_an_error_in_a_strategy_names_it(workdir, monkeypatch, method):
    monkeypatch.setattr(Scripted, method, raising(ValueError("out of range")), raising=False)
    strategy = Scripted(lambda self: decision(self.names, self.names[:1], stop=True))
    with pytest.raises(EvaluatorError, match=rf"Scripted\.{method} failed: ValueError: out of range"):
        calibrate(prepare(workdir), Evaluator(limit=1e-9), strategy=strategy)


def test_a_strategy_that_leaves_a_method_out(workdir):
    with pytest.raises(EvaluatorError, match=r"does not implement initialize\(\)\. Implement it"):
        calibrate(prepare(workdir), Evaluator(limit=1e-9), strategy=AutoCalibrationStrategyBase())


@pytest.mark.parametrize("length", [1, 3])
def test_a_strategy_that_goes_round_in_circles_is_ended(workdir, messages, length):
    arguments = prepare(workdir)
    strategy = Scripted(lambda self: decision(self.names, self.names[: 1 + len(self.asked) % length]))
    evaluator = Evaluator(limit=-1)
    evaluator.metric_eval = lambda original, new: (new == original, new - original)
    result = calibrate(arguments, evaluator, strategy=strategy)
    assert not result.target_met and result.model_file.exists()
    assert result.evaluations == 2 + length and len(strategy.asked) < 10 + 3 * length
    assert any("Scripted asked" in line and "stop_flag" in line for line in messages)


def test_a_decision_to_leave_all_in_float_ends_the_search(workdir):
    strategy = Scripted(lambda self: decision(self.names, self.names[:2] if len(self.asked) == 1 else self.names))
    evaluator = Evaluator(limit=-1)
    evaluator.metric_eval = lambda original, new: (new == original, new - original)
    result = calibrate(prepare(workdir), evaluator, strategy=strategy)
    assert len(strategy.asked) == 2 and result.evaluations == 3
    assert not result.target_met and any(result.roll_back_config.values())


def strict(text):
    """Parses JSON, in which there is no infinity and no NaN."""

    def refuse(name):
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


class Infinite(CosineSimilaritySensitivity):
    def compare(self, data, other):
        return math.inf if data.shape[-1] == 16 else super().compare(data, other)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_files_are_json_whatever_the_numbers(workdir, value, messages):
    evaluator = Evaluator()
    evaluator.metric_eval = lambda original, new: (new == original, 0.0 if new == original else value)
    result = calibrate(prepare(workdir), evaluator, sensitivity=Infinite())
    assert result.loss == value and not result.target_met
    found = {path.name: strict(path.read_text()) for path in workdir.rglob("*.json")}
    history = found["accuracy_based_auto_calibration_record.json"]
    assert {tuple(entry["metric_eval"]) for entry in history} <= {(False, None), (True, 0.0)}
    ranking = found["accuracy_based_auto_calibration_ranking_information.json"]
    assert {name for name, similarity in ranking if similarity is None} == {"project/Conv2D", "pool/AvgPool"}
    assert "state.json" in found
    again = Evaluator()
    again.reference, again.metric_eval = evaluator.reference, evaluator.metric_eval
    assert calibrate(prepare(workdir), again, sensitivity=Infinite(), resume=True).loss == value
    assert again.evaluated == []


def test_an_infinite_metric_is_evaluated_again(workdir, messages):
    class Diverging(Evaluator):
        def evaluate(self, graph, outputs):
            super().evaluate(graph, outputs)
            return math.inf

        def metric_eval(self, original_metric, new_metric):
            return True, 0.0

    calibrate(prepare(workdir), Diverging())
    assert all(strict(path.read_text()) is not None for path in workdir.rglob("*.json"))
    assert any("cannot be kept in a file" in line for line in messages)


class Asked(OutputDivergenceSensitivity):
    """Looks at the model's outputs in its own way."""

    def __init__(self):
        self.shapes = set()

    def compare(self, data, other):
        self.shapes.add(data.shape)
        return -float(np.abs(data - other).max())


def test_a_subclass_that_compares_outputs_is_asked(workdir):
    sensitivity = Asked()
    arguments = prepare(workdir)
    limit = calibrate(arguments).loss / 2
    result = calibrate(arguments, Evaluator(limit=limit), sensitivity=sensitivity)
    assert result.evaluations > 2
    assert sensitivity.shapes == {(4, 5)}  # probabilities of a batch, and nothing of single layers
    ranking = json.loads((workdir / "out" / "accuracy_based_auto_calibration_ranking_information.json").read_text())
    assert [similarity < 0 for _, similarity in ranking] == [True] * 5


def test_an_error_in_a_subclass_that_compares_outputs_names_it(workdir, monkeypatch):
    monkeypatch.setattr(Asked, "compare", raising(ValueError("empty")))
    arguments = prepare(workdir)
    with pytest.raises(EvaluatorError, match=r"Asked\.compare failed on the outputs of the model: ValueError: empty"):
        calibrate(arguments, Evaluator(limit=1e-9), sensitivity=Asked())


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_the_saved_model_is_the_one_that_was_evaluated(workdir, monkeypatch, share):
    """It is not built a second time; every configuration is built once, to be evaluated."""
    built = []
    build_graph = roll_back.quantize_graph

    def recording(*arguments):
        built.append(build_graph(*arguments))
        return built[-1]

    monkeypatch.setattr(roll_back, "quantize_graph", recording)
    arguments = prepare(workdir)
    edit_config(arguments, **PLAIN)
    loss = calibrate(arguments).loss
    built.clear()
    evaluator = Evaluator(limit=loss * share)
    result = calibrate(arguments, evaluator)
    assert len(built) == len(evaluator.evaluated) - 1 == result.evaluations - 1
    saved = result.model_file.read_bytes()
    assert sum(graph.model == saved for graph in built) == 1


@pytest.mark.parametrize("name", ["branch", "conv/bias"])
def test_faults_of_tensors_show_before_the_first_evaluation(workdir, name):
    def make():
        x = tf1.placeholder(tf.float32, [None, 12, 12, 3], name="input")
        y = tf.nn.conv2d(x, normal((3, 3, 3, 4), 1), 1, "SAME", name="conv/Conv2D")
        y = tf.raw_ops.AddV2(x=y, y=normal((4,), 2), name="conv/bias")
        tf.nn.max_pool2d(y, 2, 2, "SAME", name="branch")
        tf.nn.softmax(tf.reduce_mean(y, [1, 2]), name=OUTPUT)

    arguments = prepare(workdir, make)
    edit_config(arguments, tensor_quantize=[{"layer_name": name, "input_index": 0}])
    evaluator = Evaluator()
    with pytest.raises(ConfigValueError, match=name):
        calibrate(arguments, evaluator)
    assert not evaluator.evaluated


def test_layers_that_no_output_needs_stay_float(workdir, messages):
    def make():
        small_net()
        graph = tf1.get_default_graph()
        pooled = tf.reshape(graph.get_tensor_by_name("pool/AvgPool:0"), [-1, 16])
        tf.matmul(pooled, normal((16, 3), 60), name="auxiliary/MatMul")

    arguments = prepare(workdir, make)
    result = calibrate(arguments)
    assert sorted(result.roll_back_config) == sorted(SMALL_NET_LAYERS)
    final = json.loads((workdir / "out" / "accuracy_based_auto_calibration_final_config.json").read_text())
    assert final["auxiliary/MatMul"]["quant_enable"] is False
    assert any(
        "1 layer stays in float, on which the outputs do not depend: auxiliary/MatMul" in line for line in messages
    )


def test_a_layer_that_no_steps_serve_is_in_float_from_the_beginning(workdir, messages):
    def make():
        x = tf1.placeholder(tf.float32, [None, 12, 12, 3], name="input")
        y = tf.nn.conv2d(x, normal((3, 3, 3, 8), 1, 1e-8), 2, "SAME", name="first")  # one step for all, see below
        y = tf.nn.relu(tf.nn.bias_add(y, np.float32([1e4, 1, 1, 1, 1, 1, 1, 1])))
        y = tf.nn.relu(tf.nn.conv2d(y, normal((3, 3, 8, 8), 2, 1e-4), 2, "SAME", name="second"))
        tf.nn.softmax(tf.matmul(tf.reduce_mean(y, [1, 2]), normal((8, 5), 3), name="third"), name=OUTPUT)

    arguments = prepare(workdir, make)
    content = json.loads(Path(arguments["config_file"]).read_text())
    content["first"]["weight_quant_params"]["channel_wise"] = False
    edit_config(arguments, **content)
    result = calibrate(arguments, Evaluator(limit=0.0))
    assert any(text.startswith("WARNING Layer first stays in float") for text in messages)
    history = json.loads((workdir / "amct_log" / "accuracy_based_auto_calibration_record.json").read_text())
    assert history[0]["roll_back_config"] == {"first": False, "second": True, "third": True}
    assert len(history) > 1 and not any(trial["roll_back_config"]["first"] for trial in history)
    assert result.roll_back_config["first"] is False
    final = json.loads((workdir / "out" / "accuracy_based_auto_calibration_final_config.json").read_text())
    assert final["first"]["quant_enable"] is False
    layers = json.loads((workdir / "out" / "report.json").read_text())["layers"]
    (first,) = [layer for layer in layers if layer["name"] == "first"]
    assert (first["int8"], first["why"]) == (False, "unquantizable") and "32 bits" in first["reason"]
    before = contents(workdir / "out")
    resumed = calibrate(arguments, Evaluator(limit=0.0), resume=True)
    assert any("Going on with an earlier run" in text and "and the calibration" in text for text in messages)
    assert resumed.roll_back_config == result.roll_back_config
    for name in ("net_quantized.pb", "record.txt"):
        assert contents(workdir / "out")[workdir / "out" / name] == before[workdir / "out" / name]


class NanAt(Evaluator):
    """Measures nan at some of its evaluations, of which that of the original model is number 0."""

    def __init__(self, limit, numbers):
        super().__init__(limit)
        self.numbers = numbers

    def evaluate(self, graph, outputs):
        metric = super().evaluate(graph, outputs)
        return math.nan if len(self.evaluated) - 1 in self.numbers else metric

    def image_results(self):
        return [math.nan] if len(self.evaluated) - 1 in self.numbers else [1.0]


class NanLossAt(NanAt):
    """Measures something that is no number."""

    def evaluate(self, graph, outputs):
        return {"metric": super().evaluate(graph, outputs)}

    def metric_eval(self, original_metric, new_metric):
        loss = new_metric["metric"] - original_metric["metric"]
        return not loss > self.limit, loss


@pytest.mark.parametrize(("kind", "which"), [(NanAt, "metric"), (NanLossAt, "loss")])
@pytest.mark.parametrize(("numbers", "models"), [
    ({1}, ["the model with all layers quantized"]), ({2}, ["the model of fine search step 1"]),
    ({1, 2}, ["the model with all layers quantized", "the model of fine search step 1"]),
])  # fmt: skip
@pytest.mark.parametrize("strategy", ["BinarySearch", "PredictiveSearch"])
def test_a_model_whose_metric_is_nan_does_not_satisfy(workdir, strategy, numbers, models, kind, which, messages):
    arguments = prepare(workdir)
    edit_config(arguments, **PLAIN)
    limit = 0.6 * calibrate(arguments).loss
    result = calibrate(arguments, kind(limit, numbers), strategy=strategy)
    assert sum("image_results returned numbers that are not finite, for 1 of 1 images" in line
               for line in messages) == len(models)  # fmt: skip
    assert [line for line in messages if "NaN" in line] == [
        f"WARNING The {which} of {model} is NaN, which counts as not satisfying." for model in models
    ]
    assert result.target_met and result.loss <= limit and not all(result.roll_back_config.values())
    report = json.loads((workdir / "out" / "report.json").read_text())
    assert [each["number"] for each in report["evaluations"] if each["loss"] is None] == [
        number + 1 for number in sorted(numbers)
    ]


def test_where_every_metric_is_nan_none_satisfies(workdir):
    result = calibrate(prepare(workdir), NanAt(1.0, range(1, 99)))
    assert not result.target_met and math.isnan(result.saved_metric) and math.isinf(result.loss)
    assert (workdir / "out" / "net_quantized.pb").exists()


def test_own_strategy_and_sensitivity(workdir):
    class OneByOne(AutoCalibrationStrategyBase):
        def initialize(self, ranking_info):
            self.order = sorted(ranking_info, key=ranking_info.get)
            self.count = 0

        def update_quant_config(self, metric_eval):
            if metric_eval[0]:
                return {"stop_flag": True, "roll_back_config": self.configuration()}
            self.count += 1
            return {"stop_flag": False, "roll_back_config": self.configuration()}

        def configuration(self):
            return {name: index >= self.count for index, name in enumerate(self.order)}

    class MeanSquare(SensitivityBase):
        def compare(self, data, other):
            return -float(np.mean((data - other) ** 2))

    arguments = prepare(workdir)
    limit = 0.5 * calibrate(arguments).loss
    evaluator = Evaluator(limit)
    result = calibrate(arguments, evaluator, strategy=OneByOne(), sensitivity=MeanSquare())
    assert result.target_met and len(evaluator.evaluated) == result.evaluations
    ranking = json.loads((workdir / "out" / "accuracy_based_auto_calibration_ranking_information.json").read_text())
    assert ranking[0][1] < 0


def test_predictive_search_with_output_divergence(workdir, messages):
    arguments = prepare(workdir)
    edit_config(arguments, **PLAIN)
    limit = 0.6 * calibrate(arguments).loss
    bisected = calibrate(arguments, Evaluator(limit))
    evaluator = Evaluator(limit)
    result = calibrate(arguments, evaluator, strategy="PredictiveSearch", sensitivity="OutputDivergence")
    rolled_back = {name for name, kept in result.roll_back_config.items() if not kept}
    assert result.target_met and 0 < len(rolled_back) < 5
    assert result.evaluations == len(evaluator.evaluated) <= 5
    assert evaluator.evaluated.count(0) == 1
    assert 0 < result.float_mac_share < 1
    assert result.float_mac_share <= bisected.float_mac_share
    ranking = json.loads((workdir / "out" / "accuracy_based_auto_calibration_ranking_information.json").read_text())
    assert sorted(name for name, _ in ranking) == sorted(SMALL_NET_LAYERS)
    assert all(0 < value < 1 for _, value in ranking)
    assert [value for _, value in ranking] == sorted(value for _, value in ranking)
    assert any(line.startswith("INFO Predicted loss") for line in messages)


def test_without_a_search_layers_are_ranked_by_their_own_outputs(workdir, messages):
    arguments = prepare(workdir)
    calibrate(arguments)
    before = contents(workdir / "out")
    calibrate(arguments, strategy="PredictiveSearch", sensitivity="OutputDivergence")
    after = contents(workdir / "out")
    reports = {workdir / "out" / name for name in ("report.html", "report.json")}  # they tell what was asked for
    assert {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)} == reports
    assert any("ranked by their own outputs" in line for line in messages)


def test_a_strategy_may_use_what_the_engine_knows(workdir):
    class Greedy(AutoCalibrationStrategyBase):
        def prepare(self, knowledge):
            self.knowledge = knowledge

        def initialize(self, ranking_info):
            self.layers = set(ranking_info)
            self.left = set(ranking_info)

        def update_quant_config(self, metric_eval):
            if metric_eval[0]:
                return {"stop_flag": True, "roll_back_config": {name: name in self.left for name in self.layers}}
            candidates = [self.left - {name} for name in sorted(self.left)]
            scores = self.knowledge.divergences(candidates, self.left)
            self.left = candidates[int(np.argmin(scores))]
            return {"stop_flag": False, "roll_back_config": {name: name in self.left for name in self.layers}}

    arguments = prepare(workdir)
    edit_config(arguments, **PLAIN)
    limit = 0.6 * calibrate(arguments).loss
    strategy = Greedy()
    result = calibrate(arguments, Evaluator(limit), strategy=strategy)
    assert result.target_met
    assert sum(strategy.knowledge.mac_shares.values()) == pytest.approx(1)
    assert strategy.knowledge.find_target() == pytest.approx(limit, rel=1e-3)


def test_a_strategy_that_repeats_itself_costs_no_evaluation(workdir):
    class Wavering(AutoCalibrationStrategyBase):
        def initialize(self, ranking_info):
            self.answers = iter([1, 2, 1, 2, 1])
            self.names = list(ranking_info)

        def update_quant_config(self, metric_eval):
            count = next(self.answers, None)
            configuration = {name: index >= (count or 1) for index, name in enumerate(self.names)}
            return {"stop_flag": count is None, "roll_back_config": configuration}

    evaluator = Evaluator(limit=1e-9)
    result = calibrate(prepare(workdir), evaluator, strategy=Wavering())
    assert len(evaluator.evaluated) == result.evaluations == 4


class WithImages(Evaluator):
    """Offers results per image whose mean change is the loss."""

    def evaluate(self, graph, outputs):
        metric = super().evaluate(graph, outputs)
        self.distances = np.abs(self.predict(graph, outputs) - self.reference).mean(axis=1)
        return metric

    def image_results(self):
        return 1000 * self.distances


def test_results_per_image_give_an_interval_and_a_warning(workdir, messages):
    result = calibrate(prepare(workdir), WithImages(limit=1e4))
    lower, upper = result.loss_interval
    assert lower < result.loss < upper
    assert not any("too few" in line for line in messages)
    calibrate(prepare(workdir), WithImages(limit=result.loss * 0.01))
    assert any("16 images are too few to resolve a loss of" in line for line in messages)
    assert any("with 95 % confidence, from 16 images" in line for line in messages)


def test_without_results_per_image_there_is_no_interval(workdir):
    assert calibrate(prepare(workdir)).loss_interval is None


def test_an_estimate_comes_first_and_a_table_last(workdir, messages):
    arguments = prepare(workdir)
    calibrate(arguments, Evaluator(limit=0.5 * calibrate(arguments).loss))
    estimate = next(line for line in messages if "To expect" in line)
    assert "5 layers, calibrated on 4 images" in estimate and "else 5 in up to" in estimate
    table = [line for line in messages if " | " in line][-7:]
    assert [line.split("|")[0].strip() for line in table] == [
        "INFO original model", "INFO all layers quantized", "INFO saved model", "INFO loss of the saved model",
        "INFO layers in float", "INFO evaluations", "INFO everything else",
    ]  # fmt: skip
    assert "of 5" in table[4] and "% of the multiply-accumulates" in table[4]
    assert messages.index(table[-1]) < len(messages) - 5


class BadImages(Evaluator):
    def image_results(self):
        return [[1.0, 2.0]]


class RaisesInImages(Evaluator):
    def image_results(self):
        raise ValueError("not counted")


class Raises(Evaluator):
    def evaluate(self, graph, outputs):
        if self.reference is not None:
            raise ValueError("disk on fire")
        return super().evaluate(graph, outputs)


class RaisesInCalibration(Evaluator):
    def calibration(self, graph, outputs):
        raise ValueError("no images")


class RunsABadNode(Evaluator):
    def evaluate(self, graph, outputs):
        with graph.as_default(), tf1.Session(graph=graph) as session:
            length = tf1.placeholder(tf.int32, [])
            return session.run(tf.reshape(tf.zeros([3]), [length]), {length: 2})


class ReturnsNone(Evaluator):
    def evaluate(self, graph, outputs):
        return None


class ReturnsNan(Evaluator):
    def evaluate(self, graph, outputs):
        return float("nan")


class NeverRuns(Evaluator):
    def calibration(self, graph, outputs):
        pass


class FeedsNan(Evaluator):
    def calibration(self, graph, outputs):
        with tf1.Session(graph=graph) as session:
            session.run(outputs[0] + ":0", {"input:0": IMAGES * np.nan})


class NeverSatisfied(Evaluator):
    def metric_eval(self, original_metric, new_metric):
        return False, 0.0


class NoTuple(Evaluator):
    def metric_eval(self, original_metric, new_metric):
        return True


class NanLoss(Evaluator):
    def metric_eval(self, original_metric, new_metric):
        return True, float("nan")


class NotImplementedYet(AutoCalibrationEvaluatorBase):
    pass


@pytest.mark.parametrize(
    ("evaluator", "error", "words"),
    [
        (Raises(), EvaluatorError, r"Raises\.evaluate failed on the model with all layers quantized: .*disk on fire"),
        (RaisesInCalibration(), EvaluatorError, "no images"),
        (RunsABadNode(), EvaluatorError, r"RunsABadNode\.evaluate failed on the original model: [^\n]*3 values[^\n]*$"),
        (ReturnsNone(), EvaluatorError, "returned None"),
        (ReturnsNan(), EvaluatorError, "original model that ReturnsNan returned is nan"),
        (NeverRuns(), CalibrationError, "needs 1 batches, but saw 0"),
        (FeedsNan(), CalibrationError, "'conv/Conv2D' have invalid value inf or nan"),
        (NeverSatisfied(), MetricError, r"Check metric_eval\(\)"),
        (NoTuple(), EvaluatorError, "return a tuple"),
        (NanLoss(), EvaluatorError, "loss NaN"),
        (BadImages(), EvaluatorError, r"image_results returned an array of shape \(1, 2\)"),
        (RaisesInImages(), EvaluatorError, "image_results failed on .*not counted"),
        (NotImplementedYet(), EvaluatorError, r"does not implement evaluate\(\)"),
        (object(), EvaluatorError, "AutoCalibrationEvaluatorBase"),
    ],
)
def test_a_bad_evaluator_gets_one_clear_error_and_loses_nothing(workdir, evaluator, error, words):
    arguments = prepare(workdir)
    calibrate(arguments)
    before = contents(workdir)
    with pytest.raises(error, match=words) as caught:
        calibrate(arguments, evaluator)
    assert isinstance(caught.value, RuntimeError)
    assert contents(workdir) == before


def test_too_few_batches(workdir):
    arguments = prepare(workdir, batch_num=3)
    with pytest.raises(CalibrationError, match=r"needs 3 batches, but saw 2"):
        calibrate(arguments, Evaluator(batches=2))
    assert calibrate(arguments, Evaluator(batches=4)).target_met


def damage(arguments, kind):
    """Makes one input unusable; returns the error that is due."""
    model, config = Path(arguments["model_file"]), Path(arguments["config_file"])
    if kind == "missing model":
        model.unlink()
        return ModelNotFoundError
    if kind == "empty model":
        model.write_bytes(b"")
    elif kind == "truncated model":
        model.write_bytes(model.read_bytes()[:-50])
    elif kind == "no model":
        model.write_bytes(b"\x89PNG and so on" * 99)
    elif kind == "output":
        arguments["outputs"] = ["probabilitys"]
    elif kind == "unknown layer":
        edit_config(arguments, **{"nowhere/Conv2D": {}})
        return ConfigValueError
    elif kind == "wrong type":
        edit_config(arguments, **{"conv/Conv2D": {"quant_enable": "yes"}})
        return ConfigTypeError
    elif kind == "unwritable":
        arguments["save_dir"] = str(config / "net")
        return OutputError
    elif kind == "strategy":
        arguments["strategy"] = "Quick"
        return EvaluatorError
    elif kind == "sensitivity":
        arguments["sensitivity"] = object()
        return EvaluatorError
    elif kind == "argument":
        arguments["outputs"] = "probabilities"
        return ArgumentTypeError
    return ModelError


@pytest.mark.parametrize(
    "kind",
    ["missing model", "empty model", "truncated model", "no model", "output", "unknown layer", "wrong type",
     "unwritable", "strategy", "sensitivity", "argument"],
)  # fmt: skip
def test_bad_input_is_named_before_anything_is_evaluated(workdir, kind):
    arguments = prepare(workdir)
    calibrate(arguments)
    before = contents(workdir / "out")
    error = damage(arguments, kind)
    damaged = contents(workdir / "out")
    evaluator = Evaluator()
    with pytest.raises(error) as caught:
        calibrate(arguments, evaluator)
    assert isinstance(caught.value, AmctError)
    assert str(caught.value).endswith(".")
    assert evaluator.evaluated == []
    assert contents(workdir / "out") == damaged
    changed = {path.name for path in before if before[path] != damaged.get(path)}
    assert changed <= {"config.json"}


def test_weights_that_are_not_finite_show_before_the_evaluation(workdir):
    def make():
        x = tf1.placeholder(tf.float32, [None, 12, 12, 3], name="input")
        weights = np.ones((432, 4), np.float32)
        weights[7, 2] = np.inf
        tf.matmul(tf.reshape(x, [-1, 432]), weights, name=OUTPUT)

    evaluator = Evaluator()
    with pytest.raises(CalibrationError, match="'probabilities' have invalid value inf or nan"):
        calibrate(prepare(workdir, make), evaluator)
    assert evaluator.evaluated == []


def test_importing_the_package_leaves_no_trace(workdir):
    subprocess.run([sys.executable, "-c", "import amct_tensorflow"], check=True, cwd=workdir, capture_output=True)
    assert list(workdir.iterdir()) == []


def test_the_log_file(workdir):
    script = "import amct_tensorflow as a; a.set_logging_level('error', 'DEBUG'); from amct_tensorflow.utils.log import"
    script += " LOGGER; LOGGER.push_warning_message('first'); LOGGER.push_debug_message('second', 'there')"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", script], check=True, cwd=workdir, capture_output=True, text=True)
    assert "first" not in done.stderr
    lines = (workdir / "amct_log" / "amct_tensorflow.log").read_text().splitlines()
    assert [line.split(" - ", 1)[1] for line in lines] == [
        "WARNING - [AMCT]:[AMCT]: first",
        "DEBUG - [AMCT]:[there]: second",
    ]
    assert (workdir / "amct_log" / "amct_tensorflow.log").stat().st_mode & 0o777 == 0o640
