"""A kernel of TensorFlow Lite runs on any number of images, in any thread, for as long as it is kept."""

import gc
import threading
import warnings
import weakref

import numpy as np
import pytest
import tensorflow as tf
from graphs import tf1
from tensorflow.lite.python import schema_py_generated as schema

from amct_tensorflow.graph.nodes import make_node
from amct_tensorflow.search.integers.availability import why_no_lite_kernels
from amct_tensorflow.search.lite import lite_kernel
from amct_tensorflow.search.lite.lite_kernel import LiteKernel, node_of
from amct_tensorflow.search.lite.lite_model import LiteModel

pytestmark = pytest.mark.skipif(why_no_lite_kernels() is not None, reason=f"{why_no_lite_kernels()}")

SHAPE = (2, 3, 4)


@pytest.fixture(params=[1, 2, 3, 20])
def thread_count(request, monkeypatch):
    """Runs a test as on a processor with some threads."""
    lite_kernel._threads.cache_clear()
    monkeypatch.setattr(lite_kernel, "_thread_count", lambda: request.param)
    yield request.param
    lite_kernel._threads().shutdown()
    lite_kernel._threads.cache_clear()


def content():
    """Returns a model of two inputs, that yields their sum, and the second one doubled."""
    model = LiteModel()
    one, other = model.floats((1, *SHAPE)), model.floats((1, *SHAPE))
    total = model.add("ADD", 1, [one, other], model.floats((1, *SHAPE)), schema.AddOptionsT())
    doubled = model.add("ADD", 1, [other, other], model.floats((1, *SHAPE)), schema.AddOptionsT())
    return model.content([one, other], [total, doubled])


def data(count, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(count, *SHAPE)).astype(np.float32) for _ in range(2)]


def check(kernel, count, seed=0):
    one, other = data(count, seed)
    for found, expected in zip(kernel(one, other), (one + other, other + other), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_any_number_of_images(thread_count, count):
    kernel = LiteKernel(content())
    check(kernel, count)
    check(kernel, count, seed=1)  # the same interpreters again


@pytest.mark.parametrize(
    ("threads", "images", "made"), [(1, 5, [1]), (2, 5, [1, 1]), (2, 1, [2]), (20, 5, [2] * 8), (20, 1, [20])]
)
def test_threads_share_interpreters_where_they_are_many(threads, images, made, monkeypatch):
    """Each interpreter holds the weights once more."""
    found = []
    interpreter = lite_kernel._interpreter
    monkeypatch.setattr(lite_kernel, "_thread_count", lambda: threads)
    monkeypatch.setattr(
        lite_kernel, "_interpreter", lambda content, count: found.append(count) or interpreter(content, count)
    )
    check(LiteKernel(content()), images)
    assert found == made


def test_changing_numbers_of_images(thread_count):
    kernel = LiteKernel(content())
    for count in (3, 1, 0, 5, 1):
        check(kernel, count, seed=count)


def test_several_threads_at_once(thread_count):
    kernel, failed = LiteKernel(content()), []

    def call(seed):
        try:
            for count in (1, 4, 7):
                check(kernel, count, seed)
        except BaseException as error:  # a thread would only print it
            failed.append(error)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_inputs_of_different_numbers_of_images_are_refused():
    """It would yield as many as the first one has."""
    (one, _), (_, other) = data(1), data(3)
    with pytest.raises(ValueError, match="repeats no images"):
        LiteKernel(content())(one, other)


def test_images_of_another_size_are_refused():
    one, other = (each[:, :1] for each in data(2))
    with pytest.raises(ValueError):
        LiteKernel(content())(one, other)


def test_nothing_is_said_of_its_removal():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(LiteKernel(content()), 2)


def graph_with(node):
    """Returns a graph that feeds a node, and reads it."""
    node.name = "kernel"
    node.input.extend(["one", "other"])
    placeholders = [make_node(name, "Placeholder", [], dtype=tf.float32) for name in ("one", "other")]
    graph_def = tf1.GraphDef(node=[*placeholders, node])
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    return graph


def test_a_node_calls_it_in_any_session_for_as_long_as_it_is_kept():
    kernel = LiteKernel(content())
    gone = weakref.ref(kernel)
    node, kept = node_of(kernel, 2, 2)
    del kernel
    one, other = data(3)
    graph = graph_with(node)
    for _ in range(2):
        with tf1.Session(graph=graph) as session:
            total, doubled = session.run(["kernel:0", "kernel:1"], {"one:0": one, "other:0": other})
        np.testing.assert_array_equal(total, one + other)
        np.testing.assert_array_equal(doubled, other + other)
    assert gone() is not None
    gc.disable()
    try:
        del kept
        assert gone() is None  # it goes at once, with all that it holds
    finally:
        gc.enable()
    with tf1.Session(graph=graph) as session, pytest.raises(tf.errors.OpError):
        session.run("kernel:0", {"one:0": one, "other:0": other})


def test_threads_are_as_many_as_tensorflow_computes_with(monkeypatch):
    lite_kernel._thread_count.cache_clear()
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: 5)
    assert lite_kernel._thread_count() == 5
    lite_kernel._thread_count.cache_clear()
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: 0)
    monkeypatch.setattr(lite_kernel.os, "sched_getaffinity", lambda _: {0, 4, 5})
    assert lite_kernel._thread_count() == 3
    lite_kernel._thread_count.cache_clear()
