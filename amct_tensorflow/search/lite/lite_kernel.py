"""Runs a part of a model in TensorFlow Lite, as an op of a TensorFlow graph.

The op calls Python. So a graph that holds it runs in this process alone, and as long as the kernel is kept.
"""

import os
import warnings
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

# Each one holds the weights once more: of ResNet-50 it takes 50 MB.
_MOST_INTERPRETERS = 8


@cache
def _thread_count() -> int:
    """Returns how many threads TensorFlow computes an op with."""
    return int(tf.config.threading.get_intra_op_parallelism_threads()) or len(os.sched_getaffinity(0))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_thread_count(), thread_name_prefix="amct_lite")


class LiteKernel:
    """Runs a part of a model on any number of images.

    Each thread takes its share of them, one by one, so that what a layer hands to the next one stays in the cache. Of
    many threads a few take a share together, and a single image is computed by all.
    """

    def __init__(self, content: bytes) -> None:
        """Takes the content of its file, for one image."""
        self._content = content
        self._interpreters: dict[int, list[Any]] = {}  # by the threads of each
        self._lock = Lock()

    def __call__(self, *data: np.ndarray) -> list[np.ndarray]:
        """Returns the outputs for the inputs, float32 [images, height, width, channels] each."""
        images = len(data[0])
        if any(len(each) != images for each in data):
            raise ValueError("TensorFlow Lite repeats no images")
        with self._lock:
            interpreters = self._for(images)
            shapes = [detail["shape"][1:] for detail in interpreters[0].get_output_details()]
            results = [np.empty((images, *shape), np.float32) for shape in shapes]
            shares = np.array_split(np.arange(images), len(interpreters))
            list(_threads().map(lambda each, share: _run(each, share, data, results), interpreters, shares))
        return results

    def _for(self, images: int) -> list[Any]:
        """Returns the interpreters that share so many images, made when they are first needed."""
        count = 1 if images == 1 else min(_thread_count(), _MOST_INTERPRETERS)
        threads = _thread_count() // count
        if threads not in self._interpreters:
            self._interpreters[threads] = [_interpreter(self._content, threads) for _ in range(count)]
        return self._interpreters[threads]


def _run(interpreter: Any, share: np.ndarray, data: Sequence[np.ndarray], results: Sequence[np.ndarray]) -> None:
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    for image in share:
        for detail, values in zip(inputs, data, strict=True):
            interpreter.set_tensor(detail["index"], values[image : image + 1])
        interpreter.invoke()
        for detail, values in zip(outputs, results, strict=True):
            values[image] = interpreter.get_tensor(detail["index"])[0]


def _interpreter(content: bytes, threads: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of its own removal
        interpreter = tf.lite.Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter


def node_of(kernel: LiteKernel, inputs: int, outputs: int) -> tuple[NodeDef, object]:
    """Returns a node that calls a kernel, without its inputs, and what has to be kept as long as it does so.

    The kernel goes as soon as that goes. The graph in which the node is made refers to itself, and would stay on with
    all that it holds until Python looks for such things.
    """
    with tf.Graph().as_default() as graph:
        data = [tf.compat.v1.placeholder(tf.float32) for _ in range(inputs)]
        called = tf.numpy_function(weakref.proxy(kernel), data, [tf.float32] * outputs)
        node = NodeDef()
        node.CopyFrom(called[0].op.node_def)
    del node.input[:]
    return node, (kernel, graph)
