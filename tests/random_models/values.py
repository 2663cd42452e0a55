"""Weights, constants and data of recipes, as NumPy arrays."""

import math

import numpy as np


def _alike(count, _generator):
    return np.ones(count)


def _spread(count, _generator):
    return 4.0 ** -(np.arange(count) % 7)


def _dead(count, generator):
    return np.where(generator.random(count) < 0.3, 0.0, 1.0)


def _nearly_dead(count, generator):
    return np.where(np.arange(count) == generator.integers(count), 1e-6, 1.0)


# By what the channels of weights are multiplied.
CHANNELS = {"alike": _alike, "spread": _spread, "dead": _dead, "nearly_dead": _nearly_dead}


def draw_weights(chance):
    """Draws the settings of ``weights``."""
    channels = chance.weighted({"alike": 7, "spread": 1, "dead": 1, "nearly_dead": 1}) if chance.wild else "alike"
    return {"seed": chance.seed(), "gain": chance.gain(), "channels": channels}


def weights(shape, axis, seed, gain=1.0, channels="alike"):
    """Returns weights that keep the magnitude of what they are multiplied with; ``axis`` is that of their outputs."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=shape) / math.sqrt(math.prod(shape) / shape[axis]) * gain
    factors = CHANNELS[channels](shape[axis], generator)
    return values * factors.reshape([-1 if index == axis % len(shape) else 1 for index in range(len(shape))])


def _normal(generator, shape):
    return generator.normal(size=shape)


def _positive(generator, shape):
    return generator.uniform(0, 1, shape)


def _pixels(generator, shape):
    return generator.integers(0, 256, shape)


def _drifting(generator, shape):
    """The first images are small, the last ones large: it shows if only some of them are looked at."""
    return generator.normal(size=shape) * np.linspace(0.1, 3, shape[0]).reshape([-1, *[1] * (len(shape) - 1)])


DATA = {"normal": _normal, "positive": _positive, "pixels": _pixels, "drifting": _drifting}


def batches(data):
    """Returns the calibration batches of a recipe's data."""
    generator = np.random.default_rng(data.seed)
    shapes = [(count * data.rows, *data.shape) for count in data.batches]
    return [(DATA[data.values](generator, shape) * data.gain).astype(np.float32) for shape in shapes]
