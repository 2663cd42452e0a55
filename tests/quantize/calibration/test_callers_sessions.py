"""Calibration in whatever graph and session the caller has."""

import gc
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, build_v1, control_flow_v1, normal, run, small_net, tf1

import amct_tensorflow as amct
from amct_tensorflow.errors import CalibrationError, ModelError
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.calibration.calibrator import Calibrator
from amct_tensorflow.quantize.config.defaults import default_config

IMAGES = normal((40, 12, 12, 3), 40)


def calibrator_of(graph_def, outputs=("out",), batches=1, for_search=True, graph=None, balancing=True):
    model = FloatModel.of_graph(graph or import_graph(graph_def, "test"), outputs)
    config = default_config(model.layers, model.op_types, batch_num=batches)
    config = replace(config, input_balancing=balancing)
    return Calibrator(model, config, lambda _: None, for_search=for_search), model


def calibrate(graph_def, runs, outputs=("out",), for_search=True, balancing=True, **options):
    """Runs a model on several feeds; returns what the calibration found."""
    calibrator, model = calibrator_of(graph_def, outputs, len(runs), for_search, balancing=balancing)
    with tf1.Session(graph=model.graph, **options) as session:
        for feeds in runs:
            session.run([f"{name}:0" for name in outputs], {f"{name}:0": value for name, value in feeds.items()})
    return calibrator.check_complete()


def same_factors(one, other):
    assert one.factors.keys() == other.factors.keys()
    for name, factors in one.factors.items():
        np.testing.assert_allclose(other.factors[name].scale_d, factors.scale_d, rtol=1e-5)
        assert other.factors[name].offset_d == factors.offset_d


def dense(x, name, shape=(5, 5), seed=1):
    return tf.matmul(x, tf.constant(normal(shape, seed)), name=name)


def small_graph():
    return build(
        lambda: tf.identity(small_net() or tf1.get_default_graph().get_tensor_by_name("probabilities:0"), "out")
    )


def test_batches_that_differ_in_their_number_of_images():
    graph_def = small_graph()
    one = calibrate(graph_def, [{"input": IMAGES}])
    several = calibrate(graph_def, [{"input": part} for part in np.split(IMAGES, [1, 4, 21, 39])])
    same_factors(one, several)
    assert one.images == several.images == 40
    for name, correction in one.corrections.items():
        other = several.corrections[name]
        # Of large feature maps some positions are looked at, and which they are depends on the cut.
        assert np.mean(other.weights == correction.weights) > 0.9
        np.testing.assert_allclose(other.bias, correction.bias, atol=0.02)


def test_batches_without_images_do_not_count():
    graph_def = small_graph()
    try:
        run(graph_def, ["out"], {"input": IMAGES[:0]})
    except tf.errors.InvalidArgumentError:
        pytest.skip("TensorFlow's kernels on this processor do not take no images")
    calibrator, model = calibrator_of(graph_def, batches=2)
    with tf1.Session(graph=model.graph) as session:
        for part in (IMAGES[:0], IMAGES[:8], IMAGES[:0], IMAGES[8:]):
            session.run("out:0", {"input:0": part})
    same_factors(calibrator.check_complete(), calibrate(graph_def, [{"input": IMAGES}]))


def test_what_only_the_outputs_need_belongs_to_its_own_batch_though_one_is_empty():
    def make():
        x = tf1.placeholder(tf.float32, [None, 5], name="x")
        tf.multiply(dense(x, "layer"), tf1.placeholder(tf.float32, [], name="gain"), name="out")

    calibrator, model = calibrator_of(build(make))
    with tf1.Session(graph=model.graph) as session:
        for images, gain in ((0, 1.0), (4, 2.0)):
            session.run("out:0", {"x:0": normal((images, 5), 2), "gain:0": gain})
    (batch,) = calibrator.check_complete().batches
    assert len(batch["x:0"]) == 4 and batch["gain:0"] == 2.0


@pytest.mark.parametrize("images", [12, 33])
def test_an_input_that_has_as_many_rows_as_there_are_images_by_chance(images):
    """It is not cut into parts like the images: the sum over its rows would be another one in each part."""
    feeds = {"x": normal((images, 5), 3), "numbers": normal((images, 5), 4) + 1}

    def make(summed):
        x = tf1.placeholder(tf.float32, [None, 5], name="x")
        tf.identity(dense(dense(x, "layer") + summed(), "second", seed=2), name="out")

    def placeholder():
        return tf.reduce_sum(tf1.placeholder(tf.float32, [images, 5], name="numbers"), 0)

    fed = calibrate(build(lambda: make(placeholder)), [feeds])
    constant = calibrate(build(lambda: make(lambda: feeds["numbers"].sum(0))), [{"x": feeds["x"]}])
    same_factors(fed, constant)


def test_inputs_of_different_lengths():
    def make():
        x = tf1.placeholder(tf.float32, [None, 5], name="x")
        numbers = tf1.placeholder(tf.float32, [None, 5], name="numbers")
        tf.add(dense(x, "layer"), tf.reduce_sum(dense(numbers, "other", seed=2), 0), name="out")

    feeds = {"x": normal((20, 5), 3), "numbers": normal((7, 5), 4)}
    assert set(calibrate(build(make), [feeds]).factors) == {"layer", "other"}


def test_a_tensor_that_is_kept_may_be_fed_itself():
    def make():
        tf.identity(dense(tf.sin(tf1.placeholder(tf.float32, [None, 5], name="x"), name="sin"), "layer"), name="out")

    x = normal((8, 5), 5)
    same_factors(calibrate(build(make), [{"sin": np.sin(x)}]), calibrate(build(make), [{"x": x}]))


def test_data_that_comes_from_inside_the_graph():
    """From an iterator that needs no initializing, and from one that the caller initializes in its session."""
    batches = [normal((4, 5), 6), normal((4, 5), 7)]

    def make(iterator_of):
        dataset = tf.data.Dataset.from_tensor_slices(np.stack(batches))
        images = iterator_of(dataset).get_next()
        with tf.control_dependencies([images]):
            offset = tf.constant(normal((5,), 8))
        tf.identity(dense(tf.nn.relu(dense(images, "one") + offset), "two", seed=2), name="out")

    fed = calibrate(build(lambda: make(FromPlaceholder)), [{"x": batch} for batch in batches])
    for iterator_of in (tf1.data.make_one_shot_iterator, tf1.data.make_initializable_iterator):
        with tf.Graph().as_default() as graph:
            made = []
            make(lambda dataset, f=iterator_of, made=made: made.append(f(dataset)) or made[-1])
        calibrator, _ = calibrator_of(None, batches=2, graph=graph)
        with tf1.Session(graph=graph) as session:
            if iterator_of is tf1.data.make_initializable_iterator:
                session.run(made[0].initializer)
            for _ in batches:
                session.run("out:0")
        same_factors(calibrator.check_complete(), fed)


class FromPlaceholder:
    def __init__(self, _dataset):
        pass

    def get_next(self):
        return tf1.placeholder(tf.float32, [4, 5], name="x")


def test_a_recurrent_network_between_two_layers():
    """As tf.compat.v1.nn.dynamic_rnn writes it: a loop that reads a TensorArray."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 3, 5], name="x")
        steps = tf.transpose(tf.nn.relu(dense(x, "one")), [1, 0, 2])
        array = tf.TensorArray(tf.float32, 3).unstack(steps)

        def body(i, h):
            return i + 1, tf.tanh(h + dense(array.read(i), "cell"))

        shapes = [tf.TensorShape([]), tf.TensorShape([None, 5])]
        _, y = tf1.while_loop(lambda i, _: i < 3, body, [0, tf.zeros([tf.shape(x)[0], 5])], shapes)
        tf.identity(dense(y, "two", seed=2), name="out")

    graph_def, x = build_v1(make), normal((20, 3, 5), 9)
    result = calibrate(graph_def, [{"x": x}])
    assert set(result.factors) == {"one", "two"}
    seen = run(graph_def, ["while/Exit_1"], {"x": x})[0]
    assert result.factors["two"].scale_d * 255 == pytest.approx(np.ptp(np.append(seen, 0)), rel=0.3)


@pytest.mark.parametrize("training", [False, True])
def test_dropout_that_a_flag_without_default_switches(training):
    """What only the branch of training reads does not arrive if it is not taken."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 5], name="x")
        flag = tf1.placeholder(tf.bool, [], name="flag")
        y = dense(x, "one")
        y = tf1.cond(flag, lambda: tf.nn.dropout(y, 0.5, seed=1), lambda: y)
        tf.identity(dense(y, "two", seed=2), name="out")

    result = calibrate(build_v1(make), [{"x": normal((20, 5), 10), "flag": training}])
    assert set(result.factors) == {"one", "two"}


def test_layers_behind_a_branch_that_is_not_taken_are_calibrated():
    def make():
        x = tf1.placeholder(tf.float32, [None, 5], name="x")
        flag = tf1.placeholder(tf.bool, [], name="flag")
        y = tf1.cond(flag, lambda: dense(x, "in_the_branch"), lambda: x)
        tf.identity(dense(tf.nn.relu(dense(y, "one", seed=2)), "two", seed=3), name="out")

    for flag in (True, False):
        result = calibrate(build_v1(make), [{"x": normal((20, 5), 10), "flag": flag}])
        assert set(result.factors) == {"one", "two"}


def test_control_flow_v2_between_layers():
    def make():
        x = tf1.placeholder(tf.float32, [None, 5], name="x")
        y = dense(x, "one")
        y = tf.cond(tf.reduce_sum(x) > 0, lambda: tf.sin(y), lambda: tf.cos(y))
        _, y = tf.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, v + 1.0), [0, y])
        tf.identity(dense(y, "two", seed=2), name="out")

    assert set(calibrate(build(make), [{"x": normal((20, 5), 10)}]).factors) == {"one", "two"}


def test_devices_that_the_machine_lacks():
    """A tower of a model that was trained on GPUs, calibrated where its caller asks for one, too."""
    graph_def, expected = small_graph(), calibrate(small_graph(), [{"input": IMAGES}])
    for node in graph_def.node:
        node.device = "/device:GPU:0"
    graph = import_graph(graph_def, "test")
    with graph.as_default(), tf.device("/GPU:0"):
        calibrator, _ = calibrator_of(None, graph=graph)
        with tf1.Session(config=tf1.ConfigProto(allow_soft_placement=True)) as session:
            session.run("out:0", {"input:0": IMAGES})
    same_factors(calibrator.check_complete(), expected)


def test_one_model_calibrated_twice_in_one_process():
    same_factors(*(calibrate(small_graph(), [{"input": IMAGES}]) for _ in range(2)))


def test_a_graph_that_is_being_calibrated_is_not_calibrated_again(workdir):
    graph = import_graph(small_graph(), "test")
    amct.create_quant_config("config.json", graph)
    amct.quantize_model(graph, "config.json", "record.txt")
    with pytest.raises(ModelError, match=r"is being calibrated already\. Load the model again"):
        amct.quantize_model(graph, "config.json", "record.txt")


@pytest.mark.parametrize("balancing", [False, True])
def test_a_caller_with_several_threads(balancing):
    """Their batches are not told from each other, and none is lost.

    What is found does not depend on their order, but for the strength of balancing: that which the first half of the
    images suggests is judged by the others.
    """
    graph_def = small_graph()
    calibrator, model = calibrator_of(graph_def, batches=8, balancing=balancing)
    with tf1.Session(graph=model.graph) as session:
        parts = np.split(IMAGES, 8)
        threads = [
            threading.Thread(target=session.run, args=("out:0", {"input:0": part})) for part in parts
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    result, alone = calibrator.check_complete(), calibrate(graph_def, [{"input": IMAGES}], balancing=balancing)
    assert result.images == alone.images == len(IMAGES)
    if balancing:
        assert result.balance.keys() == alone.balance.keys() == {"logits/Conv2D"}
        result, alone = (replace(each, factors=unbalanced(each)) for each in (result, alone))
    same_factors(result, alone)


def unbalanced(result):
    """Returns the factors that balancing has no part in; the pool yields what the last layer reads divided."""
    return {name: each for name, each in result.factors.items() if name not in {"pool/AvgPool", "logits/Conv2D"}}


def branches():
    """Several sources, whose taps TensorFlow runs at the same time."""
    inputs = [tf1.placeholder(tf.float32, [None, 50], name=f"x{index}") for index in range(6)]
    tf.add_n([dense(x, f"layer{index}", (50, 4), index) for index, x in enumerate(inputs)], name="out")


def test_sources_that_arrive_at_the_same_time():
    runs = [{f"x{index}": normal((30, 50), 10 * step + index) for index in range(6)} for step in range(5)]
    graph_def = build(branches)
    result = calibrate(graph_def, runs)
    assert len(result.batches) == 5
    for feeds, batch in zip(runs, result.batches, strict=True):
        for name, value in feeds.items():
            np.testing.assert_array_equal(batch[f"{name}:0"], value)


@pytest.mark.parametrize("for_search", [True, False])
def test_what_a_calibration_took_is_freed_though_the_graph_stays(for_search):
    calibrator, model = calibrator_of(small_graph(), for_search=for_search)
    replay = weakref.ref(calibrator._replay)
    with tf1.Session(graph=model.graph) as session:
        session.run("out:0", {"input:0": IMAGES})
        gc.collect()
        assert replay() is None
        kept = calibrator.check_complete().batches
        assert len(kept) == (1 if for_search else 0)
        assert sum(len(values) for values in calibrator._feed.batches._values.values()) == len(kept)
        session.run("out:0", {"input:0": IMAGES})  # the taps are still there


def test_an_error_frees_it_too_and_is_told_once():
    calibrator, model = calibrator_of(small_graph(), batches=3)
    broken = IMAGES.copy()
    broken[0, 0, 0, 0] = np.nan
    with tf1.Session(graph=model.graph) as session:
        session.run("out:0", {"input:0": IMAGES})
        with pytest.raises(tf.errors.OpError, match="inf or nan"):
            session.run("out:0", {"input:0": broken})
        session.run("out:0", {"input:0": IMAGES})  # the model itself runs on
    with pytest.raises(CalibrationError, match="'conv/Conv2D' have invalid value"):
        calibrator.check_complete()
    assert not hasattr(calibrator, "_replay") and not any(calibrator._feed.batches._values.values())


def test_control_flow_v1_of_the_whole_process():
    with control_flow_v1():
        same_factors(*(calibrate(small_graph(), [{"input": IMAGES}]) for _ in range(2)))


def test_a_graph_that_is_calibrated_keeps_no_model_alive():
    """The caller's graph holds the taps, and what they call; the model holds its weights several times."""
    calibrator, model = calibrator_of(small_graph(), for_search=False)
    graph, seen = model.graph, weakref.ref(model)
    del model
    gc.collect()
    assert seen() is None
    with tf1.Session(graph=graph) as session:
        session.run("out:0", {"input:0": IMAGES})
    assert calibrator.check_complete().factors == calibrate(small_graph(), [{"input": IMAGES}]).factors
