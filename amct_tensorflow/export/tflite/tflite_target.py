"""TensorFlow Lite as a target: TensorFlow's own converter and interpreter."""

from typing import Any

import numpy as np
import tensorflow as tf

from amct_tensorflow.errors import ExportError
from amct_tensorflow.export.export_plan import ExportPlan
from amct_tensorflow.export.libraries import refusals
from amct_tensorflow.export.narrow_weights import SYMMETRIC, with_narrow_weights
from amct_tensorflow.export.target import Exported, Target, Values
from amct_tensorflow.export.tflite.tflite_model import TfliteModel, make_tflite_model
from amct_tensorflow.export.tflite.tflite_reading import read_tflite_layers
from amct_tensorflow.export.written import check_written
from amct_tensorflow.io.table import plural
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator


def _export(plan: ExportPlan, evaluator: CheckedEvaluator) -> Exported:
    narrow = with_narrow_weights(plan, evaluator, SYMMETRIC)
    model = make_tflite_model(narrow)
    check_written(narrow.layers, read_tflite_layers(model.content, narrow.layers), "TensorFlow Lite")
    changed = [name for name, layer in narrow.layers.items() if layer is not plan.layers[name]]
    notes = []
    if changed:
        notes.append(
            f"{plural(len(changed), 'layer')} had weights of -128, which the format forbids; they were rounded again."
        )
    return Exported({".tflite": model.content}, model.in_float, notes, _Runtime(plan, model), wide=model.wide)


class _Runtime:
    """TensorFlow's interpreter of TensorFlow Lite, which takes a fixed number of images at a time."""

    def __init__(self, plan: ExportPlan, model: TfliteModel) -> None:
        self._plan = plan
        self._model = model
        self._interpreter = _interpreter(model.content)

    def run(self, inputs: Values) -> list[np.ndarray]:
        """Runs the images one after the other."""
        parts = [self._invoke(self._interpreter, part) for part in self._parts(inputs)]
        return [np.concatenate(values) if values[0].ndim else values[0] for values in zip(*parts, strict=True)]

    def layers(self, inputs: Values) -> dict[str, np.ndarray]:
        """Runs the reference kernels, which keep what is between them."""
        interpreter = _interpreter(
            self._model.content,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        details = {detail["name"]: detail for detail in interpreter.get_tensor_details()}
        found: dict[str, list[np.ndarray]] = {name: [] for name in self._model.ends}
        for part in self._parts(inputs):
            self._invoke(interpreter, part)
            for name, tensor in self._model.ends.items():
                found[name].append(_values(interpreter, details[tensor]))
        return {name: np.concatenate(values) for name, values in found.items()}

    def _parts(self, inputs: Values) -> list[dict[str, np.ndarray]]:
        """Cuts values into as much as the model takes at a time."""
        shapes = self._plan.shapes
        cut = [name for name, values in inputs.items() if values.shape != shapes[name]]
        if not cut:
            return [dict(inputs)]
        counts = {
            len(inputs[name]) / shapes[name][0] if inputs[name].shape[1:] == shapes[name][1:] and shapes[name] else 0.0
            for name in cut
        }
        count = counts.pop() if len(counts) == 1 else 0.0
        if not count.is_integer() or not count:
            name = cut[0]
            raise ExportError(
                f"Input {name!r} of the model takes values of the shape {list(shapes[name])} at a time, as in the "
                f"first batch of the calibration, not {list(inputs[name].shape)}. Give batches of one size; pad "
                "sequences of several lengths."
            )
        return [
            {
                name: values[i * shapes[name][0] : (i + 1) * shapes[name][0]] if name in cut else values
                for name, values in inputs.items()
            }
            for i in range(int(count))
        ]

    def _invoke(self, interpreter: Any, inputs: Values) -> list[np.ndarray]:
        for name, detail in zip(self._plan.inputs, interpreter.get_input_details(), strict=True):
            interpreter.set_tensor(detail["index"], inputs[name])
        with refusals("TensorFlow Lite", "run"):
            interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]).copy() for detail in interpreter.get_output_details()]


def _interpreter(content: bytes, **options: Any) -> Any:
    with refusals("TensorFlow Lite", "load"):  # its warning of its own removal goes to the log file
        interpreter = tf.lite.Interpreter(model_content=content, **options)
        interpreter.allocate_tensors()
    return interpreter


def _values(interpreter: Any, detail: dict[str, Any]) -> np.ndarray:
    values = interpreter.get_tensor(detail["index"])
    if not np.issubdtype(values.dtype, np.integer):
        return np.asarray(values).copy()
    scale, zero_point = detail["quantization"]
    return np.asarray((values.astype(np.float32) - zero_point) * np.float32(scale))


TFLITE = Target(
    "tflite", (".tflite",), _export, never_saturates="the kernels of TensorFlow Lite add products of bytes in 32 bits"
)
