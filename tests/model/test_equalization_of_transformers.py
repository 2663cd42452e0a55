"""What transformers have between their dense layers takes factors per channel in, or passes them on."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build_graph, normal, rng, run, tf1, unoptimized

from amct_tensorflow.model.equalization import equalize
from amct_tensorflow.model.equalization_groups import find_equalization_groups
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.ops.channel_factors import UNDIVIDED

WIDTH, HEADS, LENGTH = 12, 3, 5
ROWS = normal((2, LENGTH, WIDTH), 1)
GAIN, SHIFT = 1 + normal((WIDTH,), 2, 0.3), normal((WIDTH,), 3, 0.3)


def dense(x, width, name, seed):
    weights = normal((int(x.shape[-1]), width), seed, 0.3)
    return tf.nn.bias_add(tf.matmul(x, weights, name=name), normal((width,), seed), name=f"{name}/bias")


def dense_of_rows(x, width, name, seed):
    """A dense layer as BERT has it: of all rows in one matrix."""
    y = dense(tf.reshape(x, [-1, int(x.shape[-1])]), width, name, seed)
    return tf.reshape(y, [-1, tf.shape(x)[1], width])


def normalized(x):
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + 1e-5)


def of_batch_norm(x):
    """As ``tf.nn.batch_normalization`` writes it."""
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, SHIFT, GAIN, 1e-5)


def of_keras_3(x):
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    scale = tf.math.rsqrt(variance + 1e-5) * GAIN
    return x * scale + (-mean * scale + SHIFT)


def of_keras_2(x):
    """As one op of a whole batch: each row is a channel of it."""
    rows = tf.reshape(x, [1, 2 * LENGTH, WIDTH, 1])
    ones = np.ones(2 * LENGTH, np.float32)
    y = tf.raw_ops.FusedBatchNormV3(x=tf.transpose(rows, [0, 2, 3, 1]), scale=ones, offset=0 * ones, mean=[],
                                    variance=[], epsilon=1e-5, is_training=True)[0]  # fmt: skip
    return tf.reshape(tf.transpose(y, [0, 3, 1, 2]), [2, LENGTH, WIDTH]) * GAIN + SHIFT


def of_quotient(x):
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return GAIN * (x - mean) / tf.sqrt(variance + 1e-5) + SHIFT


def rms(x):
    return x * tf.math.rsqrt(tf.reduce_mean(x * x, -1, keepdims=True) + 1e-5) * GAIN


def rms_of_one_product(x):
    return x * (tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + 1e-5) * GAIN)


NORMS = {each.__name__: each for each in (of_batch_norm, of_keras_3, of_keras_2, of_quotient, rms, rms_of_one_product)}


def attention(query, key, values):
    """Four axes: heads stand before positions."""
    query, key, values = (
        tf.transpose(tf.reshape(each, [-1, LENGTH, HEADS, WIDTH // HEADS]), [0, 2, 1, 3])
        for each in (query, key, values)
    )
    weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) / 2.0)
    return tf.reshape(tf.transpose(tf.matmul(weights, values), [0, 2, 1, 3]), [-1, LENGTH, WIDTH])


def attention_of_keras(query, key, values):
    """Heads stay where they are; Einsum moves them."""
    query, key, values = (tf.reshape(each, [-1, LENGTH, HEADS, WIDTH // HEADS]) for each in (query, key, values))
    weights = tf.nn.softmax(tf.einsum("aecd,abcd->acbe", key, query * 0.5))
    return tf.reshape(tf.einsum("acbe,aecd->abcd", weights, values), [-1, LENGTH, WIDTH])


ATTENTIONS = [attention, attention_of_keras]


def model_of(make):
    def net():
        tf.identity(make(tf1.placeholder(tf.float32, [2, LENGTH, WIDTH], name="x")), name="out")

    return FloatModel.of_graph(build_graph(net), ["out"])


def groups_of(make):
    """Returns the group that each layer reads, of a model that computes the same when all of them are divided."""
    model = model_of(make)
    fused = model.fuse()
    found = find_equalization_groups(fused, ["out"])
    sizes = {group.readers[0]: group.channels for group in found.groups}
    factors = {name: tuple((2.0 ** rng(9).uniform(-2, 2, size)).tolist()) for name, size in sizes.items()}
    balanced = equalize(fused, factors, ["out"])
    values = (run(one, ["out"], {"x": ROWS}, unoptimized())[0] for one in (model.graph_def, balanced.graph_def))
    before, after = values
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 * np.abs(before).max())
    assert balanced.balance.keys() == {name for name, layer in fused.layers.items() if layer.weights is not None}
    return {name: group for group in found.groups for name in group.readers}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("layer", [dense, dense_of_rows])
def test_a_norm_that_only_layers_read_costs_nothing(norm, layer):
    """Directly or as rows of one matrix; some read a single row of each."""

    def net(x):
        y = norm(tf.nn.softplus(x))
        return layer(y, 6, "first", 4) + layer(y, 6, "second", 5) + dense(y[:, :1], 6, "token", 6)

    found = groups_of(net)
    assert found["first"] is found["second"] is found["token"]
    assert found["first"].is_free and found["first"].product is None and found["first"].constants


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_a_norm_that_a_sum_reads_too_gets_one_product(norm):
    def net(x):
        y = norm(tf.nn.softplus(x))
        return tf.tanh(y + dense_of_rows(y, WIDTH, "first", 4) + dense_of_rows(y, WIDTH, "second", 5))

    found = groups_of(net)
    assert found["first"] is found["second"]
    assert not found["first"].is_free and len(found["first"].product.readers) == 2


def test_gamma_that_was_folded_into_all_readers_leaves_room_for_a_product():
    """In front of layers alone fusion leaves no gamma, and a product costs what gamma did."""

    def net(x):
        y = normalized(tf.nn.softplus(x)) * GAIN + SHIFT
        return dense(y, 6, "first", 4) + dense(y, 6, "second", 5)

    group = groups_of(net)["first"]
    assert group.is_free and group.product.replaces_one


@pytest.mark.parametrize("attend", ATTENTIONS)
def test_values_of_attention_take_the_factors_of_what_they_become(attend):
    def net(x):
        query, key, values = (dense_of_rows(x, WIDTH, name, seed) for seed, name in enumerate("qkv"))
        return dense_of_rows(attend(query, key, values), WIDTH, "after", 4)

    found = groups_of(net)
    assert found["after"].is_free and found["after"].readers == ("after",)
    (producer,) = found["after"].producers
    assert producer == "v"
    np.testing.assert_array_equal(found["after"].producers[producer], np.arange(WIDTH))
    assert found["q"] is found["k"] is found["v"] and not found["q"].is_free


def split(x):
    return tf.split(dense_of_rows(x, 3 * WIDTH, "qkv", 2), 3, -1)


def sliced(x):
    y = dense_of_rows(x, 3 * WIDTH, "qkv", 2)
    return y[..., :WIDTH], y[..., WIDTH : 2 * WIDTH], y[..., 2 * WIDTH :]


def unstacked(x):
    y = tf.reshape(dense(x, 3 * WIDTH, "qkv", 2), [-1, LENGTH, 3, WIDTH])
    return tf.unstack(tf.transpose(y, [2, 0, 1, 3]))


def picked(x):
    y = tf.reshape(dense(x, 3 * WIDTH, "qkv", 2), [-1, LENGTH, 3, WIDTH])
    return y[:, :, 0], y[:, :, 1], y[:, :, 2]


@pytest.mark.parametrize("parts", [split, sliced, unstacked, picked])
def test_values_of_a_layer_that_yields_queries_and_keys_too(parts):
    def net(x):
        return dense_of_rows(attention(*parts(x)), WIDTH, "after", 4)

    group = groups_of(net)["after"]
    assert group.is_free and group.product is None
    np.testing.assert_array_equal(group.producers["qkv"], [*[UNDIVIDED] * 2 * WIDTH, *range(WIDTH)])


def test_a_gate_and_an_up_projection_in_one_layer():
    def net(x):
        gate, up = tf.split(dense(x, 16, "both", 4), 2, -1)
        return dense(tf.tanh(gate) * up, 6, "down", 5)

    group = groups_of(net)["down"]
    assert group.is_free and group.product is None
    np.testing.assert_array_equal(group.producers["both"], [*[UNDIVIDED] * 8, *range(8)])


def test_heads_of_layers_of_their_own_side_by_side():
    def net(x):
        heads = [tf.nn.relu(dense(x, 4, f"head{index}", index)) for index in range(3)]
        return dense(tf.concat(heads, -1), 6, "after", 5)

    group = groups_of(net)["after"]
    assert group.is_free and list(group.producers["head1"]) == [4, 5, 6, 7]


@pytest.mark.parametrize("gate", [tf.nn.silu, tf.nn.gelu, tf.sigmoid])
def test_an_up_projection_takes_the_factors_of_its_product_with_a_gate(gate):
    def net(x):
        y = gate(dense(x, 8, "gate", 4)) * dense(x, 8, "up", 5)
        return dense(y, 6, "down", 6)

    group = groups_of(net)["down"]
    assert group.is_free and list(group.producers) == ["up"] and not group.constants


def test_a_layer_scale_is_folded_into_the_dense_layer_before_it():
    def net(x):
        y = tf.nn.softplus(x) + dense(x, WIDTH, "inner", 4) * GAIN
        return dense(tf.tanh(y), 6, "outer", 5)

    layer = model_of(net).fuse().layers["inner"]
    np.testing.assert_allclose(layer.weights, normal((WIDTH, WIDTH), 4, 0.3) * GAIN, rtol=1e-6)
    groups_of(net)


def test_a_layer_scale_of_what_is_read_elsewhere_takes_factors_in():
    def net(x):
        y = dense(x, WIDTH, "inner", 4)
        return dense(y * GAIN, 6, "outer", 5) + dense(tf.tanh(y), 6, "other", 6)

    group = groups_of(net)["outer"]
    assert group.is_free
