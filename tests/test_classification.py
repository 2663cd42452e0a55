"""The evaluator that classifiers share, on graphs that TensorFlow does not run by itself on a CPU."""

import gc
import weakref
from dataclasses import dataclass, field
from functools import cached_property
from threading import Barrier

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal, tf1
from tfrecords import example, png, write

import amct_tensorflow as amct
from amct_tensorflow.classification import ClassifierEvaluator
from amct_tensorflow.data import Feature, find_files, scan_records
from amct_tensorflow.errors import CalibrationError
from amct_tensorflow.graph.graph_runner import GraphRunner
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.calibration.calibrator import Calibrator
from amct_tensorflow.quantize.config.defaults import default_config

IMAGES = normal((6, 8, 8, 3), 1)


@dataclass
class Records:
    """Stands for scanned records."""

    labels: np.ndarray
    num_records: int = len(IMAGES)
    largest: dict = field(default_factory=dict)
    counts: dict = field(default_factory=dict)

    def batches(self, _load, batch_size):
        return tf.data.Dataset.from_tensor_slices((IMAGES, self.labels)).batch(batch_size)


def channels_first():
    x = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
    y = tf.nn.conv2d(tf.transpose(x, [0, 3, 1, 2]), normal((3, 3, 3, 4), 2), 1, "SAME", "NCHW")
    tf.matmul(tf.reduce_mean(tf.nn.relu(y), [2, 3]), normal((4, 5), 3), name="out")


def channels_last():
    x = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
    y = tf.nn.conv2d(x, normal((3, 3, 3, 4), 2), 1, "SAME")
    tf.matmul(tf.reduce_mean(tf.nn.relu(y), [1, 2]), normal((4, 5), 3), name="out")


@pytest.mark.parametrize("make", [channels_first, channels_last])
@pytest.mark.parametrize("device", ["", "/device:GPU:0"])
def test_any_data_format_and_device_is_evaluated(make, device):
    with tf1.Session(graph=import_graph(build(channels_last), "test")) as session:
        labels = session.run("out:0", {"x:0": IMAGES}).argmax(1)
    labels[0] = (labels[0] + 1) % 5
    graph_def = build(make)
    for node in graph_def.node:
        node.device = device
    evaluator = ClassifierEvaluator(Records(labels), batch_size=4)
    assert evaluator.evaluate(import_graph(graph_def, "test"), ["out"]) == pytest.approx(100 * 5 / 6)
    assert evaluator.image_results() == [0.0] + [100.0] * 5


@pytest.mark.parametrize("scaled", [False, True], ids=["inputs", "scaled inputs"])
def test_calibration_computes_scores_only_if_they_are_needed(scaled):
    """The first layer reads an input itself, or what the model has made of it in Python."""
    ran = []

    def scores(values):
        ran.append(len(values))
        return values

    def make():
        x = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
        if scaled:
            x = tf.ensure_shape(tf.numpy_function(np.negative, [x], tf.float32), [None, 8, 8, 3])
        y = tf.nn.conv2d(x, normal((3, 3, 3, 4), 2), 1, "SAME", name="conv")
        y = tf.matmul(tf.reduce_mean(y, [1, 2]), normal((4, 5), 3), name="dense")
        tf.ensure_shape(tf.numpy_function(scores, [y], tf.float32), [None, 5], name="out")

    with tf.Graph().as_default() as graph:
        make()
    model = FloatModel.of_graph(graph, ["out"])
    calibrator = Calibrator(model, default_config(model.layers, model.op_types), lambda _: None)
    ClassifierEvaluator(Records(np.arange(6) % 5), batch_size=6).calibration(model.graph, ["out"])
    assert calibrator.check_complete().factors.keys() == {"conv", "dense"}
    assert bool(ran) == scaled


# -------------------------------------------------------------------------------------- Pictures for the report


FEATURES = (Feature("image/encoded", tf.string, "an image"), Feature("image/class/label", tf.int64, "a label"))


def shown(workdir, images, features=FEATURES):
    (workdir / "data").mkdir()
    write(workdir / "data" / "records", [example(png(image), 10 + number) for number, image in enumerate(images)])
    return ClassifierEvaluator(scan_records(find_files(workdir / "data"), features))


def test_pictures_are_small_and_in_the_order_of_the_data(workdir):
    evaluator = shown(workdir, [np.full((200, 100, 3), 40 * number, np.uint8) for number in range(5)])
    pictures = evaluator.pictures([1, 4])
    assert [picture.label for picture in pictures] == ["11", "14"]
    for picture, level in zip(pictures, (40, 160), strict=True):
        image = tf.io.decode_jpeg(picture.data).numpy()
        assert image.shape == (96, 48, 3) and len(picture.data) < 2000
        assert np.abs(image.astype(int) - level).max() <= 3
    assert evaluator.pictures([]) == []


def test_records_without_images_have_no_pictures(workdir):
    assert shown(workdir, [np.zeros((8, 8, 3), np.uint8)], FEATURES[1:]).pictures([0]) is None


def test_predictions_are_labels(workdir):
    class FromOne(ClassifierEvaluator):
        first_label = 1

    labels = np.arange(6) % 5 + 1
    evaluator = FromOne(Records(labels), batch_size=4)
    graph_def = build(channels_last)
    with tf1.Session(graph=import_graph(graph_def, "test")) as session:
        expected = session.run("out:0", {"x:0": IMAGES}).argmax(1) + 1
    evaluator.evaluate(import_graph(graph_def, "test"), ["out"])
    assert evaluator.image_predictions() == expected.tolist()
    assert evaluator.image_results() == [100.0 * (a == b) for a, b in zip(expected, labels, strict=True)]


def test_calibration_overlaps_where_nothing_but_this_class_evaluates():
    class Loads(ClassifierEvaluator):
        def load(self, features, height, width):
            return features["image"], features["label"]

    class Evaluates(Loads):
        def evaluate_share(self, graph, outputs, share):
            return super().evaluate_share(graph, outputs, share)

    assert Loads(None).calibration_may_overlap and not Evaluates(None).calibration_may_overlap


@dataclass
class Counted(Records):
    """Counts how often it is asked for batches, and the images in each that is taken."""

    asked: int = 0
    taken: list = field(default_factory=list)

    def batches(self, load, batch_size):
        def note(number):
            self.taken.append(int(number))
            return number

        def noted(images, labels):
            count = tf.numpy_function(note, [tf.size(labels)], tf.int32)
            return images[:count], labels

        self.asked += 1
        return super().batches(load, batch_size).map(noted)


class Passes(ClassifierEvaluator):
    """Counts on what the calibration is run."""

    calibrations = 0

    def calibration(self, graph, outputs):
        self.calibrations += 1
        super().calibration(graph, outputs)


class Apart(Passes):
    """Likewise, before the original model is evaluated."""

    calibration_may_overlap = True
    evaluate_and_calibrate = None


def calibrated(folder, evaluator, batch_num=2, make=channels_last):
    """Returns the result of a run, and its files but for those with times."""
    folder.mkdir()
    graph_def = build(make)
    (folder / "net.pb").write_bytes(graph_def.SerializeToString(deterministic=True))
    model = FloatModel.load(str(folder / "net.pb"), ["out"])
    config = amct.make_quant_config(model, batch_num=batch_num)
    paths = [str(folder / name) for name in ("record.txt", "config.json", "net")]
    result = amct.accuracy_based_auto_calibration(model, ["out"], *paths, evaluator, config=config)
    files = [path for path in folder.iterdir() if not path.name.startswith("report")]
    return result, {path.name: path.read_bytes() for path in files}


LABELS = np.arange(6) % 5


def test_calibration_batches_are_those_that_the_evaluation_comes_by(tmp_path):
    passing = ClassifierEvaluator(Counted(LABELS), 4, calibration_batches=2, expected_acc_loss=100)
    apart = Apart(Counted(LABELS), 4, calibration_batches=2, expected_acc_loss=100)
    one, other = calibrated(tmp_path / "one", passing), calibrated(tmp_path / "other", apart)
    assert apart.calibrations == 1 and (passing.dataset.asked, apart.dataset.asked) == (2, 3)
    assert passing.dataset.taken == [4, 2] * 2
    assert one[0].original_metric == other[0].original_metric and one[0].loss == other[0].loss
    assert one[1] == other[1]


def squeezed_first():
    x = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
    y = tf.nn.conv2d(tf.tanh(x), normal((3, 3, 3, 4), 2), 1, "SAME")
    tf.matmul(tf.reduce_mean(tf.nn.relu(y), [1, 2]), normal((4, 5), 3), name="out")


@pytest.mark.parametrize(("make", "imports"), [(channels_last, 0), (squeezed_first, 1)])
def test_a_model_is_not_imported_to_calibrate_that_asks_for_its_inputs_alone(tmp_path, monkeypatch, make, imports):
    imported = []

    @cached_property
    def graph(self):
        imported.append(self)
        return import_graph(self.graph_def, self.source)

    graph.__set_name__(FloatModel, "graph")
    monkeypatch.setattr(FloatModel, "graph", graph)
    one, files = calibrated(
        tmp_path / "one",
        ClassifierEvaluator(Records(LABELS), 4, calibration_batches=2, expected_acc_loss=100),
        make=make,
    )
    assert len(imported) == imports
    apart = Apart(Records(LABELS), 4, calibration_batches=2, expected_acc_loss=100)
    other, others = calibrated(tmp_path / "other", apart, make=make)
    assert files == others and one.original_metric == other.original_metric


def test_the_first_batch_is_calibrated_on_beside_its_evaluation(tmp_path, monkeypatch):
    """Each of the two waits until the other one has begun."""
    begun, met = Barrier(2, timeout=60), []

    class Meeting(GraphRunner):
        def run(self, fetches, feeds=None):
            if feeds and len(met) < 2:  # a model, and not the pipeline
                met.append(self.graph)
                begun.wait()
            return super().run(fetches, feeds)

    monkeypatch.setattr("amct_tensorflow.classification.GraphRunner", Meeting)
    evaluator = ClassifierEvaluator(Counted(LABELS), 3, calibration_batches=2, expected_acc_loss=100)
    assert calibrated(tmp_path / "run", evaluator)[0].target_met
    assert len(set(met)) == 2


def test_who_calibrates_in_a_way_of_their_own_is_asked_to(tmp_path):
    evaluator = Passes(Counted(LABELS), 4, calibration_batches=2, expected_acc_loss=100)
    calibrated(tmp_path / "run", evaluator)
    assert evaluator.calibrations == 1


class Overrides(Passes):
    """Says that calibration may overlap, whatever else it does in a way of its own."""

    calibration_may_overlap = True

    def join_shares(self, results):
        return super().join_shares(results) + 1000


def test_who_says_so_too_is_asked_in_the_order_of_two_methods(tmp_path):
    evaluator = Overrides(Counted(LABELS), 4, calibration_batches=2, expected_acc_loss=100)
    result, _ = calibrated(tmp_path / "run", evaluator)
    assert evaluator.calibrations == 1 and result.original_metric > 1000


def test_a_method_of_the_evaluator_alone_is_one_of_its_own(tmp_path):
    evaluator = ClassifierEvaluator(Counted(LABELS), 4, calibration_batches=2, expected_acc_loss=100)
    called = []
    evaluator.calibration = lambda *graph: called.append(1) or ClassifierEvaluator.calibration(evaluator, *graph)
    calibrated(tmp_path / "run", evaluator)
    assert called == [1]


@dataclass
class Halves(Records):
    """Its batches are half as large as they are asked for."""

    def batches(self, load, batch_size):
        return super().batches(load, batch_size // 2)


def test_calibration_takes_as_many_images_however_many_are_in_a_batch(tmp_path):
    evaluator = ClassifierEvaluator(Halves(LABELS), 4, calibration_batches=1, expected_acc_loss=100)
    _, files = calibrated(tmp_path / "run", evaluator)
    assert "record.txt" in files


def test_a_run_that_failed_leaves_nothing_with_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.pb").write_bytes(build(channels_last).SerializeToString(deterministic=True))
    model = FloatModel.load("net.pb", ["out"])
    config = amct.make_quant_config(model, batch_num=3)
    evaluator = ClassifierEvaluator(Records(LABELS), 4, calibration_batches=2)
    with pytest.raises(CalibrationError, match="saw 2"):
        amct.accuracy_based_auto_calibration(
            model, ["out"], "record.txt", "config.json", "net", evaluator, config=config
        )
    left = weakref.ref(evaluator)
    del evaluator
    gc.collect()
    assert left() is None


def test_too_few_batches_are_told_of_before_the_evaluation_goes_on(tmp_path):
    evaluator = ClassifierEvaluator(Counted(LABELS), 2, calibration_batches=1)
    with pytest.raises(CalibrationError, match="needs 2 batches, but saw 1"):
        calibrated(tmp_path / "run", evaluator)
    assert len(evaluator.dataset.taken) <= 3  # one runs beside the calibration, and one is prepared ahead
    assert evaluator.image_predictions() is None
