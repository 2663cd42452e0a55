"""Trains the bundled model: a small MobileNet V2 on Fashion-MNIST, frozen with the node names of TF-slim.

    python model/train_fashion_mnist.py --dataset DIR

DIR holds the four gzipped IDX files of Fashion-MNIST (Debian: package dataset-fashion-mnist, in
/usr/share/datasets/fashion-mnist). The images go through the same crop, resize and scaling as in the sample. With the
seed fixed and deterministic ops, the same machine and versions give the same model. It takes a quarter of an hour on
two cores, and is not part of set-up or tests.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from make_fashion_mnist import read_idx

layers = tf.keras.layers

MODEL = Path(__file__).resolve().parent / "mobilenet_v2_0.35_48_fashion_mnist.pb"
SEED = 1
CLASSES = 10
SIZE = 48
MULTIPLIER = 0.35
CENTRAL_FRACTION = 0.875
LAST_CHANNELS = 1280
EPOCHS = 20
BATCH = 128
LEARNING_RATE = 0.2
MOMENTUM = 0.9
WEIGHT_DECAY = 4e-4  # of a step of the learning rate
SHIFT = 1  # pixels of 28 by which images are moved at random
BATCH_NORM_EPSILON = 1e-3


class Block(NamedTuple):
    """An inverted residual: TF-slim's scope, and what it does."""

    name: str
    expansion: int
    channels: int
    stride: int


def blocks() -> list[Block]:
    """Returns the blocks of MobileNet V2 (Sandler et al. 2018, table 2)."""
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    found: list[Block] = []
    for expansion, channels, repeats, stride in stages:
        for index in range(repeats):
            name = f"expanded_conv_{len(found)}" if found else "expanded_conv"
            found.append(Block(name, expansion, scaled(channels), stride if index == 0 else 1))
    return found


def scaled(channels: int) -> int:
    """Returns a number of channels for the width multiplier, a multiple of 8 as TF-slim rounds it."""
    value = channels * MULTIPLIER
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


# ------------------------------------------------------------------------------------------------------ Data


def preprocess(images: tf.Tensor) -> tf.Tensor:
    """Does to grayscale images [n, 28, 28] what the sample does to an encoded one."""
    cropped = tf.image.central_crop(tf.cast(images, tf.float32)[..., tf.newaxis], CENTRAL_FRACTION)
    resized = tf.compat.v1.image.resize(cropped, (SIZE, SIZE), tf.compat.v1.image.ResizeMethod.BILINEAR)
    return tf.repeat(resized / 127.5 - 1.0, 3, axis=-1)


def training_data(images: np.ndarray, labels: np.ndarray) -> tf.data.Dataset:
    """Yields shuffled batches, flipped and moved at random."""
    generator = tf.random.Generator.from_seed(SEED)

    def augment(batch: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        flips = generator.uniform([BATCH, 1, 1]) < 0.5
        batch = tf.where(flips, tf.reverse(batch, [2]), batch)
        padded = tf.pad(batch, [[0, 0], [SHIFT, SHIFT], [SHIFT, SHIFT]])
        top, left = tf.unstack(generator.uniform([2], 0, 2 * SHIFT + 1, tf.int32))
        return preprocess(padded[:, top : top + 28, left : left + 28]), tf.one_hot(targets, CLASSES)

    data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images), seed=SEED)
    return data.batch(BATCH, drop_remainder=True).map(augment).prefetch(4)


# ------------------------------------------------------------------------------------------------------ Model


def make_model() -> tf.keras.Model:
    """Returns the model for training; each layer has TF-slim's scope as its name, with dots for slashes."""
    inputs = x = layers.Input((SIZE, SIZE, 3))
    x = activated(conv(x, "Conv", scaled(32), 3, 2), "Conv")
    for block in blocks():
        y = x
        if block.expansion > 1:
            y = activated(conv(y, f"{block.name}.expand", x.shape[-1] * block.expansion), f"{block.name}.expand")
        y = layers.DepthwiseConv2D(3, block.stride, "same", use_bias=False, name=f"{block.name}.depthwise")(y)
        y = activated(y, f"{block.name}.depthwise")
        y = normalized(conv(y, f"{block.name}.project", block.channels), f"{block.name}.project")
        x = layers.Add()([x, y]) if adds(x.shape[-1], block) else y
    x = activated(conv(x, "Conv_1", LAST_CHANNELS), "Conv_1")
    x = layers.GlobalAveragePooling2D()(x)
    return tf.keras.Model(inputs, layers.Dense(CLASSES, name="Logits")(x))


def adds(channels: int, block: Block) -> bool:
    """Tells whether a block has a shortcut."""
    return block.stride == 1 and channels == block.channels


def conv(x: tf.Tensor, name: str, channels: int, size: int = 1, stride: int = 1) -> tf.Tensor:
    """Adds a convolution."""
    return layers.Conv2D(channels, size, stride, "same", use_bias=False, name=name)(x)


def normalized(x: tf.Tensor, name: str) -> tf.Tensor:
    """Adds a BatchNorm."""
    return layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON, name=f"{name}.BatchNorm")(x)


def activated(x: tf.Tensor, name: str) -> tf.Tensor:
    """Adds BatchNorm and ReLU6."""
    return layers.ReLU(6)(normalized(x, name))


def train(model: tf.keras.Model, images: np.ndarray, labels: np.ndarray) -> None:
    """Trains the model."""
    steps = EPOCHS * (len(images) // BATCH)
    rate = tf.keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=LEARNING_RATE, warmup_steps=1000)
    model.compile(
        tf.keras.optimizers.SGD(rate, MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY),
        tf.keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        metrics=["accuracy"],
    )
    model.fit(training_data(images, labels), epochs=EPOCHS, verbose=2)


# ----------------------------------------------------------------------------------------------------- Freezing


class Freezer:
    """Builds the inference graph of a trained model, with TF-slim's names."""

    def __init__(self, model: tf.keras.Model) -> None:
        self._weights = {layer.name: layer.get_weights() for layer in model.layers}

    def graph_def(self) -> tf.compat.v1.GraphDef:
        """Returns the frozen graph."""
        with tf.Graph().as_default() as graph:
            x = tf.compat.v1.placeholder(tf.float32, [None, SIZE, SIZE, 3], name="input")
            with tf.compat.v1.variable_scope("MobilenetV2"), tf.name_scope("MobilenetV2/"):
                x = self._activated(self._conv(x, "Conv", 2), "Conv")
                for block in blocks():
                    x = self._block(x, block)
                x = tf.identity(self._activated(self._conv(x, "Conv_1"), "Conv_1"), name="embedding")
                self._classify(x)
        return graph.as_graph_def()

    def _block(self, x: tf.Tensor, block: Block) -> tf.Tensor:
        y = shortcut = tf.identity(x, name=f"{block.name}/input")
        if block.expansion > 1:
            y = self._activated(self._conv(y, f"{block.name}.expand"), f"{block.name}.expand")
            y = tf.identity(y, name=f"{block.name}/expansion_output")
        weights = self._constant(f"{block.name}.depthwise", 0, "depthwise_weights")
        strides = [1, block.stride, block.stride, 1]
        y = tf.compat.v1.nn.depthwise_conv2d_native(
            y, weights, strides, "SAME", name=f"{block.name}/depthwise/depthwise"
        )
        y = self._activated(y, f"{block.name}.depthwise")
        y = tf.identity(y, name=f"{block.name}/depthwise_output")
        y = self._normalized(self._conv(y, f"{block.name}.project"), f"{block.name}.project")
        if adds(shortcut.shape[-1], block):
            y = tf.raw_ops.Add(x=y, y=shortcut, name=f"{block.name}/add")
        return tf.identity(y, name=f"{block.name}/output")

    def _classify(self, x: tf.Tensor) -> None:
        size = x.shape[1]
        x = tf.nn.avg_pool2d(x, size, 1, "VALID", name="Logits/AvgPool")
        kernel, bias = self._weights["Logits"]
        scope = "Logits/Conv2d_1c_1x1"
        weights = constant(kernel[np.newaxis, np.newaxis], f"{scope}/weights")
        x = tf.nn.conv2d(x, weights, 1, "SAME", name=f"{scope}/Conv2D")
        x = tf.nn.bias_add(x, constant(bias, f"{scope}/biases"), name=f"{scope}/BiasAdd")
        x = tf.identity(tf.squeeze(x, [1, 2], name="Logits/Squeeze"), name="Logits/output")
        flat = tf.reshape(x, [-1, CLASSES], name="Predictions/Reshape")
        shape = tf.shape(x, name="Predictions/Shape")
        tf.reshape(tf.nn.softmax(flat, name="Predictions/Softmax"), shape, name="Predictions/Reshape_1")

    def _conv(self, x: tf.Tensor, layer: str, stride: int = 1) -> tf.Tensor:
        weights = self._constant(layer, 0, "weights")
        return tf.nn.conv2d(x, weights, stride, "SAME", name=f"{scope_of(layer)}/Conv2D")

    def _activated(self, x: tf.Tensor, layer: str) -> tf.Tensor:
        return tf.nn.relu6(self._normalized(x, layer), name=f"{scope_of(layer)}/Relu6")

    def _normalized(self, x: tf.Tensor, layer: str) -> tf.Tensor:
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        batch_norm = f"{layer}.BatchNorm"
        gamma, beta, mean, variance = (self._constant(batch_norm, index, name) for index, name in enumerate(names))
        return tf.raw_ops.FusedBatchNorm(
            x=x, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=BATCH_NORM_EPSILON, is_training=False,
            name=f"{scope_of(layer)}/BatchNorm/FusedBatchNorm",
        )[0]  # fmt: skip

    def _constant(self, layer: str, index: int, name: str) -> tf.Tensor:
        return constant(self._weights[layer][index], f"{scope_of(layer)}/{name}")


def scope_of(layer: str) -> str:
    """Returns the TF-slim scope of a layer."""
    return layer.replace(".", "/")


def constant(value: np.ndarray, name: str) -> tf.Tensor:
    """Adds a constant, and the Identity that freezing leaves behind a variable."""
    return tf.identity(tf.constant(value, name=name), name=f"{name}/read")


def accuracy(graph_def: tf.compat.v1.GraphDef, images: np.ndarray, labels: np.ndarray) -> float:
    """Returns the top-1 accuracy of a frozen graph in percent."""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    session = tf.compat.v1.Session(graph=graph)
    correct = 0
    for start in range(0, len(images), 500):
        feed = {"input:0": preprocess(images[start : start + 500]).numpy()}
        scores = session.run("MobilenetV2/Predictions/Reshape_1:0", feed)
        correct += int(np.sum(scores.argmax(axis=1) == labels[start : start + 500]))
    return 100 * correct / len(images)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, freezes, and tells the accuracy on the test images."""
    parser = argparse.ArgumentParser(description="Train the bundled MobileNet V2 on Fashion-MNIST.")
    parser.add_argument("--dataset", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    arguments = parser.parse_args(argv)
    tf.keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    model = make_model()
    train(
        model,
        read_idx(arguments.dataset, "train-images-idx3-ubyte.gz"),
        read_idx(arguments.dataset, "train-labels-idx1-ubyte.gz"),
    )
    graph_def = Freezer(model).graph_def()
    MODEL.write_bytes(graph_def.SerializeToString(deterministic=True))
    test = [read_idx(arguments.dataset, f"t10k-{kind}.gz") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    print(f"{MODEL.name}: {MODEL.stat().st_size / 1e6:.2f} MB, top-1 {accuracy(graph_def, *test):.2f} % on test images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
