"""What joins two values: residual sums, gates, concatenations, and attention."""

import math

import tensorflow as tf

from random_models.kind import Kind, channel_axis
from random_models.values import draw_weights, weights


def _draw_nothing(chance, shape):
    return {}


def _draw_concat(chance, shape):
    axis = channel_axis(len(shape), chance.channels_first)
    return {"axis": axis} if axis and shape[axis] is not None and shape[axis] <= 8 else None


def _write_attention(how, x, width, **values):
    """One head: three projections of the same sequence, and two products of data."""
    matrices = [weights((x.shape[-1], width), 1, **{**values, "seed": values["seed"] + n}) for n in range(3)]
    query, key, value = (tf.matmul(how.data(x), how.weights(matrix, 1)) for matrix in matrices)
    scores = how.product(query, key, transpose_b=True) * how.constant(1 / math.sqrt(width))
    return how.product(tf.nn.softmax(scores), value)


def _draw_attention(chance, shape):
    return {"width": chance.whole(2, 6), **draw_weights(chance)} if len(shape) == 3 and shape[-1] is not None else None


JOINS = {
    "add": Kind(_draw_nothing, lambda how, x: tf.add(*x), 3, reads_two=True),
    "gate": Kind(_draw_nothing, lambda how, x: x[0] * tf.sigmoid(x[1]), 1, reads_two=True),
    "concat": Kind(_draw_concat, lambda how, x, axis: tf.concat(x, axis), 1.5, reads_two=True),
    "attention": Kind(_draw_attention, _write_attention, 0.7),
}
