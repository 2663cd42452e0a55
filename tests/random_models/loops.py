"""Loops over the steps of sequences, as both versions of TensorFlow's control flow write them."""

import numpy as np
import tensorflow as tf
from graphs import control_flow_v1

from random_models.kind import Kind
from random_models.values import weights


def _draw_loop(chance, shape):
    if len(shape) != 3 or None in shape[1:]:
        return None
    return {"cell": chance.pick("tanh", "recurrent", "recurrent"), "version": chance.pick(1, 2), "seed": chance.seed()}


def _write_loop(how, x, cell, version, seed):
    if version == 2:
        return _over_steps(how, x, cell, seed)
    with control_flow_v1():
        return _over_steps(how, x, cell, seed)


def _over_steps(how, x, cell, seed):
    """A cell that reads a step, and a state if it is recurrent; a TensorArray collects its outputs."""
    _, steps, width = x.shape.as_list()
    matrix = how.constant(weights((width, width), 1, seed))
    sequence = tf.transpose(x, [1, 0, 2])
    outputs = tf.TensorArray(how.dtype, steps, element_shape=[x.shape[0], width])
    state = tf.zeros_like(sequence[0])

    def body(index, state, outputs):
        value = sequence[index]
        value = tf.tanh(value + tf.matmul(state, matrix) if cell == "recurrent" else value)
        return index + 1, value, outputs.write(index, value)

    _, _, outputs = tf.while_loop(lambda index, *_: index < steps, body, [np.int32(0), state, outputs])
    y = tf.transpose(outputs.stack(), [1, 0, 2])
    y.set_shape(x.shape)
    return y


LOOPS = {"loop": Kind(_draw_loop, _write_loop, 0.4)}
