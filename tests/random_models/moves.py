"""What moves values without computing, or picks and pools them."""

import math

import tensorflow as tf

from random_models.kind import Kind, are_images, channel_axis, height_and_width, places


def _known(shape):
    return len(shape) > 1 and None not in shape[1:]


def _draw_flatten(chance, shape):
    return {} if len(shape) > 2 and _known(shape) else None


def _write_flatten(how, x):
    return tf.reshape(x, [-1 if x.shape[0] is None else x.shape[0], math.prod(x.shape.as_list()[1:])])


def _draw_places(chance, shape):
    """Images as sequences of places."""
    return {} if are_images(shape) else None


def _write_places(how, x):
    _, height, width, channels = x.shape.as_list()
    return tf.reshape(x, [-1, height * width, channels])


def _draw_heads(chance, shape):
    return {"parts": 2} if _known(shape) and len(shape) in (2, 3) and shape[-1] % 2 == 0 else None


def _write_heads(how, x, parts):
    *lengths, last = x.shape.as_list()
    return tf.reshape(x, [-1, *lengths[1:], parts, last // parts])


def _draw_sequence(chance, shape):
    return {"steps": chance.rows} if chance.rows > 1 and len(shape) == 2 and shape[1] is not None else None


def _write_sequence(how, x, steps):
    """Rows of which a fixed number belongs together."""
    return tf.reshape(x, [-1, steps, x.shape[-1]])


def _draw_rows(chance, shape):
    return {} if len(shape) > 2 and _known(shape) else None


def _write_rows(how, x):
    return tf.reshape(x, [-1, x.shape[-1]])


def _draw_transpose(chance, shape):
    if len(shape) < 3:
        return None
    order = [1, 0, 2] if len(shape) == 3 and chance.maybe(0.4) else [0, *(n + 1 for n in chance.order(len(shape) - 1))]
    return {"order": order}


def _write_transpose(how, x, order):
    return tf.transpose(x, order)


def _draw_expand(chance, shape):
    return {"axis": chance.whole(1, len(shape))} if len(shape) < 4 else None


def _write_expand(how, x, axis):
    return tf.expand_dims(x, axis)


def _draw_squeeze(chance, shape):
    ones = [axis for axis in range(1, len(shape)) if shape[axis] == 1]
    return {"axis": chance.pick(*ones)} if ones and len(shape) > 2 else None


def _write_squeeze(how, x, axis):
    return tf.squeeze(x, [axis])


def _draw_pad(chance, shape):
    if not _known(shape):
        return None
    mode = chance.pick("CONSTANT", "CONSTANT", "ONE", "REFLECT")
    margins = [[0, 0], *([chance.whole(0, min(1, side - 1)), chance.whole(0, min(1, side - 1))] for side in shape[1:])]
    axis = channel_axis(len(shape), chance.channels_first)
    margins[axis] = margins[axis] if chance.maybe(0.1) else [0, 0]
    return {"mode": mode, "margins": margins}


def _write_pad(how, x, mode, margins):
    if mode == "ONE":
        return tf.raw_ops.PadV2(input=x, paddings=margins, constant_values=how.constant(1.0))
    return tf.pad(x, margins, mode)


def _draw_split(chance, shape):
    axis = channel_axis(len(shape), chance.channels_first)
    if not _known(shape) or shape[axis] < 2:
        return None
    return {"axis": axis, "at": chance.whole(1, shape[axis] - 1), "keeps": chance.pick("both", "both", "first", "last")}


def _write_split(how, x, axis, at, keeps):
    first, last = tf.split(x, [at, x.shape[axis] - at], axis)
    return {"both": lambda: tf.concat([last, first], axis), "first": lambda: first, "last": lambda: last}[keeps]()


def _draw_slice(chance, shape):
    axes = [axis for axis in range(1, len(shape)) if shape[axis] is not None and shape[axis] > 1]
    if not axes:
        return None
    axis = chance.pick(*axes)
    return {"axis": axis, "cut": chance.pick("first", "last", "every_second", "backwards")}


_CUTS = {
    "first": slice(0, 1), "last": slice(-1, None), "every_second": slice(None, None, 2),
    "backwards": slice(None, None, -1),
}  # fmt: skip


def _write_slice(how, x, axis, cut):
    return x[(*(slice(None) for _ in range(axis)), _CUTS[cut])]


def _draw_pass(chance, shape):
    return {"op": chance.pick("Identity", "Cast", "StopGradient", "EnsureShape", "IdentityN")}


def _write_pass(how, x, op):
    if op == "Cast":
        return tf.raw_ops.Cast(x=x, DstT=x.dtype)
    if op == "EnsureShape":
        return tf.ensure_shape(x, x.shape)
    return (
        tf.identity_n([x])[0]
        if op == "IdentityN"
        else {"Identity": tf.identity, "StopGradient": tf.stop_gradient}[op](x)
    )


def _draw_blocks(chance, shape):
    if not are_images(shape) or chance.channels_first or shape[1] % 2 or shape[2] % 2:
        return None
    return {"op": chance.pick("space_to_depth", "space_to_batch_and_back")}


def _write_blocks(how, x, op):
    if op == "space_to_depth":
        return tf.nn.space_to_depth(x, 2)
    phases = tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]])
    return tf.batch_to_space(tf.nn.relu(phases), [2, 2], [[0, 0], [0, 0]])


def _draw_max_pool(chance, shape):
    if not are_images(shape) or min(height_and_width(shape, chance.channels_first)) < 3:
        return None
    return {"stride": chance.pick(1, 2), "padding": chance.pick("SAME", "VALID"), "first": chance.channels_first}


def _write_max_pool(how, x, stride, padding, first):
    def compute(images, data_format):
        strides = places(data_format, stride, stride)
        return tf.nn.max_pool2d(images, places(data_format, 2, 2), strides, padding, data_format)

    return how.images(x, first, compute)


def _draw_reduce(chance, shape):
    if len(shape) < 3:
        return None
    spatial = [2, 3] if chance.channels_first and len(shape) == 4 else list(range(1, len(shape) - 1))
    return {"op": chance.pick("mean", "mean", "max", "sum"), "axes": spatial, "keeps": chance.maybe(0.3)}


def _write_reduce(how, x, op, axes, keeps):
    return {"mean": tf.reduce_mean, "max": tf.reduce_max, "sum": tf.reduce_sum}[op](x, axes, keepdims=keeps)


def _draw_resize(chance, shape):
    if not are_images(shape) or chance.channels_first or math.prod(shape[1:3]) > 36:
        return None
    return {"op": chance.pick("nearest", "bilinear")}


def _write_resize(how, x, op):
    size = [2 * side for side in x.shape.as_list()[1:3]]
    return tf.cast(tf.image.resize(x, size, op), x.dtype)


def _draw_cumsum(chance, shape):
    return {"axis": chance.pick(0, 1)} if len(shape) in (2, 3) else None


def _write_cumsum(how, x, axis):
    return tf.cumsum(x, axis)


MOVES = {
    "flatten": Kind(_draw_flatten, _write_flatten, 0.4),
    "places": Kind(_draw_places, _write_places, 0.3),
    "heads": Kind(_draw_heads, _write_heads, 0.4),
    "sequence": Kind(_draw_sequence, _write_sequence, 3),
    "rows": Kind(_draw_rows, _write_rows, 0.3),
    "transpose": Kind(_draw_transpose, _write_transpose, 0.7),
    "expand": Kind(_draw_expand, _write_expand, 0.3),
    "squeeze": Kind(_draw_squeeze, _write_squeeze, 0.7),
    "pad": Kind(_draw_pad, _write_pad, 0.6),
    "split": Kind(_draw_split, _write_split, 0.6),
    "slice": Kind(_draw_slice, _write_slice, 0.4),
    "pass": Kind(_draw_pass, _write_pass, 0.6),
    "blocks": Kind(_draw_blocks, _write_blocks, 0.4),
    "max_pool": Kind(_draw_max_pool, _write_max_pool, 0.4),
    "reduce": Kind(_draw_reduce, _write_reduce, 0.3),
    "resize": Kind(_draw_resize, _write_resize, 0.3),
    "cumsum": Kind(_draw_cumsum, _write_cumsum, 0.4),
}
