"""A run with a model that is not frozen: the frozen graph appears with the results, and is what they speak of."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from amct_tensorflow.common.auto_calibration import AutoCalibrationEvaluatorBase
from graphs import tf1
from programs import run_program
from saved_models import IMAGES, network, save_as_tensorflow_1
from small_sample import DATASET, SAMPLE

import amct_tensorflow as amct
from amct_tensorflow.errors import ModelError
from amct_tensorflow.model.model_file import read_model


class Evaluator(AutoCalibrationEvaluatorBase):
    """The metric is the mean of the outputs, which every model satisfies."""

    def __init__(self, model_input):
        self.model_input = model_input
        self.evaluations = 0

    def calibration(self, graph, outputs):
        self.evaluate(graph, outputs)

    def evaluate(self, graph, outputs):
        self.evaluations += 1
        with tf1.Session(graph=graph) as session:
            return float(np.mean(session.run(f"{outputs[0]}:0", {f"{self.model_input}:0": IMAGES})))

    def metric_eval(self, original_metric, new_metric):
        return True, original_metric - new_metric


@pytest.fixture(scope="module", params=["keras", "saved_model"])
def model(tmp_path_factory, request):
    """Returns path, input and output of a model."""
    path = tmp_path_factory.mktemp("models") / "net.keras"
    if request.param == "keras":
        network().save(path)
        return path, "images", "Identity"
    save_as_tensorflow_1(path.with_suffix(""), True)
    return path.with_suffix(""), "input", "Predictions/Mean"


def calibrate(model, **options):
    path, model_input, output = model
    float_model = amct.FloatModel.load(path, [output])
    evaluator = Evaluator(model_input)
    amct.accuracy_based_auto_calibration(
        options.pop("model_file", str(path)), [output], "out/record.txt", "out/config.json", "out/net", evaluator,
        config=amct.make_quant_config(float_model), **options,
    )  # fmt: skip
    return evaluator


def results(folder="out"):
    """Returns what a run left; its report, which names the model's file, has tests of its own."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.stem != "report"}


def test_the_frozen_graph_is_among_the_results(model, workdir):
    """And is what the others speak of."""
    path, _, output = model
    calibrate(model)
    found = results()
    assert found["net_frozen.pb"] == amct.FloatModel.load(path, [output]).frozen
    nodes = read_model("out/net_frozen.pb").nodes.keys()
    operations = json.loads(found["net_quant.json"])["graph"][0]["op"]
    origins = {name for operation in operations for name in operation["attr"][0]["value"]["list"]["s"]}
    layers = {key for key, value in json.loads(found["config.json"]).items() if isinstance(value, dict)}
    assert origins <= nodes
    # Keras puts a grouped convolution into a function, under whose call it is found.
    assert layers and {name.removesuffix("/convolution") if name not in nodes else name for name in layers} < origins


def test_the_frozen_graph_stands_for_the_model(model, workdir):
    """A run with it leaves the same, but for itself."""
    calibrate(model)
    frozen, found = Path("out/net_frozen.pb").rename("frozen.pb"), results()
    shutil.rmtree("out")
    calibrate((frozen, *model[1:]))
    assert results() == found


def test_what_is_loaded_already_is_frozen_once(model, workdir, messages):
    path, _, output = model
    calibrate(model, model_file=amct.FloatModel.load(path, [output]))
    assert "net_frozen.pb" in results()
    assert sum("was frozen for inference" in line for line in messages) == 2  # once for the configuration


def test_a_frozen_graph_that_is_there_is_not_overwritten_in_silence(model, workdir, messages):
    Path("out").mkdir()
    Path("out/net_frozen.pb").write_bytes(b"of somebody's")
    calibrate(model)
    assert any("net_frozen.pb" in line and "will be overwritten" in line for line in messages)


def test_a_resumed_run_knows_the_model_again(model, workdir):
    assert calibrate(model).evaluations == 3
    before = results()
    assert calibrate(model, resume=True).evaluations == 0
    assert results() == before


def test_the_steps_one_by_one(model, workdir):
    """What calibration saw is what save_model freezes again."""
    path, model_input, output = model
    graph = amct.FloatModel.load(path, [output]).graph
    amct.create_quant_config("config.json", graph)
    amct.quantize_model(graph, "config.json", "record.txt", [output])
    with tf1.Session(graph=graph) as session:
        session.run(f"{output}:0", {f"{model_input}:0": IMAGES})
    for step, prefix in ((amct.save_model, "saved"), (amct.convert_model, "converted")):
        step(str(path), [output], "record.txt", f"results/{prefix}")
        assert any(node.op == "AscendDequant" for node in read_model(f"results/{prefix}_quantized.pb").nodes.values())
    frozen = {content for name, content in results("results").items() if name.endswith("_frozen.pb")}
    assert frozen == {amct.FloatModel.load(path, [output]).frozen}
    amct.save_model("results/saved_frozen.pb", [output], "record.txt", "results/again")
    assert results("results")["again_quantized.pb"] == results("results")["saved_quantized.pb"]
    assert "again_frozen.pb" not in results("results")


def test_a_wrong_output_leaves_nothing(model, workdir):
    with pytest.raises(ModelError, match="Its outputs are"):
        amct.save_model(str(model[0]), ["nothing"], "record.txt", "results/net")
    assert not Path("results").exists()


def test_the_sample_says_in_one_line_what_the_outputs_are(workdir):
    network().save("net.keras")
    done = run_program(SAMPLE, "--dataset", DATASET, "--model", "net.keras")
    assert done.returncode == 1 and done.stdout == ""
    frozen, refused = done.stderr.splitlines()
    assert "was frozen for inference" in frozen and "Its outputs are" in refused
