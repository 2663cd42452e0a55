"""What the peers' scripts share: the prepared inputs, and one JSON line as the result.

The scripts run in the peers' environment, on images that were prepared once for all: ``images.npy`` float32
[n, 224, 224, 3], ``labels.npy``, ``softmax.npy`` (of the float model in TensorFlow) and ``model.pb``.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

FOLDER = Path(sys.argv[1])
TIME_LIMIT = float(sys.argv[2])
INPUT = "input"
OUTPUT = "MobilenetV2/Predictions/Reshape_1"
MODEL = str(FOLDER / "model.pb")
CALIBRATION_IMAGES = 32
BATCH = 32
TARGET = 0.5  # percentage points

images = np.load(FOLDER / "images.npy")
labels = np.load(FOLDER / "labels.npy")
softmax = np.load(FOLDER / "softmax.npy")


class TimeIsUpError(Exception):
    """The time limit was reached."""


class Validation:
    """Counts how often a tool evaluates, and stops it at the time limit."""

    def __init__(self) -> None:
        self.evaluations = 0
        self._end = time.monotonic() + TIME_LIMIT

    def count(self) -> None:
        """Counts one evaluation.

        Raises:
            TimeIsUpError: there is no time left.
        """
        if time.monotonic() > self._end:
            raise TimeIsUpError
        self.evaluations += 1


def top1(predictions: np.ndarray) -> float:
    """Accuracy in percent."""
    return 100 * float(np.mean(predictions.argmax(axis=1) == labels))


def mean_kl(predictions: np.ndarray) -> float:
    """Mean KL divergence to the float model's softmax, in nats."""
    p, q = np.maximum(softmax.astype(np.float64), 1e-30), np.maximum(predictions.astype(np.float64), 1e-30)
    return float(np.mean(np.sum(p * np.log(p / q), axis=1)))


def in_batches(predict: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Runs all images."""
    return np.concatenate([predict(images[i : i + BATCH]) for i in range(0, len(images), BATCH)])


def print_result(tool: str, predictions: np.ndarray | None, seconds: float, **more: Any) -> None:
    """Prints the one line that is read; without predictions, what stopped the tool is in ``more``."""
    row = {"tool": tool, "seconds": seconds, **more}
    if predictions is not None:
        row |= {"top-1": top1(predictions), "KL": mean_kl(predictions)}
    print("RESULT " + json.dumps(row), flush=True)
