"""ONNX as a target: QuantizeLinear and DequantizeLinear, which ONNX Runtime turns into int8 kernels."""

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from amct_tensorflow.export.export_plan import ExportPlan
from amct_tensorflow.export.libraries import library, refusals
from amct_tensorflow.export.onnx.onnx_model import OnnxModel, make_onnx_model
from amct_tensorflow.export.onnx.onnx_reading import read_onnx_layers
from amct_tensorflow.export.saturation import can_saturate, saturates
from amct_tensorflow.export.target import Exported, Saturating, Target, Values
from amct_tensorflow.export.written import check_written
from amct_tensorflow.ops import OP_TYPES
from amct_tensorflow.ops.channels import data_format
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

# Ops of ONNX Runtime that take weights in int8.
_INT8_OPS = ("QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger")
_INT8_POOLS = ("QLinearAveragePool", "QLinearGlobalAveragePool")
_INT8_ADD = "QLinearAdd"
# Makes it multiply bytes without a sign, which all processors do exactly; it brings the weights there when it loads.
_EXACT = {"session.x64quantprecision": "1"}
_REMEDY = 'set the entry session.x64quantprecision of its session options to "1"'

# By default, it makes MatMulNBits of a product of matrices with weights in int8 whose input is not in int8, and rounds
# that input to 8 bits when it runs. Level 1 is float32.
_PRECISE = {"session.qdq_matmulnbits_accuracy_level": "1"}
_WIDE = "it reads 16 bits, of which ONNX Runtime has no integer kernel on a processor"
_NOTE = (
    "ONNX Runtime rounds inputs of 16 bits of matrix products to 8 bits by default: set the entry "
    'session.qdq_matmulnbits_accuracy_level of its session options to "1", as for this comparison.'
)


def _export(plan: ExportPlan, _evaluator: CheckedEvaluator) -> Exported:
    library("onnxruntime", "onnx")  # so that nothing is converted in vain
    model = make_onnx_model(plan, outputs_in_int8=True)
    in_float = {**_in_float(plan, model), **dict.fromkeys(plan.wide_layers, _WIDE), **model.missing}
    files = {".onnx": model.model.SerializeToString()}
    written = read_onnx_layers(files[".onnx"], {name: plan.layers[name] for name in model.nodes})
    check_written(plan.layers, written, "ONNX")
    settings = _PRECISE if plan.wide_layers else {}
    products = [name for name in plan.wide_layers if OP_TYPES[plan.layers[name].op_type.name].of_computed is not None]
    notes = [_NOTE] if products else []
    runtime = OnnxRuntime(plan, model, settings)
    if can_saturate(plan.quantized_layers.values()) and _saturates():
        exact = OnnxRuntime(plan, model, {**settings, **_EXACT})
        return Exported(files, in_float, notes, exact, Saturating(runtime, "ONNX Runtime", _REMEDY))
    return Exported(files, in_float, notes, runtime)


class OnnxRuntime:
    """ONNX Runtime on the CPU, with its defaults but for some settings."""

    def __init__(self, plan: ExportPlan, model: OnnxModel, settings: Mapping[str, str]) -> None:
        self._plan = plan
        self._model = model
        self._settings = settings
        self._session = _session(model.model.SerializeToString(), settings)

    def run(self, inputs: Values) -> list[np.ndarray]:
        """Runs a batch."""
        with refusals("ONNX Runtime", "run"):
            return list(self._session.run([f"{name}:0" for name in self._plan.outputs], feeds(inputs)))

    def layers(self, inputs: Values) -> dict[str, np.ndarray]:
        """Runs the model with the outputs of layers as outputs of its own."""
        onnx = library("onnx", "onnx")
        model = onnx.ModelProto()
        model.CopyFrom(self._model.model)
        known = {output.name for output in model.graph.output}
        for tensor in dict.fromkeys(self._model.ends.values()):
            if tensor not in known:
                model.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
        names = list(self._model.ends)
        if not names:  # of no outputs, ONNX Runtime returns all
            return {}
        session = _session(model.SerializeToString(), self._settings)
        values = session.run([self._model.ends[name] for name in names], feeds(inputs))
        return {name: in_layout(self._plan, name, value) for name, value in zip(names, values, strict=True)}


def in_layout(plan: ExportPlan, name: str, value: np.ndarray) -> np.ndarray:
    """Returns the output of a layer with its channels where TensorFlow has them; ONNX has them behind the images."""
    channels_last = data_format(plan.view.nodes[name]) == "NHWC"
    is_image = plan.layers[name].op_type.output_rank not in (None, 2)
    return np.moveaxis(value, 1, -1) if channels_last and is_image else value


def feeds(inputs: Values) -> dict[str, np.ndarray]:
    """Returns the values of placeholders by the names that tf2onnx gives the inputs."""
    return {f"{name}:0": values for name, values in inputs.items()}


@cache
def _saturates() -> bool:
    return saturates(lambda model, inputs: np.asarray(_session(model, {}).run(None, inputs)[0]))


def _session(model: bytes, settings: Mapping[str, str], optimized: Path | None = None) -> Any:
    runtime = library("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    for name, value in settings.items():
        options.add_session_config_entry(name, value)
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    with refusals("ONNX Runtime", "load"):
        return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _in_float(plan: ExportPlan, model: OnnxModel) -> dict[str, str]:
    """Returns the layers and sums of which ONNX Runtime, on this machine, makes no int8 kernel."""
    onnx = library("onnx", "onnx")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        _session(model.model.SerializeToString(), {}, path)
        optimized = onnx.load(str(path))
    taken = {name for node in optimized.graph.node if node.op_type in _INT8_OPS for name in node.input}
    without_weights = {node.name for node in optimized.graph.node if node.op_type in (*_INT8_POOLS, *_INT8_OPS)}
    adds = {node.name for node in optimized.graph.node if node.op_type == _INT8_ADD}
    found = {
        name: "ONNX Runtime makes no int8 kernel of this Add" for name, node in model.adds.items() if node not in adds
    }
    for name, node in model.nodes.items():
        is_int8 = node in without_weights if plan.layers[name].weights is None else model.weights[name] in taken
        if not is_int8:
            found[name] = (
                "its output stays in float, for which ONNX Runtime has no int8 kernel"
                if plan.layer_outputs[name].is_final
                else f"ONNX Runtime makes no int8 kernel of this {plan.layers[name].op_type.name}"
            )
    return found


ONNX = Target("onnx", (".onnx",), _export)
