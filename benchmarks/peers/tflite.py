"""TensorFlow Lite: full-integer post-training quantization."""

import time

import numpy as np
import tensorflow as tf
from common import CALIBRATION_IMAGES, INPUT, MODEL, OUTPUT, images, print_result

# Its softmax comes in steps of 1/256: what is shown as 0 lies below half of that. Without this floor the divergence
# would be that of the logarithm of 0, and tell nothing.
SMALLEST_PROBABILITY = 1 / 512


def main() -> None:
    """Quantizes and evaluates."""
    start = time.perf_counter()
    shape = {INPUT: [1, *images.shape[1:]]}
    converter = tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(MODEL, [INPUT], [OUTPUT], shape)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images[:CALIBRATION_IMAGES])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    model = converter.convert()
    seconds = time.perf_counter() - start
    interpreter = tf.lite.Interpreter(model_content=model)
    interpreter.allocate_tensors()
    fed, fetched = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    predictions = []
    for image in images:
        interpreter.set_tensor(fed, image[None])
        interpreter.invoke()
        predictions.append(interpreter.get_tensor(fetched)[0].copy())
    floored = np.maximum(np.array(predictions), SMALLEST_PROBABILITY)
    print_result(
        "TFLite, full integer", floored / floored.sum(axis=1, keepdims=True), seconds, version=tf.__version__,
        float_layers=0, layers=54, evaluations=0, remark="KL with a floor of 1/512",
    )  # fmt: skip


main()
