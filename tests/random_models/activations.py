"""Activations, as single ops and as the small graphs that converters know them by."""

import numpy as np
import tensorflow as tf

from random_models.kind import Kind


def _relu_of_limits(how, x):
    return tf.maximum(tf.minimum(tf.nn.relu(x), how.constant(6.0)), how.constant(0.0))


def _limits_alone(how, x):
    return tf.minimum(how.constant(6.0), tf.maximum(x, how.constant(0.0)))


def _leaky_by_maximum(how, x):
    return tf.maximum(x, how.constant(0.2) * x)


def _hard_swish(how, x):
    return x * (tf.nn.relu6(x + how.constant(3.0)) * how.constant(1 / 6))


ACTIVATION_OPS = {
    "relu": lambda how, x: tf.nn.relu(x),
    "relu6": lambda how, x: tf.nn.relu6(x),
    "relu_of_limits": _relu_of_limits,
    "limits": _limits_alone,
    "leaky_relu": lambda how, x: tf.nn.leaky_relu(x, 0.1),
    "leaky_by_maximum": _leaky_by_maximum,
    "sigmoid": lambda how, x: tf.sigmoid(x),
    "tanh": lambda how, x: tf.tanh(x),
    "elu": lambda how, x: tf.nn.elu(x),
    "softplus": lambda how, x: tf.nn.softplus(x),
    "swish": lambda how, x: x * tf.sigmoid(x),
    "hard_swish": _hard_swish,
    "gelu": lambda how, x: tf.nn.gelu(x, approximate=False),
    "gelu_of_tanh": lambda how, x: tf.nn.gelu(x, approximate=True),
    "softmax": lambda how, x: tf.nn.softmax(x),
}
_OFTEN = {"relu": 8, "relu6": 3, "softmax": 0.3}


def _draw_activation(chance, shape):
    return {"op": chance.weighted({op: _OFTEN.get(op, 1) for op in ACTIVATION_OPS})} if len(shape) > 1 else None


def _write_activation(how, x, op):
    return ACTIVATION_OPS[op](how, x)


def _draw_prelu(chance, shape):
    return {"seed": chance.seed()} if len(shape) > 1 and None not in shape[1:] else None


def _write_prelu(how, x, seed):
    """As Keras writes it: a slope per channel, or per place and channel."""
    slopes = np.random.default_rng(seed).uniform(0, 0.5, x.shape[-1])
    return tf.nn.relu(x) - how.constant(slopes) * tf.nn.relu(-x)


ACTIVATIONS = {
    "activation": Kind(_draw_activation, _write_activation, 5),
    "prelu": Kind(_draw_prelu, _write_prelu, 0.3),
}
