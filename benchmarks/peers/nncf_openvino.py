"""NNCF on OpenVINO: quantize, and quantize with accuracy control."""

import time
from collections.abc import Iterable
from typing import Any

import nncf
import numpy as np
import openvino as ov
from common import (
    CALIBRATION_IMAGES,
    MODEL,
    TARGET,
    TimeIsUpError,
    Validation,
    images,
    in_batches,
    labels,
    print_result,
)

QUANTIZABLE = ("Convolution", "GroupConvolution", "MatMul", "AvgPool")


def main() -> None:
    """Runs both."""
    calibration = nncf.Dataset([image[None] for image in images[:CALIBRATION_IMAGES]])
    start = time.perf_counter()
    quantized = nncf.quantize(ov.convert_model(MODEL), calibration, subset_size=CALIBRATION_IMAGES)
    finish("NNCF quantize", quantized, start, 0)
    validation = Validation()
    start = time.perf_counter()

    def validate(model: Any, data: Iterable[np.ndarray]) -> tuple[float, None]:
        validation.count()
        correct = [np.argmax(model(batch)[0], axis=1) == answers for batch, answers in data]
        return float(np.mean(np.concatenate(correct))), None

    batches = [(images[i : i + 50], labels[i : i + 50]) for i in range(0, len(images), 50)]
    try:
        quantized = nncf.quantize_with_accuracy_control(
            ov.convert_model(MODEL),
            calibration,
            nncf.Dataset(batches),
            validate,
            max_drop=TARGET / 100,
            drop_type=nncf.DropType.ABSOLUTE,
            subset_size=CALIBRATION_IMAGES,
        )
    except TimeIsUpError:
        seconds = time.perf_counter() - start
        print_result(
            "NNCF accuracy control", None, seconds, version=nncf.__version__,
            evaluations=validation.evaluations, remark="stopped at the time limit, no model",
        )  # fmt: skip
        return
    finish("NNCF accuracy control", quantized, start, validation.evaluations)


def finish(tool: str, model: ov.Model, start: float, evaluations: int) -> None:
    """Evaluates and prints."""
    seconds = time.perf_counter() - start
    layers = [operation for operation in model.get_ops() if operation.get_type_name() in QUANTIZABLE]
    in_float = [layer for layer in layers if not reads_quantized(layer)]
    compiled = ov.compile_model(model, "CPU")
    predictions = in_batches(lambda batch: compiled(batch)[0])
    print_result(
        tool, predictions, seconds, version=nncf.__version__,
        float_layers=len(in_float), layers=len(layers), evaluations=evaluations,
    )  # fmt: skip


def reads_quantized(layer: ov.Node) -> bool:
    """Tells whether a layer's activations come from a FakeQuantize."""
    return bool(layer.input_value(0).get_node().get_type_name() == "FakeQuantize")


main()
