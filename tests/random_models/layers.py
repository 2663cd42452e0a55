"""Layers: products with constant weights, in all the ways in which programs write them."""

import math

import tensorflow as tf

from random_models.kind import Kind, are_images, channel_axis, height_and_width, places
from random_models.values import draw_weights, weights


def _draw_conv2d(chance, shape):
    if not are_images(shape):
        return None
    channels = shape[channel_axis(4, chance.channels_first)]
    sides = height_and_width(shape, chance.channels_first)
    kernel = [chance.pick(1, 1, 3, 3, 2, 5) for _ in range(2)] if chance.maybe(0.3) else [chance.pick(1, 3, 3)] * 2
    stride = chance.pick(1, 1, 1, 2)
    dilation = chance.pick(1, 1, 1, 2) if stride == 1 and not chance.channels_first else 1
    padding = chance.pick("SAME", "SAME", "VALID", [[1, 0], [2, 1]])
    reach = [(each - 1) * dilation + 1 for each in kernel]
    if padding == "VALID" and any(side < each for side, each in zip(sides, reach, strict=True)):
        padding = "SAME"
    if isinstance(padding, list) and not all(1 < each <= side + 1 for side, each in zip(sides, reach, strict=True)):
        padding = "SAME"  # a window of margins alone would make places that are unlike all others
    groups = chance.pick(1, 1, 1, 1, *(n for n in (2, 3, 4) if channels % n == 0)) if not chance.channels_first else 1
    return {
        "outputs": groups * chance.whole(1, 8 // groups), "kernel": kernel, "stride": stride, "dilation": dilation,
        "padding": padding, "groups": groups, "first": chance.channels_first, **draw_weights(chance),
    }  # fmt: skip


def _write_conv2d(how, x, outputs, kernel, stride, dilation, padding, groups, first, **values):
    inputs = x.shape[channel_axis(4, first)] // groups
    filters = how.weights(weights((*kernel, inputs, outputs), 3, **values), 3)

    def compute(images, data_format):
        around = padding if isinstance(padding, str) else [[0, 0], *padding, [0, 0]]
        if data_format == "NCHW" and not isinstance(around, str):
            around = [[0, 0], [0, 0], *padding]

        def convolve(data, part):
            return tf.nn.conv2d(
                data, part, places(data_format, stride, stride), around, data_format,
                places(data_format, dilation, dilation),
            )  # fmt: skip

        return convolve(images, filters) if groups == 1 else how.grouped(convolve, images, filters, groups)

    return how.images(how.data(x), first, compute)


def _draw_depthwise(chance, shape):
    if not are_images(shape) or min(height_and_width(shape, chance.channels_first)) < 3:
        return None
    stride = chance.pick(1, 1, 2)
    dilation = chance.pick(1, 1, 2) if stride == 1 and not chance.channels_first else 1
    padding = "SAME" if dilation > 1 else chance.pick("SAME", "VALID")
    return {
        "multiplier": chance.pick(1, 1, 1, 2), "stride": stride, "dilation": dilation, "padding": padding,
        "first": chance.channels_first, **draw_weights(chance),
    }  # fmt: skip


def _write_depthwise(how, x, multiplier, stride, dilation, padding, first, **values):
    channels = x.shape[channel_axis(4, first)]
    # A filter per channel, of which each yields channels of its own.
    filters = weights((3, 3, channels * multiplier), 2, **values).reshape(3, 3, channels, multiplier)
    per_channel = how.weights(filters.reshape(3, 3, -1), 2)
    filters = tf.reshape(per_channel, filters.shape) if how.dtype == tf.float64 else how.constant(filters)

    def compute(images, data_format):
        return tf.nn.depthwise_conv2d(
            images, filters, places(data_format, stride, stride), padding, data_format,
            [dilation, dilation],
        )  # fmt: skip

    return how.images(how.data(x), first, compute)


def _draw_transposed(chance, shape):
    if not are_images(shape) or chance.channels_first or math.prod(shape[1:3]) > 64:
        return None
    return {
        "outputs": chance.whole(1, 6), "kernel": chance.pick(2, 3, 4), "stride": chance.pick(1, 2, 2),
        "padding": chance.pick("SAME", "VALID"), **draw_weights(chance),
    }  # fmt: skip


def _write_transposed(how, x, outputs, kernel, stride, padding, **values):
    height, width = (
        side * stride if padding == "SAME" else (side - 1) * stride + kernel for side in x.shape.as_list()[1:3]
    )
    count = x.shape[0] if x.shape[0] is not None else tf.shape(x)[0]
    filters = how.weights(weights((kernel, kernel, outputs, x.shape[3]), 2, **values), 2)
    size = [count, height, width, outputs]
    return tf.nn.conv2d_transpose(how.data(x), filters, size, stride, padding)


def _draw_dilated(chance, shape):
    if not are_images(shape) or chance.channels_first or min(shape[1:3]) < 4:
        return None
    inside = chance.pick("nothing", "nothing", "bias", "relu", "bias_relu")
    return {"outputs": chance.whole(1, 6), "rate": chance.pick(2, 2, 3), "inside": inside, **draw_weights(chance)}


def _write_dilated(how, x, outputs, rate, inside, **values):
    """As Keras of TensorFlow 1 wrote it: a convolution of every phase, with a margin that makes the whole SAME."""
    filters = how.weights(weights((3, 3, x.shape[3], outputs), 3, **values), 3)
    ends = [-side % rate for side in x.shape.as_list()[1:3]]
    phases = tf.raw_ops.SpaceToBatchND(
        input=how.data(x), block_shape=[rate, rate], paddings=[[rate, rate + end] for end in ends]
    )
    y = tf.nn.conv2d(phases, filters, 1, "VALID")
    if "bias" in inside:
        y = tf.nn.bias_add(y, how.constant(weights((outputs,), 0, values["seed"] + 1, values["gain"])))
    if "relu" in inside:
        y = tf.nn.relu(y)
    return tf.raw_ops.BatchToSpaceND(input=y, block_shape=[rate, rate], crops=[[0, end] for end in ends])


def _draw_conv1d(chance, shape):
    if len(shape) != 3 or None in shape[1:]:
        return None
    kernel = chance.pick(1, 3, 3, 2)
    padding = chance.pick("SAME", "VALID") if shape[1] >= kernel else "SAME"
    return {"outputs": chance.whole(1, 8), "kernel": kernel, "stride": chance.pick(1, 1, 2), "padding": padding,
            **draw_weights(chance)}  # fmt: skip


def _write_conv1d(how, x, outputs, kernel, stride, padding, **values):
    filters = how.weights(weights((kernel, x.shape[2], outputs), 2, **values), 2)
    return tf.nn.conv1d(how.data(x), filters, stride, padding)


def _draw_conv3d(chance, shape):
    if len(shape) != 5 or None in shape[1:] or min(shape[1:4]) < 2:
        return None
    return {"outputs": chance.whole(1, 5), "kernel": [chance.whole(1, 2) for _ in range(3)],
            "padding": chance.pick("SAME", "VALID"), **draw_weights(chance)}  # fmt: skip


def _write_conv3d(how, x, outputs, kernel, padding, **values):
    filters = how.weights(weights((*kernel, x.shape[4], outputs), 4, **values), 4)
    return tf.nn.conv3d(how.data(x), filters, [1] * 5, padding)


def _draw_matmul(chance, shape):
    if len(shape) != 2 or shape[1] is None:
        return None
    return {"outputs": chance.whole(1, 12), "transposed": chance.maybe(0.3), **draw_weights(chance)}


def _write_matmul(how, x, outputs, transposed, **values):
    shape, axis = ((outputs, x.shape[-1]), 0) if transposed else ((x.shape[-1], outputs), 1)
    return tf.matmul(how.data(x), how.weights(weights(shape, axis, **values), axis), transpose_b=transposed)


def _draw_batch_matmul(chance, shape):
    # With oneDNN, TensorFlow's kernel corrupts memory where the second of four axes has the length 1.
    if len(shape) < 3 or shape[-1] is None or (len(shape) == 4 and shape[1] in (1, None)):
        return None
    return {"outputs": chance.whole(1, 12), "transposed": chance.maybe(0.3), **draw_weights(chance)}


def _write_batch_matmul(how, x, outputs, transposed, **values):
    shape, axis = ((outputs, x.shape[-1]), 0) if transposed else ((x.shape[-1], outputs), 1)
    matrix = how.weights(weights(shape, axis, **values), axis)
    return tf.raw_ops.BatchMatMulV2(x=how.data(x), y=matrix, adj_y=transposed)


def _draw_einsum(chance, shape):
    if len(shape) not in (3, 4) or shape[-1] is None:
        return None
    heads = chance.pick(0, 0, 2) if len(shape) == 3 else 0
    joins = len(shape) == 4 and None not in shape[2:] and chance.maybe(0.5)
    return {"outputs": chance.whole(1, 6), "heads": heads, "joins": joins, **draw_weights(chance)}


def _write_einsum(how, x, outputs, heads, joins, **values):
    """Projections as attention writes them: into heads, out of heads, or neither."""
    if joins:
        equation, shape, axis = "bsnd,ndo->bso", (*x.shape.as_list()[2:], outputs), 2
    elif heads:
        equation, shape, axis = "bsi,ino->bsno", (x.shape[-1], heads, outputs), 2
    else:
        names = "bsi" if len(x.shape) == 3 else "bsni"
        equation, shape, axis = f"{names},io->{names[:-1]}o", (x.shape[-1], outputs), 1
    return tf.einsum(equation, how.data(x), how.weights(weights(shape, axis, **values), axis))


def _draw_dense(chance, shape):
    if len(shape) < 3 or None in shape[1:]:
        return None
    return {"outputs": chance.whole(1, 8), **draw_weights(chance)}


def _write_dense(how, x, outputs, **values):
    """As Keras writes a dense layer on more than two axes: a product of all rows."""
    matrix = how.weights(weights((x.shape[-1], outputs), 1, **values), 1)
    rows = tf.matmul(tf.reshape(how.data(x), [-1, x.shape[-1]]), matrix)
    count = tf.shape(x)[0] if x.shape[0] is None else x.shape[0]
    return tf.reshape(rows, tf.stack([count, *x.shape.as_list()[1:-1], outputs]))


def _draw_avg_pool(chance, shape):
    if not are_images(shape) or min(height_and_width(shape, chance.channels_first)) < 3:
        return None
    whole = chance.maybe(0.2)
    return {"size": list(height_and_width(shape, chance.channels_first)) if whole else [chance.pick(2, 3)] * 2,
            "stride": chance.pick(1, 2), "padding": "VALID" if whole else chance.pick("SAME", "VALID"),
            "first": chance.channels_first}  # fmt: skip


def _write_avg_pool(how, x, size, stride, padding, first):
    def compute(images, data_format):
        window, strides = places(data_format, *size), places(data_format, stride, stride)
        return tf.nn.avg_pool2d(images, window, strides, padding, data_format)

    return how.images(how.data(x), first, compute)


LAYERS = {
    "conv2d": Kind(_draw_conv2d, _write_conv2d, 6),
    "depthwise": Kind(_draw_depthwise, _write_depthwise, 2),
    "conv2d_transpose": Kind(_draw_transposed, _write_transposed),
    "dilated": Kind(_draw_dilated, _write_dilated),
    "conv1d": Kind(_draw_conv1d, _write_conv1d, 2),
    "conv3d": Kind(_draw_conv3d, _write_conv3d, 3),
    "matmul": Kind(_draw_matmul, _write_matmul, 4),
    "batch_matmul": Kind(_draw_batch_matmul, _write_batch_matmul, 2),
    "einsum": Kind(_draw_einsum, _write_einsum, 1.5),
    "dense": Kind(_draw_dense, _write_dense),
    "avg_pool": Kind(_draw_avg_pool, _write_avg_pool, 0.7),
}
