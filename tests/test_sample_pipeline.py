"""The sample's data side: which pixels and labels the model gets, and what a bad data set or argument is told."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from amct_tensorflow.common.auto_calibration import AutoCalibrationEvaluatorBase
from conftest import ROOT, load_script
from graphs import tf1
from hypothesis import given, settings
from hypothesis import strategies as st
from tfrecords import LEVELS, assert_names, example, jpeg, level_png, pixels, png, write

from amct_tensorflow.classification import find_input
from amct_tensorflow.data import DatasetError, find_files, parse_records, scan_records
from amct_tensorflow.errors import EvaluatorError, ModelError
from amct_tensorflow.log import LOG_FILE, follow_directory

SAMPLE = ROOT / "src" / "mobilenet_v2_accuracy_based_auto_calibration.py"

sample = load_script(SAMPLE)


def scan(folder, *arguments):
    return scan_records(find_files(str(folder)), sample.FEATURES, *arguments)


# ----------------------------------------------------------------------------------------------------- Pixels


def crop_reference(image):
    """The central 87.5 % in plain NumPy."""
    starts = [int((size - size * 0.875) / 2) for size in image.shape[:2]]
    return image[starts[0] : image.shape[0] - starts[0], starts[1] : image.shape[1] - starts[1]]


def resize_reference(image, height, width):
    """Bilinear with output pixel i at input position i * in / out, in plain NumPy."""

    def axis(values, size):
        length = values.shape[0]
        position = np.arange(size) * np.float32(length / size)
        low = np.minimum(position.astype(int), length - 1)
        part = (position - low).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
        return values[low] * (1 - part) + values[np.minimum(low + 1, length - 1)] * part

    rows = axis(image.astype(np.float32), height)
    return axis(rows.swapaxes(0, 1), width).swapaxes(0, 1)


SIZES = [(64, 64), (65, 63), (48, 80), (161, 256), (33, 17), (256, 129), (7, 9), (1, 1), (300, 2)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_preprocess_crops_resizes_and_scales(size):
    image = pixels(*size)
    result = sample.preprocess(tf.constant(png(image)), 24, 20).numpy()
    assert (result.dtype, result.shape) == (np.float32, (24, 20, 3))
    assert np.all(np.abs(result) <= 1)
    expected = resize_reference(crop_reference(image), 24, 20) / 127.5 - 1
    np.testing.assert_allclose(result, expected, atol=2e-4)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("options", [{}, {"chroma_downsampling": False}, {"progressive": True}], ids=str)
def test_jpeg_crop_is_that_of_the_whole_image(size, options):
    """Whatever way the sample decodes a JPEG, the pixels are those of decoding all of it and cropping then."""
    encoded = jpeg(pixels(*size), **options)
    cropped = tf.image.central_crop(tf.io.decode_jpeg(encoded, channels=3), 0.875)
    expected = resize_reference(cropped.numpy(), 16, 16) / 127.5 - 1
    np.testing.assert_allclose(sample.preprocess(tf.constant(encoded), 16, 16), expected, atol=2e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.booleans())
def test_jpeg_crop_of_any_size(height, width, subsampled):
    encoded = jpeg(pixels(height, width), chroma_downsampling=subsampled)
    cropped = crop_reference(tf.io.decode_jpeg(encoded, channels=3).numpy())
    # Without a change of size the resize must return the cropped pixels themselves.
    result = sample.preprocess(tf.constant(encoded), *cropped.shape[:2]).numpy()
    assert np.array_equal(result, cropped.astype(np.float32) / np.float32(127.5) - 1)


@pytest.mark.parametrize("encode", [png, jpeg])
def test_grayscale_becomes_rgb(encode):
    result = sample.preprocess(tf.constant(encode(pixels(40, 30, 1))), 8, 8).numpy()
    assert result.shape == (8, 8, 3)
    assert np.array_equal(result[..., 0], result[..., 1])
    assert np.array_equal(result[..., 0], result[..., 2])


def test_transparency_is_dropped():
    image = pixels(20, 20, 4)
    result = sample.preprocess(tf.constant(png(image)), 8, 8)
    assert np.array_equal(result, sample.preprocess(tf.constant(png(image[..., :3])), 8, 8))


def test_real_images_are_cropped_exactly(shared):
    dataset = scan(shared / "imagenet_sample")
    assert dataset.num_records == 600
    assert set(dataset.counts.values()) == {150}
    checked = 0
    for record in dataset.records().take(64):
        encoded = parse_records(record, sample.FEATURES)[sample.IMAGE_KEY]
        cropped = crop_reference(tf.io.decode_jpeg(encoded, channels=3).numpy())
        result = sample.preprocess(encoded, *cropped.shape[:2]).numpy()
        assert np.array_equal(result, cropped.astype(np.float32) / np.float32(127.5) - 1)
        checked += 1
    assert checked == 64


def test_formats_may_be_mixed_in_a_batch(tmp_path):
    encoded = [png(pixels(31, 20)), jpeg(pixels(64, 48)), jpeg(pixels(17, 90, 1)), png(pixels(5, 5, 1))]
    write(tmp_path / "mixed", [example(image, label) for label, image in enumerate(encoded)])
    ((images, labels),) = sample.MobileNetV2Evaluator(scan(tmp_path)).batches(6, 10)
    assert (images.dtype, images.shape, labels.numpy().tolist()) == (tf.float32, (4, 6, 10, 3), [0, 1, 2, 3])
    for image, source in zip(images, encoded, strict=True):
        assert np.array_equal(image, sample.preprocess(tf.constant(source), 6, 10))


# -------------------------------------------------------------------------------------------------- Evaluator


def level_model(classes=LEVELS, size=4, seen=None, known_shape=True):
    """A model that recognizes a grey level; ``seen`` collects the batches that reach it."""
    graph = tf.Graph()
    with graph.as_default():
        images = tf1.placeholder(tf.float32, [None, size, size, 3], name="input")
        if seen is not None:
            shape = images.shape
            images = tf.numpy_function(lambda batch: (seen.append(batch), batch)[1], [images], tf.float32)
            images.set_shape(shape)
        level = (tf.reduce_mean(images, [1, 2, 3]) + 1) / 2 * (LEVELS - 1)
        scores = -tf.abs(level[:, tf.newaxis] - tf.range(classes, dtype=tf.float32))
        if not known_shape:
            scores = tf.numpy_function(lambda values: values, [scores], tf.float32)
        tf.identity(scores, name="scores")
    return graph


def write_levels(folder, levels, labels, per_file=4):
    for start in range(0, len(levels), per_file):
        part = zip(levels[start : start + per_file], labels[start : start + per_file], strict=True)
        write(folder / f"part-{start:03}", [example(level_png(level), label) for level, label in part])


def test_evaluate_counts_every_image_once(tmp_path):
    levels = [index % LEVELS for index in range(22)]
    labels = [(level + (index in (3, 21))) % LEVELS for index, level in enumerate(levels)]  # two are wrong
    write_levels(tmp_path, levels, labels)
    seen = []
    evaluator = sample.MobileNetV2Evaluator(scan(tmp_path), 5)
    accuracy = evaluator.evaluate(level_model(seen=seen), ["scores"])
    assert isinstance(accuracy, float)
    assert sorted(evaluator.image_results()) == [0.0] * 2 + [100.0] * 20
    assert np.mean(evaluator.image_results()) == pytest.approx(accuracy)
    assert accuracy == pytest.approx(100 * 20 / 22)
    assert [len(batch) for batch in seen] == [5, 5, 5, 5, 2]
    assert {batch.dtype for batch in seen} == {np.dtype(np.float32)}
    means = [batch.mean(axis=(1, 2, 3)) for batch in seen]
    assert sorted(np.rint((np.concatenate(means) + 1) / 2 * (LEVELS - 1)).tolist()) == sorted(levels)


@pytest.mark.parametrize(("batches", "expected"), [(1, [5]), (2, [5, 5]), (3, [5, 5, 2]), (9, [5, 5, 2])])
def test_calibration_runs_the_first_batches(tmp_path, batches, expected):
    levels = [index % LEVELS for index in range(12)]
    write_levels(tmp_path, levels, levels)
    dataset = scan(tmp_path)
    seen = []
    graph = level_model(seen=seen)
    with graph.as_default():  # quantize_model may insert variables
        variable = tf1.get_variable("inserted", initializer=1.0)
        with tf.control_dependencies([tf1.assign_add(variable, 1.0)]):
            tf.identity(graph.get_tensor_by_name("scores:0"), name="calibrated")
    assert sample.MobileNetV2Evaluator(dataset, 5, batches).calibration(graph, ["calibrated"]) is None
    assert [len(batch) for batch in seen] == expected
    first, _ = next(iter(sample.MobileNetV2Evaluator(dataset, 5).batches(4, 4)))
    assert np.array_equal(seen[0], first)


def test_size_of_the_input_is_that_of_the_placeholder():
    def graph_of(shape, dtype=tf.float32):
        with tf.Graph().as_default() as graph:
            tf1.placeholder(dtype, shape, name="images")
        return graph

    assert find_input(graph_of([None, 96, 128, 3]), 224)[1:] == (96, 128)
    assert find_input(graph_of([None, None, None, 3]), 224)[1:] == (224, 224)
    assert find_input(graph_of(None), 224)[1:] == (224, 224)
    bad = [([None, 3, 224, 224],), ([None, 10],), ([8, 224, 224, 3],), ([None, 224, 224, 3], tf.uint8)]
    for arguments in bad:
        with pytest.raises(ModelError, match="images"):
            find_input(graph_of(*arguments), 224)


def test_input_must_be_the_only_placeholder():
    with tf.Graph().as_default() as graph:
        pass
    with pytest.raises(ModelError, match="exactly one placeholder"):
        find_input(graph, 224)
    with graph.as_default():
        tf1.placeholder(tf.float32, name="first")
        tf1.placeholder(tf.bool, name="second")
    with pytest.raises(ModelError, match="first, second"):
        find_input(graph, 224)


@pytest.mark.parametrize("known_shape", [True, False])
def test_label_that_the_model_has_no_class_for(tmp_path, known_shape):
    write_levels(tmp_path, [1, 2, 3], [1, 2, 7], per_file=1)
    evaluator = sample.MobileNetV2Evaluator(scan(tmp_path), 2)
    seen = []
    with pytest.raises(DatasetError) as error:
        evaluator.evaluate(level_model(7, seen=seen, known_shape=known_shape), ["scores"])
    assert_names(error, "label 7", "7 classes", "0 to 6")
    assert len(seen) == (0 if known_shape else 1)  # no pass over the data for nothing
    evaluator.evaluate(level_model(8, known_shape=known_shape), ["scores"])


def test_output_that_is_no_list_of_scores(tmp_path):
    write_levels(tmp_path, [1], [1])
    graph = level_model()
    with graph.as_default():
        tf.reshape(graph.get_tensor_by_name("scores:0"), [-1, 1, 1, LEVELS], name="spatial")
    with pytest.raises(ModelError, match=r"\[images, classes\]"):
        sample.MobileNetV2Evaluator(scan(tmp_path)).evaluate(graph, ["spatial"])


@pytest.mark.parametrize("broken", ["garbage", "truncated"])
def test_undecodable_image_is_named(tmp_path, broken):
    image = jpeg(pixels(60, 60))
    bad = b"GIF89a or not" if broken == "garbage" else image[: len(image) // 2]
    write(tmp_path / "a", [example(image, 1)] * 4)
    write(tmp_path / "b", [example(image, 1)] * 5 + [example(bad, 1)] + [example(image, 1)] * 5)
    dataset = scan(tmp_path)
    for batch_size in (1, 4, 64):
        with pytest.raises(DatasetError) as error:
            sample.MobileNetV2Evaluator(dataset, batch_size).evaluate(level_model(), ["scores"])
        assert_names(error, tmp_path / "b", "record 5:", "cannot be decoded")
    before = scan(tmp_path, 9)  # the tenth in the order of reading
    assert sample.MobileNetV2Evaluator(before).evaluate(level_model(), ["scores"]) >= 0


def test_dataset_that_changes_after_the_scan(tmp_path):
    write_levels(tmp_path, [1, 2, 3, 4], [1, 2, 3, 4], per_file=2)
    dataset = scan(tmp_path)
    os.truncate(tmp_path / "part-002", 50)
    with pytest.raises(DatasetError) as error:
        sample.MobileNetV2Evaluator(dataset).evaluate(level_model(), ["scores"])
    assert_names(error, tmp_path / "part-002", "record 0:")
    (tmp_path / "part-002").write_bytes(b"")
    with pytest.raises(DatasetError, match="change"):
        sample.MobileNetV2Evaluator(dataset).evaluate(level_model(), ["scores"])


@pytest.mark.parametrize(
    ("target", "new", "satisfied"),
    [(0.5, 71.5, True), (0.5, 71.25, True), (0.5, 71.0, False), (0.5, 70.0, False), (0, 71.5, True), (0, 72.0, True),
     (0, 71.4, False)],
)  # fmt: skip
def test_metric_eval(target, new, satisfied):
    evaluator = sample.MobileNetV2Evaluator(None, expected_acc_loss=target)
    assert evaluator.metric_eval(71.5, new) == (satisfied, pytest.approx(71.5 - new))
    assert isinstance(evaluator, AutoCalibrationEvaluatorBase)


@pytest.mark.parametrize("quantized", [False, True])
def test_passes_are_named(tmp_path, capsys, quantized):
    write_levels(tmp_path, [1, 2], [1, 2])
    graph = level_model()
    if quantized:
        node = graph.as_graph_def().node.add(name="quant", op="AscendQuant")
        monkey = tf.Graph()
        with monkey.as_default():

            @tf.function
            def body(value):
                return value

            tf.import_graph_def(graph.as_graph_def(), name="")
            function = body.get_concrete_function(tf.TensorSpec([], tf.float32))
            graph_def = monkey.as_graph_def()
            graph_def.library.function.add().CopyFrom(function.function_def)
            graph_def.library.function[-1].signature.name = "AscendQuant"
            graph_def.node.add(name="zero", op="Const", attr=tf.constant(0.0).op.node_def.attr)
            node.input.append("zero")
            graph_def.node.append(node)
        graph = tf.Graph()
        with graph.as_default():
            tf.import_graph_def(graph_def, name="")
    sample.MobileNetV2Evaluator(scan(tmp_path)).evaluate(graph, ["scores"])
    assert ("quantized model: " if quantized else "original model: ") in capsys.readouterr().err
    sample.MobileNetV2Evaluator(scan(tmp_path)).calibration(level_model(), ["scores"])
    assert "calibration: 2 of 2" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------- Arguments and exit codes


def test_defaults(workdir):
    arguments = sample.parse_arguments(["--dataset", "data"])
    assert vars(arguments) == {
        "dataset": "data",
        "keyword": "",
        "num_parallel_reads": 4,
        "batch_size": 32,
        "model": "./model/mobilenet_v2_1.0_224_frozen.pb",
        "expected_acc_loss": 0.5,
        "num_images": None,
        "calibration_batches": 1,
        "config_defination": None,
        "strategy": "PredictiveSearch",
        "sensitivity": "OutputDivergence",
        "device": None,
        "free_roll_back": True,
        "num_workers": None,
        "ray": None,
        "resume": False,
        "exact": False,
    }
    (workdir / "model").mkdir()
    (workdir / "model" / "mobilenetv2_tf.pb").touch()
    assert sample.parse_arguments(["--dataset", "data"]).model == "./model/mobilenetv2_tf.pb"
    assert sample.parse_arguments(["--dataset", "data", "--model", "my.pb"]).model == "my.pb"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--keyword", "a"], "--dataset"),
        (["--batch_size", "0"], "--batch_size: '0' is not a whole number"),
        (["--batch_size", "-3"], "--batch_size"),
        (["--batch_size", "1.5"], "'1.5'"),
        (["--batch_size", "9" * 30], "--batch_size"),
        (["--batch_size", "9" * 5000], "is not a whole number"),
        (["--num_parallel_reads", "-1"], "--num_parallel_reads: '-1' is not a whole number"),
        (["--num_parallel_reads", "2147483648"], "--num_parallel_reads"),
        (["--num_images", "none"], "--num_images: 'none'"),
        (["--num_parallel_reads", ""], "--num_parallel_reads"),
        (["--calibration_batches", "0"], "--calibration_batches"),
        (["--expected_acc_loss", "-0.1"], "--expected_acc_loss: '-0.1' is not a number of at least 0"),
        (["--expected_acc_loss", "nan"], "'nan'"),
        (["--expected_acc_loss", "inf"], "'inf'"),
        (["--expected_acc_loss", "half"], "'half'"),
        (["--config_defination", "my.cfg", "--calibration_batches", "2"], "set batch_num in my.cfg"),
        (["--strategy", "Guess"], "BinarySearch"),
        (["--sensitivity", "Guess"], "CosineSimilarity"),
        (["--unknown"], "--unknown"),
    ],
)
def test_wrong_arguments_exit_with_2(capsys, arguments, part):
    given = [] if arguments[0] == "--keyword" else ["--dataset", "data"]
    with pytest.raises(SystemExit) as error:
        sample.parse_arguments([*given, *arguments])
    assert error.value.code == 2
    usage, line = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: ")
    assert part in line


def test_help_states_defaults_and_exit_codes(capsys):
    with pytest.raises(SystemExit) as error:
        sample.parse_arguments(["--help"])
    assert error.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("(default: 4)", "(default: 32)", "(default: 0.5)", "(default: all)", "(default: PredictiveSearch)",
                 "(default: OutputDivergence)", "(default: 1)", "mobilenetv2_tf.pb", "exit codes", "130"):  # fmt: skip
        assert part in text
    assert all(code in sample.__doc__ for code in ("0 ", "1 ", "2 ", "3 ", "130 "))


def test_target_of_zero_is_allowed():
    assert sample.parse_arguments(["--dataset", "d", "--expected_acc_loss", "0"]).expected_acc_loss == 0


def exit_code(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["sample", *map(str, arguments)])
    return sample.main()


@pytest.fixture
def conv_model(tmp_path, monkeypatch):
    """A model with one layer to quantize, known to the sample by its output; and images whose labels it predicts."""
    graph = tf.Graph()
    with graph.as_default():
        images = tf1.placeholder(tf.float32, [None, 4, 4, 3], name="input")
        weights = np.zeros((1, 1, 3, 2), np.float32)
        weights[0, 0, 0] = [-1, 1]
        scores = tf.nn.conv2d(images, tf.constant(weights), 1, "SAME", name="conv/Conv2D")
        tf.nn.softmax(tf.reduce_mean(scores, [1, 2]), name="probabilities")
    model = tmp_path / "net.pb"
    model.write_bytes(graph.as_graph_def().SerializeToString())
    monkeypatch.setattr(sample, "OUTPUT", "probabilities")
    levels = [0, 1, 6, 7] * 3
    (tmp_path / "data").mkdir()
    write_levels(tmp_path / "data", levels, [level // 4 for level in levels])
    return model


def test_main_on_a_small_model(workdir, conv_model, monkeypatch, capsys):
    arguments = ("--dataset", workdir / "data", "--model", conv_model, "--batch_size", 12)
    assert exit_code(monkeypatch, *arguments) == 0
    text = capsys.readouterr().err
    assert "12 images in 3 files" in text
    assert "Accuracy of original model is         100" in text
    assert Path(sample.CONFIG_FILE).is_file()
    assert Path(sample.RECORD_FILE).is_file()
    assert Path(f"{sample.SAVE_DIR}_quantized.pb").is_file()
    # Of the quantized model every image is wrong; no target short of 100 can be met.
    original = sample.MobileNetV2Evaluator.evaluate
    worse = iter([False, True, True, True, True, True])

    def evaluate(self, graph, outputs):
        return original(self, graph, outputs) - 100.0 * next(worse)

    monkeypatch.setattr(sample.MobileNetV2Evaluator, "evaluate", evaluate)
    assert exit_code(monkeypatch, *arguments) == 3
    assert "No quantized model satisfies" in capsys.readouterr().err


def test_main_with_a_simplified_configuration(workdir, conv_model, monkeypatch, capsys):
    """It decides how to quantize, and on how many batches to calibrate."""
    arguments = ("--dataset", workdir / "data", "--model", conv_model, "--config_defination", "my.cfg")
    Path("my.cfg").write_text("batch_num: 3\ncommon_config: { arq_quantize: { channel_wise: false } }")
    assert exit_code(monkeypatch, *arguments, "--batch_size", 4) == 0
    assert "calibrated on 12 images" in capsys.readouterr().err
    config = json.loads(Path(sample.CONFIG_FILE).read_text())
    assert config["batch_num"] == 3
    assert config["conv/Conv2D"]["weight_quant_params"]["channel_wise"] is False
    assert Path(sample.RECORD_FILE).read_text().count("scale_w") == 1
    assert exit_code(monkeypatch, *arguments, "--batch_size", 6) == 1
    assert "too few for 3 calibration batches" in last_line(capsys)
    Path("my.cfg").write_text("batch_numb: 3")
    assert exit_code(monkeypatch, *arguments) == 1
    assert "my.cfg" in last_line(capsys)
    Path("my.cfg").unlink()
    assert exit_code(monkeypatch, *arguments) == 1
    assert "my.cfg" in last_line(capsys)


def last_line(capsys):
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text.splitlines()[-1]


def test_main_reports_bad_input_in_one_line(workdir, conv_model, monkeypatch, capsys):
    data = ("--dataset", workdir / "data", "--model", conv_model)
    assert exit_code(monkeypatch, "--dataset", workdir / "nowhere", "--model", conv_model) == 1
    assert "nowhere does not exist" in last_line(capsys)
    assert exit_code(monkeypatch, "--dataset", workdir / "data", "--model", "none.pb") == 1
    assert "none.pb" in last_line(capsys)
    assert exit_code(monkeypatch, "--dataset", workdir / "data") == 1
    assert "make model" in last_line(capsys)
    assert exit_code(monkeypatch, *data, "--calibration_batches", 3, "--batch_size", 6) == 1
    assert "--calibration_batches" in last_line(capsys)
    write(workdir / "data" / "zz", [example(b"no image", 1)])
    assert exit_code(monkeypatch, *data) == 1
    assert f"{workdir / 'data' / 'zz'}, record 0: the image cannot be decoded" in last_line(capsys)
    write(workdir / "data" / "zz", [example(level_png(0), 2)])
    assert exit_code(monkeypatch, *data) == 1
    assert "label 2" in last_line(capsys)


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (OSError("disk full"), 1), (EvaluatorError("two\nlines"), 1)],
    ids=["interrupt", "os", "engine"],
)
def test_failed_runs(monkeypatch, capsys, error, code):
    def fail(arguments):
        raise error

    monkeypatch.setattr(sample, "run", fail)
    assert exit_code(monkeypatch, "--dataset", "data") == code
    if code == 1:
        assert str(error).replace("\n", " ") in last_line(capsys)


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.InvalidArgumentError(None, None, "{{node a}} no\nsuch op [Op:x]"),
        tf.errors.UnknownError(None, None, ""),
        ValueError("Shapes must\nbe equal"),
        MemoryError(),
        RecursionError("too deep"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_nobody_foresaw_is_one_line_and_its_details_are_in_the_log(workdir, monkeypatch, capsys, error):
    def fail(arguments):
        raise error

    follow_directory()
    monkeypatch.setattr(sample, "run", fail)
    assert exit_code(monkeypatch, "--dataset", "data") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert type(error).__name__ in line and str(LOG_FILE) in line
    assert "{{" not in line and "[Op:" not in line
    log = LOG_FILE.read_text()
    assert "Traceback (most recent call last)" in log and f'{__file__}", line' in log
    assert all("[AMCT]:[" in each for each in log.splitlines())


def test_an_error_in_the_evaluator_leaves_its_details_in_the_log(workdir, conv_model, monkeypatch, capsys):
    def broken(encoded, height, width):
        raise TypeError("not my kind of image")

    monkeypatch.setattr(sample, "preprocess", broken)
    assert exit_code(monkeypatch, "--dataset", workdir / "data", "--model", conv_model) == 1
    assert "not my kind of image" in last_line(capsys)
    assert f'{__file__}", line' in LOG_FILE.read_text()


def test_numbers_that_are_larger_than_of_use(workdir, conv_model, monkeypatch, capsys):
    arguments = ("--dataset", workdir / "data", "--model", conv_model)
    assert exit_code(monkeypatch, *arguments, "--num_parallel_reads", 17) == 0
    assert "--num_parallel_reads 17: no more than 16 files are read at once" in capsys.readouterr().err
    assert exit_code(monkeypatch, *arguments, "--num_parallel_reads", 16) == 0
    assert "--num_parallel_reads" not in capsys.readouterr().err
    most = 2**31 - 1
    assert exit_code(monkeypatch, *arguments, "--num_parallel_reads", most, "--num_images", most) == 0
    assert exit_code(monkeypatch, *arguments, "--calibration_batches", most) == 1
    assert "too few" in last_line(capsys)


def test_a_batch_larger_than_the_dataset_takes_no_more_memory(tmp_path):
    write_levels(tmp_path, [1, 2, 3], [1, 2, 3])
    evaluator = sample.MobileNetV2Evaluator(scan(tmp_path), 2**31 - 1)
    seen = []
    assert evaluator.evaluate(level_model(seen=seen), ["scores"]) == 100
    evaluator.calibration(level_model(seen=seen), ["scores"])
    assert [len(batch) for batch in seen] == [3, 3]


@pytest.mark.campaign
def test_a_batch_that_does_not_fit_into_memory(tmp_path):
    write_levels(tmp_path, [1], [1])  # TensorFlow waits ten seconds for memory, image by image
    graph = level_model()
    with graph.as_default():
        scores = graph.get_tensor_by_name("scores:0")
        size = tf.cast(tf.shape(scores)[0], tf.int64) * 2**45
        tf.add(scores, tf.reduce_max(tf.random.uniform(size[tf.newaxis])), name="large")
    with pytest.raises(EvaluatorError, match="not enough memory for batches of 2 images") as error:
        sample.MobileNetV2Evaluator(scan(tmp_path), 2).evaluate(graph, ["large"])
    assert_names(error, "--batch_size")


@pytest.mark.campaign
def test_a_preprocessing_that_does_not_fit_into_memory(tmp_path, monkeypatch):
    """The images are not to blame."""
    write_levels(tmp_path, [1], [1])

    def greedy(encoded, height, width):
        size = tf.cast(tf.strings.length(encoded), tf.int64) * 2**45
        return tf.zeros([height, width, 3]) + tf.reduce_max(tf.random.uniform(size[tf.newaxis]))

    monkeypatch.setattr(sample, "preprocess", greedy)
    with pytest.raises(EvaluatorError, match="not enough memory for batches of 2 images"):
        sample.MobileNetV2Evaluator(scan(tmp_path), 2).evaluate(level_model(), ["scores"])
