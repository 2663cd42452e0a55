"""Where oneDNN's kernels are not exact, and this process evaluates all models, they run in TensorFlow Lite."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from graphs import ops_of, run, tf1
from integer_models import Integers, bottlenecks, conv, images, places, relu

from amct_tensorflow.quantize.quantized.builder import quantize_graph
from amct_tensorflow.search.integers import integer_execution
from amct_tensorflow.search.integers.availability import why_no_integer_kernels, why_no_lite_kernels
from amct_tensorflow.search.integers.integer_execution import IntegerExecution
from amct_tensorflow.search.lite.lite_region import LiteRegion

pytestmark = pytest.mark.skipif(why_no_lite_kernels() is not None, reason=f"{why_no_lite_kernels()}")


@pytest.fixture(autouse=True)
def no_vnni(monkeypatch):
    """Runs a test as on a processor without exact products of bytes."""
    monkeypatch.setattr(integer_execution, "why_no_integer_kernels", lambda: "there is no VNNI here")


@pytest.fixture
def all_pay(monkeypatch):
    monkeypatch.setattr(LiteRegion, "pays", lambda self: True)


@pytest.fixture
def integers():
    return Integers(bottlenecks, images(4, 8, 8, 6), offset=-9)


def execution_of(integers, **options):
    return IntegerExecution(integers.outputs, [integers.batch], **{"in_process": True, **options})


def model_of(execution, quantized):
    model = execution.model_of(quantized)
    return None if model is None else tf1.GraphDef.FromString(model)


def said(messages):
    return "\n".join(messages)


def test_lite_is_taken(all_pay, integers, messages):
    execution = execution_of(integers)
    assert not execution.is_of_this_process
    model = model_of(execution, integers.quantized)
    assert execution.is_of_this_process and "PyFunc" in ops_of(model)
    integers.compare(model, integers.feeds)
    assert (
        "Quantized models run in integers in TensorFlow Lite, but for 1 of 7 layers. They yield the same as simulated, "
        "to the bit." in said(messages)
    )
    assert "Simulated all the same: 1, as TensorFlow Lite would not gain" in said(messages)


@pytest.mark.skipif(why_no_integer_kernels() is not None, reason=f"{why_no_integer_kernels()}")
def test_onednn_comes_first(all_pay, integers, monkeypatch):
    monkeypatch.setattr(integer_execution, "why_no_integer_kernels", lambda: None)
    execution = execution_of(integers)
    model = model_of(execution, integers.quantized)
    assert not execution.is_of_this_process and "PyFunc" not in ops_of(model)


def test_what_other_processes_evaluate_is_simulated(all_pay, integers, messages):
    execution = execution_of(integers, in_process=False)
    assert model_of(execution, integers.quantized) is None and not execution.is_of_this_process
    assert "simulated: there is no VNNI here, and other processes evaluate the models." in said(messages)


def test_without_tensorflow_lite(all_pay, integers, messages, monkeypatch):
    monkeypatch.setattr(integer_execution, "why_no_lite_kernels", lambda: "this TensorFlow comes without it")
    assert model_of(execution_of(integers), integers.quantized) is None
    assert "simulated: there is no VNNI here, and this TensorFlow comes without it." in said(messages)


def test_a_model_that_gains_nothing_is_simulated_and_so_are_those_that_follow(integers, messages, monkeypatch):
    monkeypatch.setattr(LiteRegion, "pays", lambda self: False)
    execution = execution_of(integers)
    assert model_of(execution, integers.quantized) is None and not execution.is_of_this_process
    assert "simulated: there is no VNNI here, and TensorFlow Lite would not gain" in said(messages)
    monkeypatch.setattr(LiteRegion, "pays", lambda self: True)
    count = len(messages)
    assert model_of(execution, integers.quantized) is None and len(messages) == count


def test_a_model_whose_results_differ_is_simulated(all_pay, integers, messages, monkeypatch):
    honest = integer_execution.find_kernel_layers

    def dishonest(view, outputs):
        layers, simulated = honest(view, outputs)
        right = layers["project0"]
        wrong = replace(right, sums=replace(right.sums, added=right.sums.added + 1000))
        return {**layers, "project0": wrong}, simulated

    monkeypatch.setattr(integer_execution, "find_kernel_layers", dishonest)
    execution = execution_of(integers)
    assert model_of(execution, integers.quantized) is None and not execution.is_of_this_process
    assert "of the outputs would differ" in said(messages)
    monkeypatch.setattr(integer_execution, "find_kernel_layers", honest)
    assert model_of(execution, integers.quantized) is None  # it is not asked again


def test_a_model_that_repeats_images_is_simulated(all_pay, messages):
    def make():
        x = places()
        mean = tf.reduce_mean(x, 0, keepdims=True) + 0.0 * x[:1]
        tf.identity(conv(relu(tf.add(conv(mean, "one"), conv(x, "two")), "sum"), "three"), name="out")

    integers = Integers(make, images(3, 8, 8, 6))
    assert model_of(execution_of(integers), integers.quantized) is None
    assert "repeats no images" in said(messages)


def test_a_model_runs_until_the_next_one_is_asked_for(all_pay, integers):
    execution = execution_of(integers)
    first = model_of(execution, integers.quantized)
    other = quantize_graph(integers.plan.restrict({"expand1": False}))
    second = model_of(execution, other)
    integers.compare(second, integers.feeds, other)
    nothing = quantize_graph(integers.plan.restrict(dict.fromkeys(integers.plan.factors, False)))
    assert model_of(execution, nothing) is None and not execution.is_of_this_process
    again = model_of(execution, integers.quantized)
    assert ops_of(again) == ops_of(first)
    integers.compare(again, integers.feeds)


def test_a_model_that_was_made_ahead(all_pay, integers, messages):
    execution = execution_of(integers)
    execution.prepare(integers.quantized)
    assert not said(messages).count("TensorFlow Lite") and not execution.is_of_this_process
    integers.compare(model_of(execution, integers.quantized), integers.feeds)
    assert execution.is_of_this_process and "in TensorFlow Lite" in said(messages)


def test_what_an_evaluator_may_do_with_a_graph(all_pay, integers):
    """It may import it elsewhere, under a name and with an input of its own, and run it in several sessions."""
    execution = execution_of(integers)
    model = model_of(execution, integers.quantized)
    (expected,) = run(integers.quantized.graph_def, ["out"], integers.feeds)
    with tf.Graph().as_default() as graph:
        x = tf1.placeholder(tf.float16, [None, 8, 8, 6])
        (found,) = tf.import_graph_def(model, {"x": tf.cast(x, tf.float32)}, ["out:0"], name="model")
        classes = tf.argmax(found, axis=-1)
    data = integers.feeds["x"].astype(np.float16)
    (rounded,) = run(integers.quantized.graph_def, ["out"], {"x": data.astype(np.float32)})
    with tf1.Session(graph=graph) as one, tf1.Session(graph=graph) as other:
        for session in (one, other, one):
            values, best = session.run([found, classes], {x: data})
            np.testing.assert_array_equal(values, rounded)
            np.testing.assert_array_equal(best, rounded.argmax(axis=-1))
    function = tf1.wrap_function(
        lambda data: tf.import_graph_def(model, {"x": data}, ["out:0"]), [tf.TensorSpec([None, 8, 8, 6])]
    )
    np.testing.assert_array_equal(function(tf.constant(integers.feeds["x"]))[0], expected)


def test_shapes_are_as_unknown_as_in_the_simulation(all_pay, integers):
    """Whatever depends on them goes on as there."""
    execution = execution_of(integers)
    shapes = []
    for graph_def in (integers.quantized.graph_def, model_of(execution, integers.quantized)):
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(graph_def, name="")
        shapes.append({name: graph.get_tensor_by_name(f"{name}:0").shape.rank for name in ("add0", "add1", "out")})
    assert shapes[0] == shapes[1]


def test_names_of_any_form(all_pay):
    """Also those that new nodes would get."""

    def make():
        x = conv(relu(conv(places(), "0.dequant-/AscendDequant"), "a>b"), "dequant/AscendDequant/in_lite")
        tf.identity(conv(x, "7."), name="out")

    integers = Integers(make, images(2, 8, 8, 6))
    execution = execution_of(integers)
    model = model_of(execution, integers.quantized)
    assert ops_of(model).count("PyFunc") == 1
    integers.compare(model, integers.feeds)
