"""The networks that are measured: those of Keras with random weights, frozen as in docs/guide, and real ones.

Weights and statistics are drawn with a fixed seed; each BatchNorm then gets the mean and variance of what it really
sees, and a little off, so that the signal neither dies nor explodes, as in a network that was trained. Run as a program
this freezes the networks into a folder: ``python benchmarks/networks.py --cache DIR [--networks NAME...]``.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from measuring import SHARED, smooth_images

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from vision_transformer import vit_tiny

from amct_tensorflow.io.files import write_atomically

SEED = 12
STATISTICS_IMAGES = 8
IMAGES = 4
CALIBRATION_SEED, HELD_OUT_SEED = 1, 2
SIGNED = (-1.0, 1.0)
BYTES = (0.0, 255.0)
KERAS: dict[str, tuple[int, float, float]] = {  # the size of its images, and the range of its preprocessing
    "MobileNet": (224, *SIGNED),
    "MobileNetV2": (224, *SIGNED),
    "MobileNetV3Small": (224, *BYTES),
    "ResNet50": (224, -124.0, 151.0),
    "DenseNet121": (224, -2.1, 2.6),
    "InceptionV3": (299, *SIGNED),
    "EfficientNetB0": (224, *BYTES),
    "EfficientNetV2B0": (224, *BYTES),
    "Xception": (299, *SIGNED),
    "NASNetMobile": (224, *SIGNED),
    "ConvNeXtTiny": (224, *BYTES),
    "ViTTiny": (224, *SIGNED),
}


@dataclass(frozen=True)
class Network:
    """A frozen model, and what a benchmark must know of it.

    Attributes:
        name: what tables call it.
        model: the frozen model.
        input: the placeholder of its images, [n, size, size, 3].
        output: its output operator.
        softmax: whether the output is a softmax; else it is the logits.
        size: height and width of an image in pixels.
        low: the least value of an image.
        high: the greatest.
        batch_norms: its BatchNorms.
        foldable: those of them that scale what a convolution or dense layer without an activation gives to nobody else,
            or what several such layers give side by side: with other weights and a bias those layers compute the same.
    """

    name: str
    model: Path
    input: str
    output: str
    softmax: bool
    size: int
    low: float
    high: float
    batch_norms: int
    foldable: int

    def images(self, count: int, seed: int) -> np.ndarray:
        """Returns random images, float32 [count, size, size, 3]."""
        return smooth_images(count, self.size, self.low, self.high, seed)

    def calibration(self) -> dict[str, np.ndarray]:
        """Returns the batch to calibrate with, per tensor."""
        return {f"{self.input}:0": self.images(IMAGES, CALIBRATION_SEED)}

    def held_out(self) -> list[dict[str, np.ndarray]]:
        """Returns the batches to judge by."""
        return [{f"{self.input}:0": self.images(IMAGES, HELD_OUT_SEED)}]

    def agreement(self, _reference: np.ndarray, _other: np.ndarray) -> str:
        """Returns nothing: of random weights and images there is nothing to count."""
        return ""

    def signal(self, output: np.ndarray) -> np.ndarray:
        """Returns what of the output its users see."""
        return self.logits(output)

    def logits(self, output: np.ndarray) -> np.ndarray:
        """Returns the logits less their mean in each image, which is all that a softmax tells, float64."""
        logits = np.log(output.astype(np.float64)) if self.softmax else output.astype(np.float64)
        return logits - logits.mean(axis=-1, keepdims=True)


REAL = [
    Network(
        "MobileNet V2, TF-slim (real weights)",
        SHARED / "model" / "mobilenet_v2_1.0_224_frozen.pb",
        "input",
        "MobilenetV2/Predictions/Reshape_1",
        True,
        224,
        *SIGNED,
        batch_norms=52,
        foldable=52,
    ),
    Network(
        "EfficientNet-Lite0 (real weights)",
        SHARED / "model" / "efficientnet_lite0_keras_frozen.pb",
        "images",
        "Identity",
        True,
        224,
        *SIGNED,
        batch_norms=49,
        foldable=49,
    ),
]
NAMES = [*KERAS, *(network.name for network in REAL)]


def find_network(name: str, cache: Path) -> Network:
    """Returns a network; one of Keras is made, in a process of its own, unless the cache has it.

    Raises:
        FileNotFoundError: it is a real one, and its model is not there.
    """
    real = {network.name: network for network in REAL}.get(name)
    if real is not None:
        if not real.model.exists():
            raise FileNotFoundError(real.model)
        return real
    described = cache / f"{name}.json"
    if not described.exists():
        subprocess.run([sys.executable, __file__, "--cache", cache, "--make", name], check=True)
    content = json.loads(described.read_text())
    return Network(**{**content, "model": cache / content["model"]})


def make(name: str, cache: Path) -> None:
    """Makes a network of Keras, and writes it and what there is to know of it into the cache."""
    tf.keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    size, low, high = KERAS[name]
    model = vit_tiny(size) if name == "ViTTiny" else make_application(name, size)
    randomize(model, smooth_images(STATISTICS_IMAGES, size, low, high, SEED))
    graph, output = freeze(model, size)
    cache.mkdir(parents=True, exist_ok=True)
    write_atomically(cache / f"{name}.pb", graph.as_graph_def().SerializeToString())
    batch_norms = sum(isinstance(layer, tf.keras.layers.BatchNormalization) for layer in model.layers)
    foldable = sum(is_foldable(layer) for layer in model.layers)
    network = Network(name, Path(f"{name}.pb"), "images", output, False, size, low, high, batch_norms, foldable)
    content = {**asdict(network), "model": network.model.name}
    write_atomically(cache / f"{name}.json", json.dumps(content, indent=2) + "\n")


def make_application(name: str, size: int) -> tf.keras.Model:
    """Returns a model of ``tf.keras.applications`` with random weights, which ends in logits."""
    application = getattr(tf.keras.applications, name)
    return application(weights=None, input_shape=(size, size, 3), classifier_activation=None)


def freeze(model: tf.keras.Model, size: int) -> tuple[tf.Graph, str]:
    """Freezes a model as docs/guide/own_model.md shows; returns the graph and its output operator."""
    images = tf.TensorSpec([None, size, size, 3], tf.float32, name="images")
    function = tf.function(lambda images: model(images, training=False)).get_concrete_function(images)
    frozen = convert_variables_to_constants_v2(function)
    return frozen.graph, frozen.outputs[0].op.name


def randomize(model: tf.keras.Model, images: np.ndarray) -> None:
    """Draws what Keras starts with zeros or ones, and sets the statistics of BatchNorm to what it sees of images."""
    generator = np.random.default_rng(SEED)
    draws: dict[str, Callable[[tuple[int, ...]], np.ndarray]] = {
        "gamma": lambda shape: generator.uniform(0.5, 1.5, shape) * generator.choice([1, 1, 1, 1, 1, 1, 1, -1], shape),
        "beta": lambda shape: generator.normal(0.0, 0.3, shape),
        "bias": lambda shape: generator.normal(0.0, 0.1, shape),
    }
    for weight in model.weights:
        if weight.name in draws:
            weight.assign(draws[weight.name](weight.shape))
    for layer in model.layers:
        if is_layer_scale(layer):
            layer.gamma.assign(generator.uniform(0.2, 0.6, layer.gamma.shape))
        elif isinstance(layer, tf.keras.layers.Dropout):
            layer.rate = 0.0
    set_statistics(model, images)
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
            layer.moving_mean.assign(mean + 0.1 * np.sqrt(variance) * generator.normal(size=mean.shape))
            layer.moving_variance.assign(variance * np.exp(generator.uniform(-0.3, 0.3, mean.shape)))


def set_statistics(model: tf.keras.Model, images: np.ndarray) -> None:
    """Sets mean and variance of every BatchNorm, and of the normalization of the input, to those of what it sees."""
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.momentum = 0.0
        elif isinstance(layer, tf.keras.layers.Normalization) and layer.input_mean is None:
            layer.adapt(tf.keras.Model(model.inputs, layer.input)(images).numpy())
    model(images, training=True)


def is_foldable(layer: tf.keras.layers.Layer) -> bool:
    """Tells whether a layer is a BatchNorm of what layers with weights alone give it."""
    return isinstance(layer, tf.keras.layers.BatchNormalization) and is_of_weights(layer.input)


def is_of_weights(tensor: tf.keras.KerasTensor) -> bool:
    """Tells whether a value is that of a layer with weights, or of several side by side, and is read once."""
    producer = tensor._keras_history.operation
    if len(producer._outbound_nodes) != 1:
        return False
    if isinstance(producer, tf.keras.layers.Concatenate):
        return all(map(is_of_weights, producer.input))
    has_weights = isinstance(producer, tf.keras.layers.Dense) or hasattr(producer, "kernel_size")
    return has_weights and producer.activation is tf.keras.activations.linear


def is_layer_scale(layer: tf.keras.layers.Layer) -> bool:
    """Tells whether a layer is ConvNeXt's factor per channel, a class that Keras does not name in public."""
    return type(layer).__name__ == "LayerScale"


def main() -> None:
    """Makes the networks that the cache does not have."""
    parser = argparse.ArgumentParser(description="freeze the networks that benchmarks/models.py measures")
    parser.add_argument("--cache", type=Path, required=True, help="folder to put them into")
    parser.add_argument("--networks", nargs="+", choices=KERAS, default=list(KERAS), help="which (default: all)")
    parser.add_argument("--make", choices=KERAS, help="make one in this process, even if it is there")
    arguments = parser.parse_args()
    if arguments.make:
        make(arguments.make, arguments.cache)
        return
    for name in arguments.networks:
        print(find_network(name, arguments.cache).model, flush=True)


if __name__ == "__main__":
    main()
