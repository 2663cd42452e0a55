"""Small transformers of many kinds, written as programs write them; tests carry each through all stages."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from graphs import build, normal, tf1
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

WIDTH, HEADS, SIZE = 24, 3, 8  # SIZE is that of a head
WORDS, LENGTH, BATCH = 50, 9, 4
Feeds = Mapping[str, np.ndarray]


class Weights:
    """Draws one set of weights after another, so that no two layers have the same."""

    def __init__(self) -> None:
        self._seed = 0

    def __call__(self, *shape: int, scale: float | None = None) -> np.ndarray:
        """Returns weights of a shape; by default so small that sums over all axes but the last keep their size."""
        self._seed += 1
        return normal(shape, self._seed, scale or 1 / np.sqrt(np.prod(shape[:-1])))

    def gamma(self, length: int = WIDTH) -> np.ndarray:
        """Returns factors of channels, some of them far greater than the others, as trained LayerNorms have."""
        factors = 1 + 0.3 * self(length, scale=1.0)
        factors[:2] *= 6
        return factors.astype(np.float32)


def layer_norm(x, w, length=WIDTH):
    """As TensorFlow 2 writes a LayerNorm: moments, and batch_normalization in small ops."""
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, w(length, scale=0.2), w.gamma(length), 1e-6)


def fused_layer_norm(x, w):
    """As Keras 2 writes a LayerNorm: a FusedBatchNorm that takes each row for a channel."""
    rows = tf.reduce_prod(tf.shape(x)[:-1])
    flat = tf.reshape(x, tf.stack([1, rows, WIDTH, 1]))
    ones, zeros = tf.fill([rows], 1.0), tf.fill([rows], 0.0)
    flat, *_ = tf1.nn.fused_batch_norm(flat, ones, zeros, epsilon=1e-3, data_format="NCHW")
    return tf.reshape(flat, tf.shape(x)) * w.gamma() + w(WIDTH, scale=0.2)


def rms_norm(x, w):
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + 1e-6) * w.gamma()


def plain_dense(x, w, outputs, bias=True):
    """A product of matrices [rows, inputs] between two Reshapes."""
    inputs = int(x.shape[-1])
    y = tf.matmul(tf.reshape(x, [-1, inputs]), w(inputs, outputs))
    y = tf.nn.bias_add(y, w(outputs, scale=0.1)) if bias else y
    return tf.reshape(y, tf.concat([tf.shape(x)[:-1], [outputs]], 0))


def tensordot_dense(x, w, outputs, bias=True):
    """As Keras 2 writes a Dense of data of three axes."""
    y = tf.tensordot(x, tf.constant(w(int(x.shape[-1]), outputs)), [[2], [0]])
    return tf.nn.bias_add(y, w(outputs, scale=0.1)) if bias else y


def batched_dense(x, w, outputs, bias=True):
    """A BatchMatMul, as Keras 3 writes a Dense."""
    y = tf.matmul(x, tf.constant(w(int(x.shape[-1]), outputs)))
    return y + w(outputs, scale=0.1) if bias else y


def split(x, heads=HEADS):
    """From [n, t, heads * size] to [n, heads, t, size]."""
    shape = tf.shape(x)
    return tf.transpose(tf.reshape(x, [shape[0], shape[1], heads, SIZE]), [0, 2, 1, 3])


def merge(x, width=WIDTH):
    shape = tf.shape(x)
    return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [shape[0], shape[2], width])


def attend(query, key, value, bias=0.0):
    """Attention of operands [n, heads, t, size]."""
    scores = tf.matmul(query, key, transpose_b=True) / np.float32(np.sqrt(SIZE)) + bias
    return tf.matmul(tf.nn.softmax(scores), value)


def attention(x, w, dense, memory=None, bias=0.0):
    """Attention with three projections, and one behind."""
    query, key, value = (split(dense(each, w, WIDTH)) for each in (x, *[x if memory is None else memory] * 2))
    return dense(merge(attend(query, key, value, bias)), w, WIDTH)


def gelu(x):
    return 0.5 * x * (1 + tf.math.erf(x / np.float32(np.sqrt(2))))


def tanh_gelu(x):
    return 0.5 * x * (1 + tf.tanh(np.float32(np.sqrt(2 / np.pi)) * (x + 0.044715 * tf.pow(x, 3))))


def feed_forward(x, w, dense, activation=gelu):
    return dense(activation(dense(x, w, 2 * WIDTH)), w, WIDTH)


def ids(dtype=tf.int32, name="ids"):
    return tf1.placeholder(dtype, [None, None], name=name)


def patches():
    return tf1.placeholder(tf.float32, [None, LENGTH, WIDTH], name="x")


def embedded(words, w, positions=True):
    x = tf.gather(w(WORDS, WIDTH, scale=1.0), words)
    return x + tf.constant(w(LENGTH, WIDTH, scale=0.5))[: tf.shape(words)[1]] if positions else x


def _bert(dense, norm, dtype):
    def make():
        w = Weights()
        words, mask = ids(dtype), ids(dtype, "mask")
        x = norm(embedded(words, w), w)
        bias = (1 - tf.cast(mask, tf.float32)[:, None, None]) * -1e9
        for _ in range(2):
            x = norm(x + attention(x, w, dense, bias=bias), w)
            x = norm(x + feed_forward(x, w, dense), w)
        tf.identity(x, name="out")
        tf.tanh(tf.nn.bias_add(tf.matmul(x[:, 0], w(WIDTH, WIDTH)), w(WIDTH, scale=0.1)), name="pooled")

    return make


def pre_norm():
    """A pre-LN encoder, whose layers read a LayerNorm, with an average over the tokens and a classifier."""
    w, x = Weights(), patches()
    for _ in range(2):
        x = x + attention(layer_norm(x, w), w, batched_dense)
        x = x + feed_forward(layer_norm(x, w), w, batched_dense, tanh_gelu)
    tf.identity(tf.matmul(tf.reduce_mean(layer_norm(x, w), 1), w(WIDTH, 10)) + w(10, scale=0.1), name="out")


def decoder():
    """A decoder that sees what comes before, and a memory."""
    w = Weights()
    words = ids()
    memory = tf1.placeholder(tf.float32, [None, None, WIDTH], name="memory")
    x = embedded(words, w)
    t = tf.shape(words)[1]
    bias = (1 - tf.linalg.band_part(tf.ones([t, t]), -1, 0)) * -1e9
    for _ in range(2):
        x = x + attention(layer_norm(x, w), w, plain_dense, bias=bias)
        x = x + attention(layer_norm(x, w), w, plain_dense, memory)
        x = x + feed_forward(layer_norm(x, w), w, plain_dense, tf.nn.relu)
    tf.identity(plain_dense(layer_norm(x, w), w, WORDS, bias=False), name="out")


def _rotated(x):
    """Turns pairs of channels by angles that grow with the position."""
    t, half = tf.shape(x)[2], SIZE // 2
    frequencies = np.float32(1 / 100 ** (np.arange(half) / half))
    angles = tf.cast(tf.range(t), tf.float32)[:, None] * frequencies
    first, second = x[..., :half], x[..., half:]
    sine, cosine = tf.sin(angles), tf.cos(angles)
    return tf.concat([first * cosine - second * sine, second * cosine + first * sine], -1)


def llama():
    """RMSNorm, rotary positions, one key and value for all heads of a group, SwiGLU; no bias anywhere."""
    w = Weights()
    words, groups, heads = ids(), 2, 4
    x = embedded(words, w, positions=False)
    t = tf.shape(words)[1]
    bias = (1 - tf.linalg.band_part(tf.ones([t, t]), -1, 0)) * -1e9
    for _ in range(2):
        y = rms_norm(x, w)
        query, key, value = (batched_dense(y, w, n * SIZE, bias=False) for n in (heads, groups, groups))
        query, key, value = split(query, heads), split(key, groups), split(value, groups)
        query, key = _rotated(query), _rotated(key)
        n = tf.shape(words)[0]
        key, value = (
            tf.reshape(tf.broadcast_to(each[:, :, None], [n, groups, heads // groups, t, SIZE]), [n, heads, t, SIZE])
            for each in (key, value)
        )
        x = x + batched_dense(merge(attend(query, key, value, bias), heads * SIZE), w, WIDTH, bias=False)
        y = rms_norm(x, w)
        gate, up = (batched_dense(y, w, 2 * WIDTH, bias=False) for _ in range(2))
        x = x + batched_dense(tf.nn.silu(gate) * up, w, WIDTH, bias=False)
    tf.identity(batched_dense(rms_norm(x, w), w, WORDS, bias=False), name="out")


def t5():
    """No bias, positions as a bias of attention looked up in a table, and the embedding as the last layer."""
    w = Weights()
    words = ids(tf.int64)
    table = tf.constant(w(WORDS, WIDTH, scale=1.0))
    buckets = tf.constant(w(2 * LENGTH, HEADS, scale=1.0))
    x = tf.gather(table, words)
    t = tf.shape(words)[1]
    far = tf.range(t)[None] - tf.range(t)[:, None] + LENGTH
    bias = tf.transpose(tf.gather(buckets, far), [2, 0, 1])[None]

    def dense(x, w, outputs):
        return plain_dense(x, w, outputs, bias=False)

    for _ in range(2):
        x = x + attention(rms_norm(x, w), w, dense, bias=bias)
        x = x + feed_forward(rms_norm(x, w), w, dense, tf.nn.relu)
    x = rms_norm(x, w) * np.float32(WIDTH**-0.5)
    logits = tf.matmul(tf.reshape(x, [-1, WIDTH]), table, transpose_b=True)
    tf.reshape(logits, [-1, t, WORDS], name="out")


def swin():
    """Windows of an image, shifted in every second block, with a bias of positions."""
    w = Weights()
    x = tf1.placeholder(tf.float32, [None, 8, 8, WIDTH], name="x")
    places = np.stack(np.meshgrid(range(4), range(4), indexing="ij"), -1).reshape(16, 2)
    far = (places[:, None] - places[None] + 3) @ [7, 1]
    for shift in (0, 2):
        y = tf.roll(layer_norm(x, w), [-shift, -shift], [1, 2])
        y = tf.transpose(tf.reshape(y, [-1, 2, 4, 2, 4, WIDTH]), [0, 1, 3, 2, 4, 5])
        y = tf.reshape(y, [-1, 16, WIDTH])
        qkv = tf.reshape(tensordot_dense(y, w, 3 * WIDTH), [-1, 16, 3, HEADS, SIZE])
        query, key, value = tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4]), axis=0)
        bias = tf.transpose(tf.gather(tf.constant(w(49, HEADS, scale=1.0)), far.reshape(-1)))
        y = merge(attend(query, key, value, tf.reshape(bias, [1, HEADS, 16, 16])))
        y = tensordot_dense(y, w, WIDTH)
        y = tf.transpose(tf.reshape(y, [-1, 2, 2, 4, 4, WIDTH]), [0, 1, 3, 2, 4, 5])
        x = x + tf.roll(tf.reshape(y, [-1, 8, 8, WIDTH]), [shift, shift], [1, 2])
        y = tf.reshape(layer_norm(x, w), [-1, 64, WIDTH])
        x = x + tf.reshape(feed_forward(y, w, tensordot_dense), [-1, 8, 8, WIDTH])
    merged = tf.concat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
    merged = tf.reshape(layer_norm(merged, w, 4 * WIDTH), [-1, 16, 4 * WIDTH])
    tf.identity(tensordot_dense(merged, w, 2 * WIDTH, bias=False), name="out")


def conformer():
    """A front of convolutions, half steps of feed-forward, attention, and a gated depthwise convolution."""
    w = Weights()
    x = tf1.placeholder(tf.float32, [None, 20, 10], name="x")
    x = gelu(tf.nn.bias_add(tf.nn.conv1d(x, w(3, 10, WIDTH), 1, "SAME"), w(WIDTH, scale=0.1)))
    x = gelu(tf.nn.bias_add(tf.nn.conv1d(x, w(3, WIDTH, WIDTH), 2, "SAME"), w(WIDTH, scale=0.1)))
    x = x + 0.5 * feed_forward(layer_norm(x, w), w, tensordot_dense, tf.nn.silu)
    x = x + attention(layer_norm(x, w), w, tensordot_dense)
    y = tensordot_dense(layer_norm(x, w), w, 2 * WIDTH)
    value, gate = tf.split(y, 2, -1)
    y = value * tf.sigmoid(gate)
    y = tf.nn.depthwise_conv2d(y[:, :, None], w(5, 1, WIDTH, 1, scale=0.4), [1, 1, 1, 1], "SAME")[:, :, 0]
    y = tf.nn.batch_normalization(
        y, w(WIDTH, scale=0.1), np.abs(w(WIDTH, scale=0.3)) + 0.5, w(WIDTH, scale=0.1), w.gamma(), 1e-3
    )
    x = x + tensordot_dense(tf.nn.silu(y), w, WIDTH)
    x = layer_norm(x + 0.5 * feed_forward(layer_norm(x, w), w, tensordot_dense, tf.nn.silu), w)
    tf.identity(tensordot_dense(x, w, 12), name="out")


def perceiver():
    """Constant latents ask what a sequence holds: their query is constant, its product with the keys is not."""
    w = Weights()
    x = tf1.placeholder(tf.float32, [None, None, WIDTH], name="x")
    latents = tf.constant(w(1, 4, WIDTH, scale=1.0))
    memory = layer_norm(x, w)
    query = split(tf.constant(w(1, 4, WIDTH, scale=1.0)))
    key, value = split(plain_dense(memory, w, WIDTH)), split(plain_dense(memory, w, WIDTH))
    z = latents + plain_dense(merge(attend(query, key, value)), w, WIDTH)
    z = z + attention(layer_norm(z, w), w, plain_dense)
    z = z + feed_forward(layer_norm(z, w), w, plain_dense)
    tf.identity(plain_dense(tf.reduce_mean(layer_norm(z, w), 1), w, 6), name="out")


def mixer():
    """Dense layers over the tokens, between two Transposes, and over the channels."""
    w, x = Weights(), patches()
    for _ in range(2):
        y = tf.transpose(layer_norm(x, w), [0, 2, 1])
        y = batched_dense(tanh_gelu(batched_dense(y, w, 16)), w, LENGTH)
        x = x + tf.transpose(y, [0, 2, 1])
        x = x + feed_forward(layer_norm(x, w), w, batched_dense, tanh_gelu)
    tf.identity(batched_dense(tf.reduce_mean(layer_norm(x, w), 1, keepdims=True), w, 5), name="out")


def einsum():
    """As the models of TensorFlow's own model garden: all dense layers are Einsum."""
    w = Weights()
    words, mask = ids(), ids(name="mask")
    x = fused_layer_norm(embedded(words, w), w)
    bias = (1 - tf.cast(mask, tf.float32)[:, None, None]) * -1e9
    for _ in range(2):
        query, key, value = (
            tf.einsum("abc,cde->abde", x, w(WIDTH, HEADS, SIZE, scale=0.2)) + w(HEADS, SIZE, scale=0.1)
            for _ in range(3)
        )
        scores = tf.einsum("aecd,abcd->acbe", key, query * np.float32(SIZE**-0.5)) + bias
        y = tf.einsum("acbe,aecd->abcd", tf.nn.softmax(scores), value)
        y = tf.einsum("abcd,cde->abe", y, w(HEADS, SIZE, WIDTH)) + w(WIDTH, scale=0.1)
        x = fused_layer_norm(x + y, w)
        y = gelu(tf.einsum("abc,cd->abd", x, w(WIDTH, 2 * WIDTH)) + w(2 * WIDTH, scale=0.1))
        y = tf.einsum("abc,cd->abd", y, w(2 * WIDTH, WIDTH)) + w(WIDTH, scale=0.1)
        x = fused_layer_norm(x + y, w)
    tf.identity(x, name="out")
    tf.tanh(tf.matmul(x[:, 0], w(WIDTH, WIDTH)) + w(WIDTH, scale=0.1), name="pooled")


def vit():
    """Keras: patches by a convolution, a class token, learned positions, MultiHeadAttention."""
    tf.keras.utils.set_random_seed(0)
    layers = tf.keras.layers

    class Tokens(layers.Layer):
        def build(self, shape):
            self.token = self.add_weight(shape=(1, 1, WIDTH), initializer="random_normal")
            self.positions = self.add_weight(shape=(1, shape[1] + 1, WIDTH), initializer="random_normal")

        def call(self, x):
            return tf.concat([tf.tile(self.token, [tf.shape(x)[0], 1, 1]), x], 1) + self.positions

    images = layers.Input((12, 12, 3))
    x = Tokens()(layers.Reshape((9, WIDTH))(layers.Conv2D(WIDTH, 4, 4)(images)))
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(HEADS, SIZE)(y, y)
        y = layers.Dense(2 * WIDTH, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(WIDTH)(y)
    scores = layers.Dense(10)(layers.LayerNormalization()(x)[:, 0])
    return _frozen(tf.keras.Model(images, scores), tf.TensorSpec([None, 12, 12, 3], name="x"))


def _frozen(model, spec):
    """Returns a frozen Keras model whose output is called ``out``; gamma and biases are drawn."""
    w = Weights()
    for variable in model.weights:
        if variable.name == "gamma":
            variable.assign(w.gamma(variable.shape[0]))
        elif variable.name in ("beta", "bias"):
            variable.assign(w(*variable.shape, scale=0.1))
    function = tf.function(lambda x: tf.identity(model(x, training=False), name="out")).get_concrete_function(spec)
    return convert_variables_to_constants_v2(function).graph.as_graph_def()


@dataclass(frozen=True)
class Transformer:
    """A transformer.

    Attributes:
        graph_def: makes it.
        layers: how many of its layers have constant weights.
        decibels: the least signal-to-noise ratio of its outputs, with every default.
        feeds: returns inputs from a seed and a length of sequences, which those of a fixed one leave aside.
        outputs: its outputs.
        has_others: whether constants stand in another product, which cannot be quantized.
    """

    graph_def: Callable[[], tf1.GraphDef]
    layers: int
    decibels: float
    feeds: Callable[[int, int], Feeds]
    outputs: tuple[str, ...] = ("out",)
    has_others: bool = False


def _sentences(dtype=np.int32, *, mask=True):
    def feeds(seed, length):
        generator = np.random.default_rng(seed)
        words = generator.integers(0, WORDS, (BATCH, length)).astype(dtype)
        shown = np.arange(length) < generator.integers(2, length + 1, (BATCH, 1))
        return {"ids": words, "mask": shown.astype(dtype)} if mask else {"ids": words}

    return feeds


def _values(*shape):
    return lambda seed, _length: {"x": normal((BATCH, *shape), 100 + seed)}


def _sequences(seed, length):
    return {"x": normal((BATCH, length, WIDTH), 100 + seed)}


def _words_and_memory(seed, length):
    return _sentences(mask=False)(seed, length) | {"memory": normal((BATCH, length + 1, WIDTH), 100 + seed)}


_TWO = ("out", "pooled")
TRANSFORMERS = {
    "BERT, MatMul": Transformer(lambda: build(_bert(plain_dense, layer_norm, tf.int32)), 13, 25, _sentences(), _TWO),
    "BERT, Tensordot": Transformer(
        lambda: build(_bert(tensordot_dense, fused_layer_norm, tf.int64)), 13, 25, _sentences(np.int64), _TWO
    ),
    "BERT, Einsum": Transformer(lambda: build(einsum), 13, 25, _sentences(), _TWO),
    "pre-LN": Transformer(lambda: build(pre_norm), 13, 20, _values(LENGTH, WIDTH)),
    "ViT, Keras": Transformer(vit, 14, 16, _values(12, 12, 3)),
    "decoder": Transformer(lambda: build(decoder), 21, 20, _words_and_memory),
    "Llama": Transformer(lambda: build(llama), 15, 16, _sentences(mask=False)),
    "T5": Transformer(lambda: build(t5), 13, 16, _sentences(np.int64, mask=False)),
    "Swin": Transformer(lambda: build(swin), 9, 20, _values(8, 8, WIDTH)),
    "Conformer": Transformer(lambda: build(conformer), 14, 20, _values(20, 10)),
    "Perceiver": Transformer(lambda: build(perceiver), 10, 16, _sequences, has_others=True),
    "Mixer": Transformer(lambda: build(mixer), 9, 20, _values(LENGTH, WIDTH)),
}
