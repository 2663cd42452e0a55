"""What a fold may take into a layer: biases, arithmetic with constants, and BatchNorm in all its forms."""

import numpy as np
import tensorflow as tf

from random_models.kind import Kind, channel_axis


def _draw_bias_add(chance, shape):
    if len(shape) < 2 or shape[channel_axis(len(shape), chance.channels_first)] is None:
        return None
    return {"first": chance.channels_first and len(shape) == 4, "seed": chance.seed(), "gain": chance.gain()}


def _write_bias_add(how, x, first, seed, gain):
    bias = np.random.default_rng(seed).normal(size=x.shape[channel_axis(len(x.shape), first)]) * gain
    return how.images(x, first, lambda y, data_format: tf.nn.bias_add(y, how.constant(bias), data_format))


_OPS = {
    "Add": lambda a, b: tf.raw_ops.Add(x=a, y=b),
    "AddV2": lambda a, b: tf.raw_ops.AddV2(x=a, y=b),
    "Sub": lambda a, b: tf.raw_ops.Sub(x=a, y=b),
    "Mul": lambda a, b: tf.raw_ops.Mul(x=a, y=b),
    "RealDiv": lambda a, b: tf.raw_ops.RealDiv(x=a, y=b),
}


def _draw_arithmetic(chance, shape):
    known = [index for index in range(1, len(shape)) if shape[index] is not None]
    if len(shape) < 2 or len(known) < len(shape) - 1:
        return None
    axis = channel_axis(len(shape), chance.channels_first)
    per_channel = [shape[index] if index == axis else 1 for index in range(axis, len(shape))]
    ones = [1] * axis
    constant = chance.pick(
        [], [1], per_channel, per_channel, [*ones, *per_channel], list(shape[1:]), [1, *shape[1:]],
        [length if chance.maybe(0.5) else 1 for length in shape[1:]],
    )  # fmt: skip
    if len(shape) == 3 and shape[-1] == 1 and chance.maybe(0.5):
        constant = [chance.whole(2, 5)]  # which makes it longer
    op = chance.pick(*_OPS)
    return {"op": op, "shape": constant, "left": op != "RealDiv" and chance.maybe(0.3), "seed": chance.seed()}


def _write_arithmetic(how, x, op, shape, left, seed):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=shape)
    if op in ("Mul", "RealDiv"):  # not near 0
        values = np.sign(values) * (0.5 + np.abs(values))
    pair = (how.constant(values), x) if left else (x, how.constant(values))
    return _OPS[op](*pair)


_FUSED = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")


def _draw_batch_norm(chance, shape):
    if len(shape) < 2 or shape[channel_axis(len(shape), chance.channels_first)] is None:
        return None
    first = chance.channels_first and len(shape) == 4
    forms = ["arithmetic"] if first else ["arithmetic", "terms"]
    if len(shape) == 4:
        forms += [*_FUSED, "FusedBatchNormV3", "FusedBatchNormV3"]
    variance = chance.pick("alike", "alike", "small", "spread") if chance.wild else "alike"
    return {"form": chance.pick(*forms), "first": first, "variance": variance, "seed": chance.seed()}


def _write_batch_norm(how, x, form, first, variance, seed):
    generator = np.random.default_rng(seed)
    channels = x.shape[channel_axis(len(x.shape), first)]
    scale, spread = generator.uniform(0.5, 2, (2, channels))
    offset, mean = generator.normal(size=(2, channels))
    spread = {"alike": spread, "small": spread * 1e-4, "spread": spread * 4.0 ** (np.arange(channels) % 6)}[variance]
    mean = mean * np.sqrt(spread)
    epsilon = 1e-3
    if form in ("arithmetic", "terms"):
        along = [channels, 1, 1] if first else [channels]
        factor = (scale / np.sqrt(spread + epsilon)).reshape(along)
        offset, mean = offset.reshape(along), mean.reshape(along)
        if form == "terms":  # as Keras of TensorFlow 1 wrote it
            return x * how.constant(factor) + how.constant(offset - mean * factor)
        return (x - how.constant(mean)) * how.constant(factor) + how.constant(offset)
    norm = (scale, offset, mean, spread, epsilon, form)
    return how.images(x, first, lambda y, data_format: how.batch_norm(y, *norm, data_format))


AFFINE = {
    "bias_add": Kind(_draw_bias_add, _write_bias_add, 2),
    "arithmetic": Kind(_draw_arithmetic, _write_arithmetic, 2),
    "batch_norm": Kind(_draw_batch_norm, _write_batch_norm, 2.5),
}
