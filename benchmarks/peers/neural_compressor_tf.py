"""Neural Compressor for TensorFlow: static quantization, and its accuracy-aware autotune over that."""

import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import tensorflow as tf
from common import (
    BATCH,
    CALIBRATION_IMAGES,
    INPUT,
    MODEL,
    OUTPUT,
    TARGET,
    TimeIsUpError,
    Validation,
    images,
    in_batches,
    labels,
    print_result,
    softmax,
    top1,
)
from neural_compressor.common.base_tuning import TuningConfig
from neural_compressor.tensorflow import StaticQuantConfig, autotune, quantize_model

FLOAT_LAYERS = ("Conv2D", "DepthwiseConv2dNative", "MatMul", "AvgPool")
QUANTIZED_PREFIXES = ("Quantized", "_Quantized", "_FusedQuantized")


class Loader:
    """Calibration batches."""

    batch_size = BATCH

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield images[:CALIBRATION_IMAGES], labels[:CALIBRATION_IMAGES]


def main() -> None:
    """Runs both."""
    start = time.perf_counter()
    quantized = quantize_model(MODEL, StaticQuantConfig(), Loader())
    finish("Neural Compressor quantize", quantized, time.perf_counter() - start, 0)

    validation = Validation()

    def evaluate(model: Any) -> float:
        validation.count()
        return top1(predict(model)) / 100

    # It tries every configuration of the set until the relative loss is small enough.
    choices = StaticQuantConfig(weight_sym=True, act_sym=[True, False], act_algorithm=["minmax", "kl"])
    config = TuningConfig(config_set=choices, tolerable_loss=TARGET / top1(softmax))
    start = time.perf_counter()
    try:
        tuned = autotune(MODEL, config, evaluate, calib_dataloader=Loader())
    except TimeIsUpError:
        print_result(
            "Neural Compressor autotune", None, time.perf_counter() - start, version=version("neural_compressor"),
            evaluations=validation.evaluations, remark="stopped at the time limit, no model",
        )  # fmt: skip
        return
    finish("Neural Compressor autotune", tuned, time.perf_counter() - start, validation.evaluations)


def finish(tool: str, model: Any, seconds: float, evaluations: int) -> None:
    """Evaluates and prints."""
    if model is None:
        print_result(
            tool, None, seconds, version=version("neural_compressor"), evaluations=evaluations, remark="found no model"
        )
        return
    ops = [node.op for node in model.graph_def.node]
    in_float = sum(op in FLOAT_LAYERS or op.startswith("_FusedConv2D") for op in ops)
    quantized = sum(
        op.startswith(QUANTIZED_PREFIXES) and ("Conv" in op or "Pool" in op or "MatMul" in op) for op in ops
    )
    print_result(
        tool, predict(model), seconds, version=version("neural_compressor"),
        float_layers=in_float, layers=in_float + quantized, evaluations=evaluations,
    )  # fmt: skip


def predict(model: Any) -> np.ndarray:
    """Runs all images through a model."""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(model.graph_def, name="")
    with tf.compat.v1.Session(graph=graph) as session:
        return in_batches(lambda batch: session.run(f"{OUTPUT}:0", {f"{INPUT}:0": batch}))


main()
