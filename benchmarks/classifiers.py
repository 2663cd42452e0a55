"""The classifiers whose accuracy is measured, and an evaluator on images in memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from measuring import BATCH, INPUT, OUTPUT, ROOT, SHARED, Inputs, mean_kl, predict

import numpy as np
import tensorflow as tf
from amct_tensorflow.common.auto_calibration import AutoCalibrationEvaluatorBase


def as_the_sample(images: np.ndarray) -> np.ndarray:
    """From -1 to 1, as the sample makes them."""
    return images


def as_efficientnet_lite(images: np.ndarray) -> np.ndarray:
    """``(pixel - 127) / 128``."""
    return (127.5 * (images + 1) - 127) / 128


@dataclass(frozen=True)
class Classifier:
    """A frozen classifier with the images to judge it by.

    Attributes:
        name: what tables call it.
        inputs: its model and images.
        placeholder: the tensor of its images.
        output: its output operator, a softmax.
        first_label: the label of its first class.
        prepare: makes of the sample's images those that it was trained with.
    """

    name: str
    inputs: Inputs
    placeholder: str = INPUT
    output: str = OUTPUT
    first_label: int = 0
    prepare: Callable[[np.ndarray], np.ndarray] = as_the_sample

    @cached_property
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """All images as the model takes them, float32 [n, height, width, 3], and their classes."""
        images, labels = self.inputs.images
        return self.prepare(images), labels - self.first_label

    def missing(self) -> Path | None:
        """Returns what of it is not there."""
        return next((path for path in (self.inputs.model, self.inputs.dataset) if not path.exists()), None)


_IMAGENET = SHARED / "imagenet_sample"
CLASSIFIERS = {
    classifier.name: classifier
    for classifier in (
        Classifier("MobileNet V2", Inputs(SHARED / "model" / "mobilenet_v2_1.0_224_frozen.pb", _IMAGENET)),
        Classifier(
            "EfficientNet-Lite0",
            Inputs(SHARED / "model" / "efficientnet_lite0_keras_frozen.pb", _IMAGENET),
            placeholder="images:0",
            output="Identity",
            first_label=1,
            prepare=as_efficientnet_lite,
        ),
        Classifier(
            "bundled",
            Inputs(ROOT / "model" / "mobilenet_v2_0.35_48_fashion_mnist.pb", ROOT / "data" / "fashion_mnist", 48),
        ),
    )
}


@dataclass
class Judge(AutoCalibrationEvaluatorBase):
    """Top-1 accuracy in percent; a quantized model must lose less than ``target`` points.

    The float model is run once, for all searches with this evaluator.

    Attributes:
        classifier: what is judged.
        target: in percentage points.
        calibrate_with: the images that the next search calibrates with, by number; batches of 32.
        divergences: per evaluation of a quantized model, the mean KL divergence to the float softmax, in nats.
    """

    classifier: Classifier
    target: float
    calibrate_with: np.ndarray = field(default_factory=lambda: np.arange(BATCH))
    divergences: list[float] = field(default_factory=list)
    _float: np.ndarray | None = None

    def calibration(self, graph: tf.Graph, outputs: list[str]) -> None:
        """Runs the images to calibrate with."""
        self._predict(graph, self.classifier.data[0][self.calibrate_with])

    def evaluate(self, graph: tf.Graph, outputs: list[str]) -> float:
        """Returns the accuracy."""
        images, classes = self.classifier.data
        if not any(operation.type.startswith("Ascend") for operation in graph.get_operations()):
            softmax = self._float = self._predict(graph, images) if self._float is None else self._float
        else:
            assert self._float is not None  # the original model is evaluated first
            softmax = self._predict(graph, images)
            self.divergences.append(mean_kl(self._float, softmax))
        return 100 * float(np.mean(softmax.argmax(axis=1) == classes))

    def metric_eval(self, original_metric: float, new_metric: float) -> tuple[bool, float]:
        """Compares the loss with the target."""
        loss = original_metric - new_metric
        return loss < self.target or loss <= 0, loss

    def _predict(self, graph: tf.Graph, images: np.ndarray) -> np.ndarray:
        return predict(graph, images, self.classifier.placeholder, self.classifier.output)
