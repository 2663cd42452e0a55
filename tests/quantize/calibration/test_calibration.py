"""Calibration in the caller's own session: factors, corrections and similarities, and what goes wrong."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import (
    PLAIN,
    SMALL_NET_LAYERS,
    build,
    calibrate_and_save,
    control_flow_v1,
    normal,
    run,
    save,
    small_net,
    tf1,
)

import amct_tensorflow as amct
from amct_tensorflow.errors import (
    ArgumentTypeError,
    ArgumentValueError,
    CalibrationError,
    ConfigValueError,
    EvaluatorError,
    ModelError,
    RecordError,
)
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.fusion import fuse
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.algorithms.scales import arq_scales
from amct_tensorflow.quantize.calibration.calibrator import Calibrator
from amct_tensorflow.quantize.calibration.layer_analysis import _Probe
from amct_tensorflow.quantize.config.defaults import default_config
from amct_tensorflow.quantize.record.corrections import corrections_path, read_corrections
from amct_tensorflow.quantize.record.factors import LayerFactors
from amct_tensorflow.quantize.record.record_file import read_record, write_record
from amct_tensorflow.search.sensitivity.measures import CosineSimilaritySensitivity

IMAGES = normal((8, 12, 12, 3), 40)
OUTPUT = "probabilities"


def graph_of(make=small_net):
    return import_graph(build(make), "test")


def config_of(model, **options):
    return default_config(model.layers, model.op_types, **options)


def calibrate(images=IMAGES, batches=1, make=small_net, comparison=None, **options):
    """Runs a calibration of a small graph, for a search; returns the calibrator."""
    model = FloatModel.of_graph(graph_of(make))
    config = config_of(model, batch_num=batches, **options)
    calibrator = Calibrator(model, config, lambda _: None, for_search=True, comparison=comparison)
    with tf1.Session(graph=model.graph) as session:
        for batch in np.split(images, batches):
            session.run(f"{OUTPUT}:0", {"input:0": batch})
    return calibrator


def assert_same_but_for_settling(one, other):
    """Compares factors, of which the steps of weights depend on the last digits of corrections by a float or two."""
    assert one.keys() == other.keys()
    for name, factors in one.items():
        assert replace(factors, scale_w=()) == replace(other[name], scale_w=())
        np.testing.assert_allclose(factors.scale_w, other[name].scale_w, rtol=2e-5)


def test_the_cut_into_batches_changes_nothing():
    one, four = calibrate(batches=1).check_complete(), calibrate(batches=4).check_complete()
    assert_same_but_for_settling(one.factors, four.factors)
    for name, correction in one.corrections.items():
        for part, values in correction.parts().items():
            np.testing.assert_allclose(values, getattr(four.corrections[name], part), rtol=1e-3, atol=1e-6)
    for name, analysis in one.analyses.items():
        assert 1 - analysis.similarity == pytest.approx(1 - four.analyses[name].similarity, rel=1e-3, abs=1e-12)


def logits_net():
    """One row per channel and image, as a fully connected layer has."""
    x = tf1.placeholder(tf.float32, [None, 20], name="input")
    tf.matmul(x, normal((20, 6), 43), name=OUTPUT)


@pytest.mark.parametrize("comparison", [None, CosineSimilaritySensitivity()], ids=["sums", "compare"])
def test_batches_of_one_image_do_not_hide_the_error(comparison):
    x = normal((16, 20), 44)
    whole = calibrate(x, make=logits_net, comparison=comparison).check_complete().analyses[OUTPUT]
    single = calibrate(x, batches=16, make=logits_net, comparison=comparison).check_complete().analyses[OUTPUT]
    assert 1 - whole.similarity > 1e-7
    if comparison is None:
        assert 1 - single.similarity == pytest.approx(1 - whole.similarity, rel=1e-3)
    else:  # a mean over batches of ratios
        assert 0.2 < (1 - single.similarity) / (1 - whole.similarity) < 5


def test_a_nearly_black_image_behind_sixteen_others_does_not_decide():
    x = normal((17, 12, 12, 3), 45)
    x[16] *= 1e-6
    first, all_images = (calibrate(images).check_complete().analyses for images in (x[:16], x))
    for name, analysis in first.items():
        assert 1 - all_images[name].similarity < 3 * (1 - analysis.similarity) + 1e-9


def test_what_a_sensitivity_says_of_parts_is_weighted_by_their_images():
    class FirstImage(CosineSimilaritySensitivity):
        def compare(self, data, other):
            return float(len(data) == 1)

    analyses = calibrate(normal((17, 20), 46), make=logits_net, comparison=FirstImage()).check_complete().analyses
    assert analyses[OUTPUT].similarity == pytest.approx(1 / 17)


def test_a_part_counts_by_its_images_where_only_some_are_measured():
    """Of large feature maps one image per part is measured; a last part of a single image must not count as much."""
    probe = _Probe(fuse(GraphView(build(logits_net))).layers[OUTPUT])
    sixteen, single = np.ones((16, 6), np.float32), np.ones((1, 6), np.float32)
    probe.observe(sixteen, sixteen[:1])
    probe.observe(single, -single)
    assert probe.analysis().similarity == pytest.approx(0.5 + 0.5 * (16 - 1) / 17)


def test_every_layer_gets_factors_and_a_similarity():
    result = calibrate().check_complete()
    assert sorted(result.factors) == sorted(SMALL_NET_LAYERS)
    assert [len(result.factors[name].scale_w) for name in SMALL_NET_LAYERS] == [8, 8, 16, 0, 1]
    assert set(result.corrections) == set(SMALL_NET_LAYERS) - {"pool/AvgPool"}
    assert all(0.99 < analysis.similarity <= 1 for analysis in result.analyses.values())


@pytest.mark.parametrize("dense", [True, False])
def test_correction_is_the_mean_difference_of_the_layer_alone(dense):
    """Of a dense layer the rows count by the inverse of their squared outputs, and of one step in each input."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 5], name="input")
        if dense:
            return tf.matmul(x, normal((5, 3), 41), name=OUTPUT)
        filters = normal((5, 3), 41).reshape(1, 1, 5, 3)
        return tf.nn.conv2d(tf.reshape(x, [-1, 1, 1, 5]), filters, 1, "SAME", name=OUTPUT)

    x, weights = normal((64, 5), 42), normal((5, 3), 41).astype(np.float64)
    result = calibrate(x, make=make).check_complete()
    factors, correction = result.factors[OUTPUT], result.corrections[OUTPUT]
    q = np.clip(np.rint(x / factors.scale_d) + factors.offset_d, -128, 127) - factors.offset_d
    integers = correction.weights.reshape(5, 3).astype(np.float64)
    quantized = q @ integers * factors.scale_d * np.array(factors.scale_w)
    sizes = np.square(x @ weights).sum(axis=1) + factors.scale_d**2 * np.square(weights).sum()
    expected = np.average(x @ weights - quantized, axis=0, weights=1 / sizes if dense else None)
    np.testing.assert_allclose(correction.bias, expected, atol=1e-6)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_the_correction_of_a_transposed_convolution_counts_its_margins(workdir, padding):
    """Of a window of 4 x 4 on one position each place of the output gets one product, not sixteen."""
    lengths = [1, 1] if padding == "SAME" else [4, 4]

    def make():
        x = tf1.placeholder(tf.float32, [16, 1, 1, 2], name="x")
        tf.nn.conv2d_transpose(x, normal((4, 4, 3, 2), 41), [16, *lengths, 3], 1, padding, name="out")

    x = np.abs(normal((16, 1, 1, 2), 42)) + 1
    quantized = calibrate_and_save(build(make), x)
    (expected,), (actual,) = (run(each, ["out"], {"x": x}) for each in (build(make), quantized))
    units = np.outer([read_record("record.txt")["out"].scale_d], read_record("record.txt")["out"].scale_w)
    assert np.all(np.abs((actual - expected).mean(axis=(0, 1, 2))) <= 0.51 * units)


def test_weights_are_rounded_so_that_the_output_errs_less():
    def make():
        x = tf1.placeholder(tf.float32, [None, 24], name="input")
        tf.matmul(x, normal((24, 8), 41), name=OUTPUT)

    x = normal((400, 4), 42) @ normal((4, 24), 43) + 0.1 * normal((400, 24), 44)  # inputs that rise and fall together
    result = calibrate(x, make=make).check_complete()
    scale, weights = np.array(result.factors[OUTPUT].scale_w), normal((24, 8), 41)
    choices = result.corrections[OUTPUT].weights, np.rint(weights / scale)
    errors = [np.var(x @ (weights - scale * integers)) for integers in choices]
    assert errors[0] < 0.5 * errors[1]


def test_bias_correction_can_be_switched_off(workdir):
    pb, config, record = write_inputs(workdir)
    content = json.loads((workdir / "config.json").read_text())
    content.update(PLAIN)
    (workdir / "config.json").write_text(json.dumps(content))
    run_calibration(pb, config, record)
    assert "bias_correction" not in corrections_path(record).read_text()
    assert read_corrections(record, read_record(record), FloatModel.load(pb, [OUTPUT]).fuse().layers) == {}


def test_the_graph_computes_what_it_did_before():
    graph = graph_of()
    with tf1.Session(graph=graph) as session:
        before = session.run(f"{OUTPUT}:0", {"input:0": IMAGES})
    model = FloatModel.of_graph(graph_of())
    graph = model.graph
    fetched = graph.get_tensor_by_name(f"{OUTPUT}:0")
    config = config_of(model)
    Calibrator(model, config, lambda _: None)
    with tf1.Session(graph=graph) as session:
        np.testing.assert_allclose(session.run(fetched, {"input:0": IMAGES}), before, rtol=1e-4, atol=1e-6)


def test_batches_beyond_the_last_are_ignored():
    model = FloatModel.of_graph(graph_of())
    graph = model.graph
    config = config_of(model)
    results = []
    Calibrator(model, config, results.append)
    with tf1.Session(graph=graph) as session:
        for scale in (1, 100, 1000):
            session.run(f"{OUTPUT}:0", {"input:0": IMAGES * scale})
    assert len(results) == 1
    assert results[0].factors == calibrate().check_complete().factors


@pytest.mark.parametrize("bias_correction", [True, False])
def test_without_a_search_only_what_is_saved_is_measured(bias_correction):
    """The corrections are those of a search; similarities, which nobody reads then, are left out."""
    model = FloatModel.of_graph(graph_of())
    config = replace(config_of(model), **({} if bias_correction else PLAIN))
    calibrator = Calibrator(model, config, lambda _: None)
    taps = sum(op.type == "PyFunc" for op in model.graph.get_operations())
    with tf1.Session(graph=model.graph) as session:
        session.run(f"{OUTPUT}:0", {"input:0": IMAGES})
    result, expected = calibrator.check_complete(), calibrate().check_complete()
    if bias_correction:
        assert result.factors == expected.factors
    assert_same_but_for_settling(result.factors, expected.factors)
    assert (result.analyses, result.batches) == ({}, ())
    assert set(result.corrections) == (set(expected.corrections) if bias_correction else set())
    for name, correction in result.corrections.items():
        for part, values in correction.parts().items():
            np.testing.assert_array_equal(values, getattr(expected.corrections[name], part))
    assert taps == 1  # it keeps the images, from which everything follows


def test_layers_may_depend_on_further_sources():
    def make():
        x = tf1.placeholder(tf.float32, [None, 4], name="input")
        gain = tf1.placeholder_with_default(np.float32(2), [], name="gain")
        noise = tf1.random_normal([4], seed=3, name="noise")
        y = tf.matmul(x, normal((4, 4), 1), name="first")
        tf.matmul(y * gain + noise, normal((4, 2), 2), name=OUTPUT)

    result = calibrate(normal((16, 4), 3), make=make).check_complete()
    assert result.analyses[OUTPUT].similarity > 0.999


def test_what_is_fed_in_place_of_a_default_counts():
    def make():
        x = tf1.placeholder(tf.float32, [None, 4], name="input")
        gain = tf1.placeholder_with_default(np.float32(1), [], name="gain")
        tf.matmul(tf.matmul(x, normal((4, 4), 1), name="first") * gain, normal((4, 2), 2), name=OUTPUT)

    def scale(gain):
        model = FloatModel.of_graph(import_graph(build(make), "test"), [OUTPUT])
        calibrator = Calibrator(model, default_config(model.layers, model.op_types), lambda _: None)
        with tf1.Session(graph=model.graph) as session:
            session.run(f"{OUTPUT}:0", {"input:0": normal((16, 4), 3), "gain:0": gain})
        return calibrator.check_complete().factors[OUTPUT].scale_d

    assert scale(8.0) == pytest.approx(8 * scale(1.0), rel=1e-6)


def test_layers_in_a_branch_that_is_not_taken():
    def make():
        tf1.disable_control_flow_v2()
        x = tf1.placeholder(tf.float32, [None, 4], name="input")
        y = tf.matmul(x, normal((4, 4), 1), name="first")
        y = tf1.cond(tf.reduce_sum(x) > 1e9, lambda: tf.matmul(y, normal((4, 4), 2)), lambda: y)
        tf.identity(y, name=OUTPUT)

    assert list(calibrate(normal((16, 4), 3), make=make).check_complete().factors) == ["first"]


def test_transposed_convolution_and_fully_convolutional_nets():
    def make():
        x = tf1.placeholder(tf.float32, [None, None, None, 3], name="input")
        y = tf.nn.relu(tf.nn.conv2d(x, normal((3, 3, 3, 4), 1), 2, "SAME", name="conv"))
        shape = tf.shape(x)
        tf.nn.conv2d_transpose(y, normal((3, 3, 2, 4), 2), [shape[0], shape[1], shape[2], 2], 2, "SAME", name=OUTPUT)

    result = calibrate(IMAGES, make=make).check_complete()
    assert len(result.factors[OUTPUT].scale_w) == 2
    assert result.analyses[OUTPUT].similarity > 0.999


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_activations_that_are_not_finite_name_the_layer(value):
    images = IMAGES.copy()
    images[3, 4, 5, 1] = value
    model = FloatModel.of_graph(graph_of())
    graph = model.graph
    config = config_of(model)
    calibrator = Calibrator(model, config, lambda _: None)
    with tf1.Session(graph=graph) as session, pytest.raises(tf.errors.OpError, match="inf or nan"):
        session.run(f"{OUTPUT}:0", {"input:0": images})
    with pytest.raises(CalibrationError, match="'conv/Conv2D' have invalid value inf or nan"):
        calibrator.check_complete()


def test_too_few_batches_say_how_many():
    model = FloatModel.of_graph(graph_of())
    graph = model.graph
    config = config_of(model, batch_num=3)
    calibrator = Calibrator(model, config, lambda _: None)
    with tf1.Session(graph=graph) as session:
        session.run(f"{OUTPUT}:0", {"input:0": IMAGES})
    with pytest.raises(CalibrationError, match=r"needs 3 batches, but saw 1"):
        calibrator.check_complete()


def test_feeding_between_the_sources_and_the_layers_is_named():
    def make():
        x = tf1.placeholder(tf.float32, [None, 4], name="input")
        y = tf.matmul(x, normal((4, 4), 1), name="first")
        tf.matmul(y + tf1.placeholder(tf.float32, [4], name="more"), normal((4, 2), 2), name=OUTPUT)

    model = FloatModel.of_graph(graph_of(make))
    graph = model.graph
    config = config_of(model)
    calibrator = Calibrator(model, config, lambda _: None)
    with tf1.Session(graph=graph) as session:
        session.run("first:0", {"input:0": normal((3, 4), 2)})
        session.run(f"{OUTPUT}:0", {"input:0": normal((3, 4), 2), "add:0": normal((3, 4), 3)})
    with pytest.raises(CalibrationError, match="Tensor 'more:0' was not computed"):
        calibrator.check_complete()


def test_a_sensitivity_that_fails_is_named():
    class Broken(CosineSimilaritySensitivity):
        def compare(self, data, other):
            raise KeyError("nothing here")

    model = FloatModel.of_graph(graph_of())
    graph = model.graph
    config = config_of(model)
    calibrator = Calibrator(model, config, lambda _: None, for_search=True, comparison=Broken())
    with tf1.Session(graph=graph) as session, pytest.raises(tf.errors.OpError):
        session.run(f"{OUTPUT}:0", {"input:0": IMAGES})
    with pytest.raises(EvaluatorError, match=r"Broken\.compare failed on layer"):
        calibrator.check_complete()


def write_inputs(folder, make=small_net, **options):
    """Writes model and configuration; returns the paths of model, configuration and record."""
    pb = save(build(make), folder / "net.pb")
    amct.create_quant_config(str(folder / "config.json"), graph_of(make), **options)
    return pb, str(folder / "config.json"), str(folder / "record.txt")


def run_calibration(pb, config, record, images=IMAGES, outputs=None):
    """Does what a client does: fetch, quantize, run."""
    graph = import_graph(tf1.GraphDef.FromString(Path(pb).read_bytes()), pb)
    with graph.as_default():
        fetched = graph.get_tensor_by_name(f"{OUTPUT}:0")
        assert amct.quantize_model(graph, config, record, outputs) == []
        with tf1.Session() as session:
            session.run(tf1.global_variables_initializer())
            session.run(fetched, feed_dict={"input:0": images})


def predict(path, images=IMAGES, output=OUTPUT):
    graph = import_graph(tf1.GraphDef.FromString(path.read_bytes()), path)
    with tf1.Session(graph=graph) as session:
        return session.run(f"{output}:0", {"input:0": images})


def test_the_public_steps(workdir):
    pb, config, record = write_inputs(workdir)
    run_calibration(pb, config, record)
    assert sorted(read_record(record)) == sorted(SMALL_NET_LAYERS)
    amct.save_model(pb, [OUTPUT], record, str(workdir / "out" / "net"))
    expected, actual = predict(workdir / "net.pb"), predict(workdir / "out" / "net_quantized.pb")
    assert np.abs(expected - actual).max() < 0.05
    assert (workdir / "out" / "net_quant.json").exists()
    amct.convert_model(pb, [OUTPUT], record, str(workdir / "converted") + "/")
    assert (workdir / "converted" / "quantized.pb").exists()
    assert (workdir / "converted" / "quant.json").exists()
    plain = predict(workdir / "converted" / "quantized.pb")
    assert np.abs(expected - actual).mean() <= np.abs(expected - plain).mean()


def test_unfolded_batch_norm_is_remembered_in_the_record(workdir):
    pb, config, record = write_inputs(workdir)
    content = json.loads((workdir / "config.json").read_text())
    content["do_fusion"] = False
    (workdir / "config.json").write_text(json.dumps(content))
    run_calibration(pb, config, record)
    assert read_record(record)["conv/Conv2D"].skip_fusion
    amct.save_model(pb, [OUTPUT], record, str(workdir / "net"))
    graph_def = tf1.GraphDef.FromString((workdir / "net_quantized.pb").read_bytes())
    assert any(node.op == "FusedBatchNorm" for node in graph_def.node)
    assert np.abs(predict(workdir / "net.pb") - predict(workdir / "net_quantized.pb")).max() < 0.05


def output_before_batch_norm():
    """conv -> BatchNorm that makes it twenty times smaller -> Relu; ``conv`` is an output of its own."""
    x = tf1.placeholder(tf.float32, [None, 12, 12, 3], name="input")
    y = tf.nn.conv2d(x, normal((3, 3, 3, 8), 1, 0.4), 1, "SAME", name="conv")
    ones = np.ones(8, np.float32)
    y = tf.raw_ops.FusedBatchNormV3(
        x=y, scale=0.05 * ones, offset=0 * ones, mean=0 * ones, variance=ones, is_training=False, name="norm"
    )[0]
    tf.nn.relu(y, name=OUTPUT)


@pytest.mark.parametrize("bias_correction", [True, False])
def test_what_is_saved_is_what_was_calibrated(workdir, bias_correction):
    """An output inside a chain that calibration folded: the scales belong to other weights."""
    pb, config, record = write_inputs(workdir, output_before_batch_norm)
    content = {**json.loads(Path(config).read_text()), **({} if bias_correction else PLAIN)}
    Path(config).write_text(json.dumps(content))
    run_calibration(pb, config, record)
    amct.save_model(pb, [OUTPUT], record, str(workdir / "folded"))
    with pytest.raises(RecordError, match=r"'conv' had other weights.*calib_outputs"):
        amct.save_model(pb, ["conv", OUTPUT], record, str(workdir / "net"))
    assert not (workdir / "net_quantized.pb").exists()
    run_calibration(pb, config, record, outputs=["conv", OUTPUT])
    amct.save_model(pb, ["conv", OUTPUT], record, str(workdir / "net"))
    for output in ("conv", OUTPUT):
        expected = predict(workdir / "net.pb", output=output)
        error = predict(workdir / "net_quantized.pb", output=output) - expected
        assert np.linalg.norm(error) < 0.02 * np.linalg.norm(expected)


def test_a_model_with_other_weights_than_calibrated(workdir):
    pb, config, record = write_inputs(workdir)
    run_calibration(pb, config, record)
    graph_def = tf1.GraphDef.FromString(Path(pb).read_bytes())
    (weights,) = (node for node in graph_def.node if node.name == "conv/weights")
    values = tf.make_ndarray(weights.attr["value"].tensor) * np.float32(1.5)
    weights.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values))
    save(graph_def, Path(pb))
    with pytest.raises(RecordError, match="'conv/Conv2D' had other weights"):
        amct.save_model(pb, [OUTPUT], record, str(workdir / "net"))


def record_of_weights(pb, *, folded):
    """Returns factors for a small net whose weight scales are those of folded weights, or of unfolded ones."""
    model = FloatModel.load(pb, [OUTPUT])
    fused = model.fuse([] if folded else [layer.name for layer in model.layers])
    scales = {
        name: tuple(arq_scales(name, layer.op_type, layer.weights, True).tolist()) if layer.channels > 1 else ()
        for name, layer in fused.layers.items()
    }
    return {name: LayerFactors(0.05, 0, scale) for name, scale in scales.items()}


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("declared", [True, False])
def test_scales_tell_whether_batch_norm_is_folded(workdir, messages, folded, declared):
    pb, _, record = write_inputs(workdir)
    factors = record_of_weights(pb, folded=folded)
    write_record(record, {name: replace(layer, skip_fusion=declared) for name, layer in factors.items()})
    amct.convert_model(pb, [OUTPUT], record, str(workdir / "net"))
    nodes = tf1.GraphDef.FromString((workdir / "net_quantized.pb").read_bytes()).node
    assert any(node.op.startswith("FusedBatchNorm") for node in nodes) is not folded
    warnings = [text for text in messages if text.startswith("WARNING") and "skip_fusion" in text]
    if declared is not folded:
        assert not warnings
    else:
        (warning,) = warnings
        named = {name for name in SMALL_NET_LAYERS if name in warning}
        assert named == {"conv/Conv2D", "dw/depthwise", "project/Conv2D"}
        assert f"skip_fusion: {str(not folded).lower()}" in warning


def test_scales_that_fit_no_weights_are_named(workdir, messages):
    pb, _, record = write_inputs(workdir)
    factors = record_of_weights(pb, folded=True)
    wrong = factors["dw/depthwise"]
    factors["dw/depthwise"] = replace(wrong, scale_w=tuple(20 * scale for scale in wrong.scale_w))
    write_record(record, factors)
    amct.convert_model(pb, [OUTPUT], record, str(workdir / "net"))
    (warning,) = [text for text in messages if "far off the range" in text]
    assert "1 layer " in warning and "dw/depthwise" in warning and "skip_fusion" in warning


def branching_net():
    x = tf1.placeholder(tf.float32, [None, 12, 12, 3], name="input")
    a = tf.nn.conv2d(x, normal((3, 3, 3, 4), 1, 0.3), 1, "SAME", name="a/Conv2D")
    b = tf.nn.conv2d(x, normal((1, 1, 3, 4), 2), 1, "SAME", name="b/Conv2D")
    y = tf.nn.max_pool2d(tf.raw_ops.AddV2(x=a, y=b, name="sum/add"), 2, 2, "SAME", name="sum/MaxPool")
    tf.nn.softmax(tf.reduce_mean(y, [1, 2]), name=OUTPUT)


def test_tensors_are_quantized_too(workdir):
    pb, config, record = write_inputs(workdir, branching_net)
    content = json.loads((workdir / "config.json").read_text())
    inputs = [("sum/add", 0), ("sum/add", 1), ("sum/MaxPool", 0)]
    content["tensor_quantize"] = [{"layer_name": name, "input_index": index} for name, index in inputs]
    (workdir / "config.json").write_text(json.dumps(content))
    run_calibration(pb, config, record)
    factors = read_record(record)
    assert sorted(factors) == ["a/Conv2D", "b/Conv2D", "sum/MaxPool:0", "sum/add:0", "sum/add:1"]
    amct.save_model(pb, [OUTPUT], record, str(workdir / "net"))
    graph_def = tf1.GraphDef.FromString((workdir / "net_quantized.pb").read_bytes())
    nodes = {node.name: node for node in graph_def.node}
    anti = nodes[nodes["sum/MaxPool"].input[0]]
    assert anti.op == "AscendAntiQuant" and set(anti.attr) == {"T", "scale", "offset"}
    assert anti.attr["scale"].f == pytest.approx(factors["sum/MaxPool:0"].scale_d)
    assert nodes[anti.input[0]].op == "AscendQuant"
    assert anti.attr["offset"].f == -factors["sum/MaxPool:0"].offset_d == -nodes[anti.input[0]].attr["offset"].f != 0
    assert [nodes[name].op for name in nodes["sum/add"].input] == ["AscendAntiQuant"] * 2
    assert [nodes[nodes[nodes[name].input[0]].input[0]].op for name in nodes["sum/add"].input] == ["AscendDequant"] * 2
    assert np.abs(predict(workdir / "net.pb") - predict(workdir / "net_quantized.pb")).max() < 0.05


def test_both_inputs_of_a_node_are_calibrated_though_no_layer_needs_them(workdir):
    def make():
        x, z = (tf1.placeholder(tf.float32, [None, 6], name=name) for name in "xz")
        tf.matmul(x, normal((6, 4), 1), name="layer")
        tf.add(tf.sin(x), 2 * tf.cos(z), name="sum")

    graph = graph_of(make)
    amct.create_quant_config("config.json", graph)
    content = json.loads(Path("config.json").read_text())
    content["tensor_quantize"] = [{"layer_name": "sum", "input_index": index} for index in range(2)]
    Path("config.json").write_text(json.dumps(content))
    amct.quantize_model(graph, "config.json", "record.txt", ["layer", "sum"])
    values = np.linspace(-3, 3, 60, dtype=np.float32).reshape(10, 6)
    with tf1.Session(graph=graph) as session:
        session.run(["layer:0", "sum:0"], {"x:0": values, "z:0": values})
    factors = read_record("record.txt")
    assert factors["sum:0"].scale_d == pytest.approx(2 / 255, rel=0.2)
    assert factors["sum:1"].scale_d == pytest.approx(4 / 255, rel=0.2)


def test_tensors_that_cannot_be_quantized_are_refused_before_any_data_is_run(workdir):
    def make():
        x = tf1.placeholder(tf.float32, [None, 12, 12, 3], name="input")
        y = tf.nn.conv2d(x, normal((3, 3, 3, 4), 1, 0.3), 1, "SAME", name="conv/Conv2D")
        y = tf.raw_ops.AddV2(x=y, y=normal((4,), 2), name="conv/bias")
        tf.raw_ops.AddV2(x=tf.cast(y, tf.int32), y=3, name="integers")
        tf.nn.max_pool2d(y, 2, 2, "SAME", name="aside")
        flag = tf1.placeholder(tf.bool, [], name="flag")
        _, y = tf1.while_loop(
            lambda i, _: i < 3,
            lambda i, v: (i + 1, tf.nn.max_pool2d(v, 1, 1, "SAME", name="pool")),
            [0, y],
            name="loop",
        )
        y = tf1.cond(flag, lambda: tf.nn.max_pool2d(y, 2, 1, "SAME", name="pool"), lambda: y, name="branch")
        tf.nn.softmax(tf.reduce_mean(y, [1, 2]), name=OUTPUT)

    with control_flow_v1():
        refused_tensors(workdir, make)


def refused_tensors(workdir, make):
    _, config, record = write_inputs(workdir, make)
    content = json.loads((workdir / "config.json").read_text())
    for name, outputs, words in [
        ("conv/bias", None, "is folded into the layer before it"),
        ("integers", None, "int32; only float32"),
        ("aside", [OUTPUT], "does not depend on"),
        ("loop/pool", None, "runs inside a loop"),
        ("branch/pool", None, "stands in a branch"),
    ]:
        content["tensor_quantize"] = [{"layer_name": name, "input_index": 0}]
        (workdir / "config.json").write_text(json.dumps(content))
        with pytest.raises(ConfigValueError, match=f"'{name}'.*{words}.*Delete it"):
            amct.quantize_model(graph_of(make), config, record, outputs)


def test_save_before_calibration(workdir):
    pb, config, record = write_inputs(workdir)
    graph = graph_of()
    amct.quantize_model(graph, config, record)
    with pytest.raises(RecordError, match="not run to its end"):
        amct.save_model(pb, [OUTPUT], record, str(workdir / "net"))
    assert not (workdir / "net_quantized.pb").exists()


def test_a_quantized_model_is_not_quantized_again(workdir):
    pb, config, record = write_inputs(workdir)
    run_calibration(pb, config, record)
    amct.save_model(pb, [OUTPUT], record, str(workdir / "net"))
    with pytest.raises(ModelError, match="quantized already"):
        amct.save_model(str(workdir / "net_quantized.pb"), [OUTPUT], record, str(workdir / "again"))


def test_weights_that_are_not_finite_stop_before_the_record_is_emptied(workdir):
    def make():
        x = tf1.placeholder(tf.float32, [None, 2], name="input")
        tf.matmul(x, np.array([[1.0], [np.nan]], np.float32), name=OUTPUT)

    _, config, record = write_inputs(workdir, make)
    (workdir / "record.txt").write_text("earlier")
    with pytest.raises(CalibrationError, match="'probabilities' have invalid value inf or nan"):
        amct.quantize_model(graph_of(make), config, record)
    assert (workdir / "record.txt").read_text() == "earlier"


def test_model_without_layers(workdir):
    with pytest.raises(ConfigValueError, match="no layer that can be quantized"):
        amct.create_quant_config("config.json", graph_of(lambda: tf1.placeholder(tf.float32, [2], name="x")))
    assert not (workdir / "config.json").exists()


@pytest.mark.parametrize(
    ("outputs", "error", "words"), [("out", ArgumentTypeError, "calib_outputs"), (["nowhere"], ModelError, "nowhere")]
)
def test_wrong_outputs_of_a_calibration(workdir, outputs, error, words):
    _, config, record = write_inputs(workdir)
    with pytest.raises(error, match=words):
        amct.quantize_model(graph_of(), config, record, outputs)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda graph: amct.create_quant_config(3, graph), ArgumentTypeError, "config_file"),
        (lambda graph: amct.create_quant_config("", graph), ArgumentValueError, "config_file"),
        (lambda graph: amct.create_quant_config("c.json", "graph"), ArgumentTypeError, "graph"),
        (lambda graph: amct.create_quant_config("c.json", graph, "conv"), ArgumentTypeError, "skip_layers"),
        (lambda graph: amct.create_quant_config("c.json", graph, [3]), ArgumentTypeError, "skip_layers"),
        (lambda graph: amct.create_quant_config("c.json", graph, batch_num=True), ArgumentTypeError, "batch_num"),
        (lambda graph: amct.create_quant_config("c.json", graph, batch_num=0), ArgumentValueError, "batch_num"),
        (
            lambda graph: amct.create_quant_config("c.json", graph, activation_offset=1),
            ArgumentTypeError,
            "activation_offset",
        ),
        (lambda graph: amct.create_quant_config("c.json", graph, config_defination=1), ArgumentTypeError, "defination"),
        (lambda graph: amct.quantize_model(graph, "c.json", 5), ArgumentTypeError, "record_file"),
        (lambda graph: amct.quantize_model(graph, "missing.json", "r"), ConfigValueError, "missing.json"),
        (lambda graph: amct.quantize_model(graph, "c.json", "r", "out"), ArgumentTypeError, "calib_outputs"),
        (lambda graph: amct.save_model("a.pb", "out", "r", "s"), ArgumentTypeError, "outputs"),
        (lambda graph: amct.save_model("a.pb", [], "r", "s"), ArgumentValueError, "outputs"),
        (lambda graph: amct.save_model("a.pb", ["out"], "r", "s"), ModelError, "a.pb"),
        (lambda graph: amct.set_logging_level(1), ArgumentTypeError, "print_level"),
        (lambda graph: amct.set_logging_level("info", "loud"), ArgumentValueError, "save_level"),
    ],
)
def test_arguments_are_checked(call, error, words):
    with pytest.raises(error, match=words):
        call(graph_of())
