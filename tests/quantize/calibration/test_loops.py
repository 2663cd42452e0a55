"""Loops and branches between layers, with the lists of tensors that they hand on: from inspection to the search."""

from contextlib import closing

import pytest
import tensorflow as tf
from graphs import build, build_v1, calibrate_and_save, normal, run, signal_to_noise, tf1
from grids import grid

from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.inspection import inspect_model
from amct_tensorflow.model.loading.load import load_frozen
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.calibration.calibrator import Calibrator
from amct_tensorflow.quantize.config.defaults import default_config
from amct_tensorflow.quantize.quantized.builder import quantize_graph
from amct_tensorflow.search.sensitivity.divergence import Divergence
from amct_tensorflow.search.sensitivity.switchable_model import SwitchableModel

STEPS = 6
X = normal((20, STEPS, 4), 1)


def dense(y, channels=4, seed=1):
    return tf.matmul(y, normal((int(y.shape[-1]), channels), seed), name=f"dense{seed}")


def steps():
    """Returns what a first layer makes of sequences, step by step [STEPS, images, 4]."""
    x = tf1.placeholder(tf.float32, [None, STEPS, 4], name="x")
    y = tf.reshape(tf.nn.relu(dense(tf.reshape(x, [-1, 4]))), [-1, STEPS, 4])
    return tf.transpose(y, [1, 0, 2])


def finish(y):
    tf.identity(dense(tf.reshape(tf.transpose(y, [1, 0, 2]), [-1, STEPS * 4]), 3, seed=2), name="out")


def array():
    return tf.TensorArray(tf.float32, STEPS, element_shape=[None, 4])


def writes_an_array():
    s = steps()
    _, y = tf.while_loop(lambda i, _: i < STEPS, lambda i, a: (i + 1, a.write(i, tf.tanh(s[i]))), [0, array()])
    finish(y.stack())


def reads_and_writes_arrays():
    y = steps()
    s, state = array().unstack(y), [0, tf.zeros_like(y[0]), array()]

    def body(i, h, a):
        h = tf.tanh(h + s.read(i))
        return i + 1, h, a.write(i, h)

    shapes = [tf.TensorShape([]), tf.TensorShape([None, 4]), tf.TensorSpec([], tf.variant).shape]
    finish(tf.while_loop(lambda i, *_: i < STEPS, body, state, shape_invariants=shapes)[2].stack())


def with_a_no_op():
    """Keras waits for nothing in its loops."""
    s = steps()

    def body(i, a):
        with tf.control_dependencies([tf.no_op()]):
            return i + 1, a.write(i, tf.tanh(s[i]))

    finish(tf.while_loop(lambda i, _: i < STEPS, body, [0, array()])[1].stack())


def that_prints():
    """What has an effect makes a loop stateful; it yields nothing that is not computed from what goes in."""
    s = steps()

    def body(i, a):
        with tf.control_dependencies([tf.debugging.Assert(i < STEPS, [i])]):
            return i + 1, a.write(i, tf.tanh(s[i]))

    finish(tf.while_loop(lambda i, _: i < STEPS, body, [0, array()])[1].stack())


def scanned():
    finish(tf.scan(lambda h, y: tf.tanh(h + y), steps()))


def mapped():
    finish(tf.map_fn(tf.tanh, steps()))


def branches():
    s = steps()
    finish(tf.cond(tf.reduce_sum(s) > 0, lambda: tf.tanh(s), lambda: -s))


def lists_in_branches():
    s = steps()
    taken = tf.cond(
        tf.reduce_sum(s) > 0,
        lambda: tf.raw_ops.TensorListFromTensor(tensor=tf.tanh(s), element_shape=tf.constant([-1, 4])),
        lambda: tf.raw_ops.TensorListFromTensor(tensor=-s, element_shape=tf.constant([-1, 4])),
    )
    y = tf.raw_ops.TensorListStack(input_handle=taken, element_shape=[-1, 4], element_dtype=tf.float32)
    finish(tf.ensure_shape(y, [STEPS, None, 4]))


def nested():
    s = steps()

    def inner(y):
        return tf.while_loop(lambda j, _: j < 2, lambda j, v: (j + 1, tf.tanh(v)), [0, y])[1]

    finish(
        tf.while_loop(lambda i, _: i < STEPS, lambda i, a: (i + 1, a.write(i, inner(s[i]))), [0, array()])[1].stack()
    )


LOOPS = [
    writes_an_array, reads_and_writes_arrays, with_a_no_op, that_prints, scanned, mapped, branches, lists_in_branches,
    nested,
]  # fmt: skip


def check_search(graph_def, outputs, feeds):
    """The graph of the search computes with each layer quantized what the model that would be saved does."""
    model = FloatModel.of_graph(import_graph(graph_def, "test"), outputs)
    calibrator = Calibrator(model, default_config(model.layers, model.op_types), lambda _: None, for_search=True)
    with tf1.Session(graph=model.graph) as session:
        session.run([f"{name}:0" for name in outputs], {f"{name}:0": value for name, value in feeds.items()})
    found = calibrator.check_complete()
    plan = found.plan(calibrator.fused, outputs)
    reference = run(graph_def, outputs, feeds)
    with closing(SwitchableModel(model.outline, plan, found.batches)) as switchable:
        for layer in plan.factors:
            restricted = plan.restrict({name: name == layer for name in plan.factors})
            expected = Divergence(len(outputs))
            expected.add(reference, run(quantize_graph(restricted).graph_def, outputs, feeds))
            assert switchable.divergences([{layer}]) == [pytest.approx(expected.value, rel=1e-3, abs=1e-12)]
    return found


@grid(1, make=LOOPS, write=[build, build_v1])
def test_the_whole_job(make, write):
    graph_def = write(make)
    inspection = inspect_model(FloatModel.of_graph(import_graph(graph_def, "test"), ["out"]))
    assert [(layer.name, layer.reason) for layer in inspection.layers] == [("dense1", None), ("dense2", None)]
    found = check_search(graph_def, ["out"], {"x": X})
    assert set(found.factors) == {"dense1", "dense2"} and found.images == len(X)
    quantized = calibrate_and_save(graph_def, X)
    (expected,), (actual,) = (run(definition, ["out"], {"x": X}) for definition in (graph_def, quantized))
    assert signal_to_noise(expected, actual) > 30


def behind_layers():
    """What leaves the loop does not wait for what it reads, but for where TensorFlow closes it."""
    y = tf1.placeholder(tf.float32, [None, STEPS, 4], name="x")
    for number in range(4):
        y = tf.nn.conv1d(y, normal((3, 4, 4), number, 0.5), 1, "SAME", name=f"conv{number}")
    s = tf.transpose(y, [1, 0, 2])
    _, y = tf.while_loop(lambda i, _: i < STEPS, lambda i, a: (i + 1, a.write(i, tf.tanh(s[i]))), [0, array()])
    finish(y.stack())


@pytest.mark.parametrize("write", [build, build_v1])
def test_layers_in_front_of_a_loop_are_looked_at_before_those_behind_it(write):
    graph_def = write(behind_layers)
    found = check_search(graph_def, ["out"], {"x": X})
    assert len(found.factors) == len(found.corrections) == 5
    quantized = calibrate_and_save(graph_def, X)
    (expected,), (actual,) = (run(definition, ["out"], {"x": X}) for definition in (graph_def, quantized))
    assert signal_to_noise(expected, actual) > 25


def recurrent_network():
    """As they read text and speech: convolution, LSTM in both directions, dense, GRU, dense."""
    layers = tf.keras.layers
    tf.keras.utils.set_random_seed(0)
    image = layers.Input((6, 8))
    y = layers.Conv1D(6, 3, padding="same", activation="relu")(image)
    y = layers.Bidirectional(layers.LSTM(5, return_sequences=True))(y)
    y = layers.GRU(5, return_sequences=True)(layers.Dense(6)(y))
    y = layers.LSTM(4, unroll=True)(layers.Dense(5)(y))
    return tf.keras.Model(image, layers.Dense(3, activation="softmax")(y))


@pytest.mark.campaign
@pytest.mark.parametrize("form", ["model.keras", "saved_model"])
def test_recurrent_layers_of_keras(form):
    model = recurrent_network()
    if form == "saved_model":
        model.export(form, verbose=False)
    else:
        model.save(form)
    frozen = load_frozen(form)
    (x,) = (node.name for node in frozen.graph_def.node if node.op == "Placeholder")
    found = check_search(frozen.graph_def, list(frozen.outputs), {x: normal((10, 6, 8), 2)})
    assert len(found.factors) >= 4 and found.images == 10
