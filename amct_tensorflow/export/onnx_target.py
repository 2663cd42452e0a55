"""ONNX as a target: QuantizeLinear and DequantizeLinear, which ONNX Runtime turns into int8 kernels."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from amct_tensorflow.export.libraries import library, refusals
from amct_tensorflow.export.onnx_model import OnnxModel, make_onnx_model
from amct_tensorflow.export.plan import ExportPlan
from amct_tensorflow.export.target import Exported, Target, Values
from amct_tensorflow.graph.op_types.op_type import data_format
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

# Ops of ONNX Runtime that take weights in int8.
_INT8_OPS = ("QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger")
_INT8_POOLS = ("QLinearAveragePool", "QLinearGlobalAveragePool")
_INT8_ADD = "QLinearAdd"


def _export(plan: ExportPlan, _evaluator: CheckedEvaluator) -> Exported:
    library("onnxruntime", "onnx")  # so that nothing is converted in vain
    model = make_onnx_model(plan, outputs_in_int8=True)
    in_float = {**_in_float(plan, model), **model.missing}
    return Exported({".onnx": model.model.SerializeToString()}, in_float, (), OnnxRuntime(plan, model))


class OnnxRuntime:
    """ONNX Runtime on the CPU, with its defaults."""

    def __init__(self, plan: ExportPlan, model: OnnxModel) -> None:
        self._plan = plan
        self._model = model
        self._session = _session(model.model)

    def run(self, inputs: Values) -> list[np.ndarray]:
        """Runs a batch."""
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
        values = _session(model).run([self._model.ends[name] for name in names], feeds(inputs))
        return {name: in_layout(self._plan, name, value) for name, value in zip(names, values, strict=True)}


def in_layout(plan: ExportPlan, name: str, value: np.ndarray) -> np.ndarray:
    """Returns the output of a layer with its channels where TensorFlow has them; ONNX has them behind the images."""
    channels_last = data_format(plan.view.nodes[name]) == "NHWC"
    is_image = plan.layers[name].op_type.output_rank not in (None, 2)
    return np.moveaxis(value, 1, -1) if channels_last and is_image else value


def feeds(inputs: Values) -> dict[str, np.ndarray]:
    """Returns the values of placeholders by the names that tf2onnx gives the inputs."""
    return {f"{name}:0": values for name, values in inputs.items()}


def _session(model: Any, optimized: Path | None = None) -> Any:
    runtime = library("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    with refusals("ONNX Runtime", "load"):
        return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _in_float(plan: ExportPlan, model: OnnxModel) -> dict[str, str]:
    """Returns the layers and sums of which ONNX Runtime, on this machine, makes no int8 kernel."""
    onnx = library("onnx", "onnx")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        _session(model.model, path)
        optimized = onnx.load(str(path))
    taken = {name for node in optimized.graph.node if node.op_type in _INT8_OPS for name in node.input}
    pools = {node.name for node in optimized.graph.node if node.op_type in _INT8_POOLS}
    adds = {node.name for node in optimized.graph.node if node.op_type == _INT8_ADD}
    found = {
        name: "ONNX Runtime makes no int8 kernel of this Add" for name, node in model.adds.items() if node not in adds
    }
    for name, node in model.nodes.items():
        is_int8 = node in pools if plan.layers[name].weights is None else model.weights[name] in taken
        if not is_int8:
            found[name] = (
                "its output stays in float, for which ONNX Runtime has no int8 kernel"
                if plan.layer_outputs[name].is_final
                else f"ONNX Runtime makes no int8 kernel of this {plan.layers[name].op_type.name}"
            )
    return found


ONNX = Target("onnx", (".onnx",), _export)
