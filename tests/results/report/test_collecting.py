"""The report of a run tells what the run did: against the record, the graph, and layers computed here."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import normal, tf1
from test_auto_calibration import IMAGES, Evaluator, calibrate, edit_config, prepare

from amct_tensorflow.log import LOG_DIR
from amct_tensorflow.quantize.record.record_file import read_record
from amct_tensorflow.results.report.report_json import read_report
from amct_tensorflow.search.evaluator import Picture

OUTPUT = "probabilities"


class Pictures(Evaluator):
    """Tells, for each image, the most probable class, and whether it is that of the original model."""

    def __init__(self, limit, **options):
        super().__init__(limit, **options)
        self.classes = self.original = None

    def evaluate(self, graph, outputs):
        metric = super().evaluate(graph, outputs)
        self.classes = self.predict(graph, outputs).argmax(axis=1)
        # Every other image changes its prediction in a quantized model.
        self.classes = self.classes + (np.arange(len(self.classes)) % 2 if self.evaluated[-1] else 0)
        return metric

    def image_predictions(self):
        return [f"class {number}" for number in self.classes]

    def pictures(self, images):
        return [Picture(tf.io.encode_png(np.uint8(255 * (IMAGES[n] > 0))).numpy(), f"label {n}") for n in images]


def net():
    """Two layers that can be quantized, one that the configuration leaves out, and one whose weights are computed."""
    x = tf1.placeholder(tf.float32, [None, 12, 12, 3], name="input")
    y = tf.nn.relu(tf.nn.conv2d(x, normal((3, 3, 3, 8), 1), 2, "SAME", name="conv"))
    y = tf.nn.conv2d(y, normal((1, 1, 8, 8), 2), 1, "SAME", name="skipped")
    y = tf.reduce_mean(tf.nn.relu(y), [1, 2])
    mixed = tf.reshape(tf.nn.softmax(tf.matmul(y, y, transpose_a=True)), [1, 1, 8, 8])
    y = tf.reshape(tf.nn.conv2d(tf.reshape(y, [-1, 1, 1, 8]), mixed, 1, "SAME", name="computed"), [-1, 8])
    tf.nn.softmax(tf.matmul(y, 0.3 * normal((8, 5), 3), name="fc"), name=OUTPUT)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose search rolls a layer back, where it left its files."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = prepare(folder, net)
        edit_config(arguments, skipped={**json.loads(Path(arguments["config_file"]).read_text())["skipped"],
                                        "quant_enable": False})  # fmt: skip
        loss = calibrate(arguments, Pictures(1e9)).loss
        shutil.rmtree(LOG_DIR)
        result = calibrate(arguments, Pictures(loss * 0.9), strategy="PredictiveSearch")
        assert 0 < sum(not quantized for quantized in result.roll_back_config.values()) < 2
        yield folder, arguments, result


@pytest.fixture(scope="module")
def report(finished):
    return read_report(finished[0] / "out")


def test_it_tells_where_the_time_went(finished, report):
    """All of it: the stages add up to what is left of the run without them."""
    names = [each.stage for each in report.times if each.processor_seconds is not None]
    beside = [each.stage for each in report.times if each.processor_seconds is None]
    assert names[0] == "reading the model" and names[-1] == "everything else" and len(set(names)) == len(names)
    assert {"inspecting the model", "preparing the calibration", "evaluating the original model", "calibrating",
            "calibrating: observing activations", "calibrating: choosing factors",
            "calibrating: correcting weights and biases", "making quantized models", "evaluating quantized models",
            "ranking the layers", "searching"} < set(names)  # fmt: skip
    assert beside == ["calibrating: measuring each layer"]
    assert all(each.seconds >= 0 and (each.processor_seconds or 0) >= 0 for each in report.times)
    evaluations = [each.seconds for each in report.times if each.stage.startswith("evaluating")]
    assert len(evaluations) == 2 and all(evaluations)


def by_name(report):
    return {layer.name: layer for layer in report.layers}


def test_the_outcome_is_that_of_the_run(finished, report):
    _, _, result = finished
    assert (report.outcome.loss, report.outcome.target_met) == (result.loss, result.target_met)
    assert (report.outcome.original, report.outcome.saved) == (0.0, result.saved_metric)
    assert report.outcome.target == pytest.approx(report.evaluations[0].loss * 0.9, rel=1e-5)
    assert report.outcome.interval is None and not report.outcome.interrupted
    assert len(report.evaluations) == result.evaluations - 1
    assert [each.saved for each in report.evaluations].count(True) == 1


def test_why_layers_stayed_in_float(finished, report):
    result = finished[2]
    layers = by_name(report)
    (rolled_back,) = (name for name, quantized in result.roll_back_config.items() if not quantized)
    assert {name: layer.why for name, layer in layers.items()} == {
        "conv": None, "fc": None, rolled_back: "rolled_back", "skipped": "configuration", "computed": "unquantizable",
    } | ({"MatMul": "configuration"} if "MatMul" in layers else {})  # fmt: skip
    first = next(each.number for each in report.evaluations if rolled_back in each.in_float)
    assert layers[rolled_back].evaluation == first and f"evaluation {first}" in layers[rolled_back].reason
    assert "no constant, but computed" in layers["computed"].reason


def test_scale_and_clip_are_those_of_the_record(finished, report):
    record = read_record(finished[1]["record_file"])
    for name, factors in record.items():
        activation = by_name(report)[name].activation
        assert np.float32(activation.scale) == np.float32(factors.scale_d) and activation.offset == factors.offset_d
        steps = np.array([-128, 127]) - factors.offset_d
        assert activation.clip == pytest.approx(steps * factors.scale_d, rel=1e-6)


def test_the_histogram_holds_every_value(report):
    """The first layer reads the images themselves, of which four are calibrated on."""
    assert by_name(report)["conv"].int8
    seen = by_name(report)["conv"].activation.observed
    values = IMAGES[:4]
    expected, _ = np.histogram(values, len(seen.counts), (values.min(), values.max()))
    assert seen.counts == tuple(expected)
    assert (np.float32(seen.lowest), np.float32(seen.highest)) == (values.min(), values.max())


def test_ranges_of_weights_are_those_of_the_model(report):
    weights = by_name(report)["conv"].weights
    model = normal((3, 3, 3, 8), 1)
    np.testing.assert_array_equal(np.float32(weights.lowest), model.min((0, 1, 2)))
    np.testing.assert_array_equal(np.float32(weights.highest), model.max((0, 1, 2)))
    assert weights.shape == (3, 3, 3, 8) and len(weights.scales) == 8


def test_errors_before_and_after_the_correction(finished, report):
    """Against the layer computed here, with the integers and the shift that the run left."""
    factors = read_record(finished[1]["record_file"])["conv"]
    shift = json.loads((finished[0] / "out" / "record_bias_correction.json").read_text())["conv"]["bias_correction"]
    stored = np.load(finished[0] / "out" / "record_weights.npz")
    integers = stored[str(list(stored["names"]).index("conv"))]
    values = IMAGES[:4]
    steps = np.clip(np.rint(values / np.float32(factors.scale_d)) + factors.offset_d, -128, 127) - factors.offset_d

    def convolved(x, w):
        return tf.nn.conv2d(np.float32(x), np.float32(w), 2, "SAME").numpy().astype(np.float64)

    signal = convolved(values, normal((3, 3, 3, 8), 1))
    quantized = convolved(steps * factors.scale_d, integers * np.float32(factors.scale_w))
    for found, output in (("uncorrected_sqnr_db", quantized), ("sqnr_db", quantized + shift)):
        expected = 10 * np.log10(np.sum(signal**2) / np.sum((signal - output) ** 2))
        assert getattr(by_name(report)["conv"], found) == pytest.approx(expected, abs=0.05)
    assert by_name(report)["conv"].sqnr_db > by_name(report)["conv"].uncorrected_sqnr_db


def test_sizes_are_those_of_the_files(finished, report):
    folder, _, result = finished
    assert report.size.quantized_bytes == result.model_file.stat().st_size
    assert report.size.original_bytes == (folder / "net.pb").stat().st_size
    int8 = sum(layer.multiply_accumulates for layer in report.layers if layer.int8)
    assert report.size.int8_multiply_accumulates == int8 > 0


def test_images_that_changed_are_shown(report):
    changes = report.changed_images
    assert (changes.images, changes.changed, changes.lost) == (16, 8, None)
    assert [each.number for each in changes.shown] == [1, 3, 5, 7, 9, 11, 13, 15]
    first = changes.shown[0]
    assert first.label == "label 1" and first.before != first.after
    assert first.picture.startswith("data:image/png;base64,") and changes.note is None


def test_a_run_that_is_resumed_leaves_the_same_report(finished):
    """But for its times. Histograms, errors and predictions are kept in the state; nothing is evaluated again."""
    folder, arguments, _ = finished
    before = {name: (folder / "out" / name).read_bytes() for name in ("report.html", "report.json")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        limit = json.loads(before["report.json"])["outcome"]["target"]
        evaluator = Pictures(limit)
        calibrate(arguments, evaluator, strategy="PredictiveSearch", resume=True)
    assert evaluator.evaluated == []
    again = json.loads((folder / "out" / "report.json").read_text())
    # Found by halving; all else is the same to the last digit.
    assert again["outcome"].pop("target") == pytest.approx(limit, rel=1e-5)
    assert "calibrating: choosing factors" not in {each["stage"] for each in again.pop("times")}
    expected = json.loads(before["report.json"])
    expected["outcome"].pop("target")
    expected.pop("times")
    assert again == expected


def test_a_state_without_histograms_is_resumed_and_the_report_says_so(finished):
    folder, arguments, _ = finished
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (file,) = LOG_DIR.rglob("state.json")
        state = json.loads(file.read_text())
        for key in ("noise", "ranges"):
            del state["calibration"]["calibration"][key]
        file.write_text(json.dumps(state))
        calibrate(arguments, Pictures(1e9), strategy="PredictiveSearch", resume=True)
        report = read_report(folder / "out")
    assert by_name(report)["conv"].activation.observed is None and by_name(report)["conv"].sqnr_db is None
    assert "No histogram" in (folder / "out" / "report.html").read_text()


def test_an_interruption_while_it_is_made_loses_nothing_else(workdir, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("amct_tensorflow.results.report.collect.render_report", interrupt)
    with pytest.raises(KeyboardInterrupt):
        calibrate(prepare(workdir))
    names = {path.name for path in (workdir / "out").iterdir()}
    assert {"net_quantized.pb", "record.txt"} < names and "report.html" not in names


def test_a_report_that_fails_loses_nothing_else(workdir, monkeypatch, messages):
    """And that of an earlier run does not stay beside results of another."""
    arguments = prepare(workdir)
    calibrate(arguments)
    assert (workdir / "out" / "report.html").exists()

    def fail(_):
        raise MemoryError("no room")

    monkeypatch.setattr("amct_tensorflow.results.report.collect.render_report", fail)
    result = calibrate(arguments)
    assert result.model_file.exists()
    assert not list((workdir / "out").glob("*report*"))
    assert any("There is no report: MemoryError: no room." in line for line in messages)
