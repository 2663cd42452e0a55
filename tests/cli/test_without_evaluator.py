"""Automatic quantization from files alone: judged by the outputs of the float model, or by labels."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal, save, small_net

from amct_tensorflow.graph.graph_runner import GraphRunner
from amct_tensorflow.model.endpoints import find_inputs
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.model_file import load_graph
from amct_tensorflow.search.agreement import CLASSES, NEIGHBOURS, NOISE
from amct_tensorflow.search.agreement_evaluator import AgreementEvaluator, divide_files
from amct_tensorflow.search.workers.shares import Share


@pytest.fixture
def net(workdir):
    """A model, and five files of 16 images."""
    for index in range(5):
        np.save(workdir / f"{index}.npy", normal((16, 12, 12, 3), index).astype(np.float32))
    return save(build(small_net), workdir / "net.pb")


FILES = [f"{index}.npy" for index in range(5)]
RUN = ["auto-calibrate", "net.pb", "--save_dir", "out/net", "--json", "--data", *FILES]


def classes():
    runner = GraphRunner(load_graph("net.pb"))
    return np.concatenate([runner.run("probabilities:0", {"input:0": np.load(file)}).argmax(1) for file in FILES])


def document(capsys):
    return json.loads(capsys.readouterr().out)


def test_agreement(main, net, capsys, messages):
    assert main([*RUN, "--agreement", "90"]) == 0
    found = document(capsys)
    assert found["original_metric"] == 100 and found["saved_metric"] >= 90 and found["target_met"]
    # 48 images are no fewer than the 32 of two files that calibrate; agreement is counted on these alone.
    assert any("Calibrating on the first 2 files, evaluating on 48 images: the others" in line for line in messages)
    assert any("What counts is on how many images the class" in line for line in messages)
    assert round(found["saved_metric"] * 48 / 100, 6).is_integer() and found["loss_interval"] is not None


def test_the_ratio_of_signal_to_noise(main, net, capsys):
    assert main([*RUN, "--snr", "15"]) == 0
    found = document(capsys)
    assert found["original_metric"] == 0 and 0 < found["saved_metric"] <= 10**-1.5


def test_a_ratio_that_int8_does_not_reach_leaves_layers_in_float(main, net, capsys):
    assert main([*RUN, "--snr", "15"]) == 0
    noise = document(capsys)["saved_metric"]
    assert main([*RUN, "--snr", str(-10 * np.log10(noise / 3))]) == 0
    found = document(capsys)
    assert found["saved_metric"] <= noise / 3 and found["layers_in_float"]


def test_a_device_with_a_rung_between_raises_layers_to_it(main, net, capsys):
    assert main([*RUN, "--snr", "15"]) == 0
    noise = document(capsys)["saved_metric"]
    assert main([*RUN, "--snr", str(-10 * np.log10(noise / 2)), "--device", "generic"]) == 0
    found = document(capsys)
    assert found["saved_metric"] <= noise / 2 and "a16w8" in found["rungs"].values()
    assert {name for name, rung in found["rungs"].items() if rung == "float"} == set(found["layers_in_float"])


def test_labels(main, net, capsys):
    labels = classes()
    labels[32:44] = (labels[32:44] + 1) % 5  # a quarter of those that evaluate is wrong
    np.save("labels.npy", labels)
    assert main([*RUN, "--labels", "labels.npy", "--target", "10"]) == 0
    found = document(capsys)
    assert found["original_metric"] == pytest.approx(75) and found["loss"] <= 10


def test_few_images_are_used_for_both(main, net, messages):
    assert main([*RUN, "--agreement", "50", "--batch_num", "4"]) == 0
    assert any("first 4 files, evaluating on 80 images: all" in line for line in messages)


def test_what_was_evaluated_is_not_evaluated_again(main, net, capsys):
    assert main([*RUN, "--agreement", "90"]) == 0
    first = document(capsys)
    assert main([*RUN, "--agreement", "90", "--resume"]) == 0
    done = capsys.readouterr()
    assert json.loads(done.out) == first and "in the earlier run)" in done.err


@pytest.mark.parametrize("measure", [CLASSES, NEIGHBOURS, NOISE])
def test_shares_give_what_the_whole_gives(net, measure):
    model = FloatModel.load("net.pb", ["probabilities"])
    files = divide_files(FILES, find_inputs(model, model.outputs), 2)
    whole = AgreementEvaluator(model.graph_def.SerializeToString(), files, measure, 1.0)
    shared = pickle.loads(pickle.dumps(whole))
    graph = tf.Graph()
    with graph.as_default():  # another model: what it yields differs from the reference
        images = tf.compat.v1.placeholder(tf.float32, [None, 12, 12, 3], name="input")
        tf.nn.softmax(tf.reduce_mean(images, [1, 2]) @ normal((3, 5), 7), name="probabilities")
    results = [shared.evaluate_share(graph, ["probabilities"], Share(index, 2)) for index in range(2)]
    metric = shared.join_shares(results)
    assert metric == whole.evaluate(graph, ["probabilities"]) != whole.evaluate(load_graph("net.pb"), ["probabilities"])
    assert [len(result) for result in results] == [1, 2]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--agreement", "99", "--snr", "30"],
        ["--agreement", "101"],
        ["--snr", "nan"],
        ["--labels", "labels.npy"],
        ["--agreement", "99", "--target", "1"],
        ["--snr", "30", "--measure", "classes"],
        ["--agreement", "99", "--evaluator", "e.py"],
    ],
)
def test_wrong_arguments(main, net, options, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*RUN, *options])
    assert stopped.value.code == 2 and "error: " in capsys.readouterr().err


def test_neither_evaluator_nor_data(main, net, capsys):
    with pytest.raises(SystemExit):
        main(["auto-calibrate", "net.pb"])
    assert "give either --evaluator, or --data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "options", "words"),
    [
        (["missing.npy"], ["--agreement", "99"], "missing.npy cannot be read"),
        (["wrong.npy"], ["--agreement", "99"], "has the shape"),
        (["raw.npy"], ["--agreement", "99"], "raw.npy cannot be read (it holds no array of numbers)"),
        (["empty.npy"], ["--agreement", "99"], "empty.npy holds no image"),
        (FILES, ["--agreement", "99", "--batch_num", "6"], "6 files are to calibrate, but there are 5"),
        (FILES, ["--agreement", "99", "--outputs", "pool/AvgPool"], ""),
        (FILES, ["--labels", "few.npy", "--target", "1"], "There are 3 labels"),
    ],
)
def test_one_line_per_error(main, net, capsys, files, options, words):
    np.save("wrong.npy", np.zeros((4, 3), np.float32))
    np.save("few.npy", np.zeros(3, np.int64))
    np.save("empty.npy", np.zeros((0, 12, 12, 3), np.float32))
    Path("raw.npy").write_bytes(bytes(1728))
    code = main(["auto-calibrate", "net.pb", "--save_dir", "out/net", "--data", *files, *options])
    lines = [line for line in capsys.readouterr().err.splitlines() if " - ERROR - " in line or "Traceback" in line]
    assert (code, len(lines)) == ((1, 1) if words else (0, 0))
    assert not words or words in lines[0]


@pytest.mark.parametrize("options", [["--agreement", "99"], ["--snr", "20"]])
def test_a_float_model_that_yields_no_numbers(main, workdir, capsys, options):
    """The class with the highest score is the same wherever all scores are nan."""

    def dense():
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        tf.matmul(x, normal((4, 3), 1), name="out")

    save(build(dense), workdir / "net.pb")
    rows = normal((16, 4), 2)
    np.save("good.npy", rows)
    np.save("wrong.npy", np.where(rows > 1, np.nan, rows))
    command = ["auto-calibrate", "net.pb", "--data", "good.npy", "wrong.npy", "--batch_num", "1", *options]
    assert main(command) == 1
    assert "The float model itself yields inf or nan at its output 'out' for wrong.npy" in capsys.readouterr().err


def test_data_on_which_the_model_does_not_run(main, workdir, capsys):
    """TensorFlow begins such a message with words that tell nothing."""

    def dense():
        x = tf.compat.v1.placeholder(tf.float32, [None, None], name="x")
        tf.matmul(x, normal((4, 3), 1), name="out")

    save(build(dense), workdir / "net.pb")
    np.save("narrow.npy", normal((16, 3), 2))
    assert main(["auto-calibrate", "net.pb", "--data", "narrow.npy", "--agreement", "99"]) == 1
    assert "The model cannot be run on this data: Matrix size-incompatible" in capsys.readouterr().err
