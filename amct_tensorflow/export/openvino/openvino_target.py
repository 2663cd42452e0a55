"""OpenVINO as a target: from the ONNX model with QuantizeLinear and DequantizeLinear, which OpenVINO reads.

Its int8 kernels yield float where float is read, and add what an Add does on the way. So only the inputs of layers are
quantized, as in the simulation, and nothing is rounded in addition.
"""

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from amct_tensorflow.export.export_plan import ExportPlan
from amct_tensorflow.export.libraries import library, refusals
from amct_tensorflow.export.onnx.onnx_model import OnnxModel, make_onnx_model
from amct_tensorflow.export.onnx.onnx_target import feeds, in_layout
from amct_tensorflow.export.openvino.openvino_biases import with_biases
from amct_tensorflow.export.openvino.openvino_casts import with_plain_casts
from amct_tensorflow.export.openvino.openvino_products import products_to_leave
from amct_tensorflow.export.openvino.openvino_reading import read_openvino_layers
from amct_tensorflow.export.saturation import can_saturate, saturates
from amct_tensorflow.export.target import Exported, Saturating, Target, Values
from amct_tensorflow.export.written import check_written
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

_INT8 = ("u8", "i8")
_WIDE = "its input has 16 bits, of which OpenVINO has no kernel"
# Makes it compute in float on what the integers stand for.
_EXACT = {"LP_TRANSFORMS_MODE": "NO"}


def _export(plan: ExportPlan, _evaluator: CheckedEvaluator) -> Exported:
    library("openvino", "openvino")  # so that nothing is converted in vain
    left_out = {**products_to_leave(plan), **dict.fromkeys(plan.wide_layers, _WIDE)}
    plan = plan.without(left_out)
    source = make_onnx_model(plan, outputs_in_int8=False)
    model = with_biases(with_plain_casts(source.model), source.nodes, plan.layers)
    files = convert_to_openvino(model.SerializeToString())
    layers = {name: plan.layers[name] for name in source.weights}
    check_written(plan.layers, read_openvino_layers(_read(files), layers), "OpenVINO")
    runtime = _Runtime(plan, source, files, {})
    in_float = {**_layers_in_float(plan, source, runtime.compiled), **source.missing, **left_out}
    if can_saturate(plan.quantized_layers.values()) and _saturates():
        exact = _Runtime(plan, source, files, _EXACT)
        return Exported(files, in_float, (), exact, Saturating(runtime, "OpenVINO", None))
    return Exported(files, in_float, (), runtime)


@cache
def _saturates() -> bool:
    def run(model: bytes, inputs: Values) -> np.ndarray:
        read = library("openvino", "openvino").Core().read_model(model, b"")
        return np.array(_compile(read, {})(dict(inputs))[0])

    return saturates(run)


def convert_to_openvino(model: bytes) -> dict[str, bytes]:
    """Converts an ONNX model; returns the content of its two files, by suffix.

    Raises:
        ExportError: the library is missing, or does not know an op.
    """
    openvino = library("openvino", "openvino")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(model)
        with refusals("OpenVINO", "convert"):
            converted = openvino.convert_model(str(folder / "model.onnx"))
            # Without this the floats would become float16, and so would what biases stand for.
            openvino.save_model(converted, str(folder / "model.xml"), compress_to_fp16=False)
        return {suffix: (folder / f"model{suffix}").read_bytes() for suffix in (".xml", ".bin")}


class _Runtime:
    """OpenVINO on the CPU, with its defaults but for some settings."""

    def __init__(
        self, plan: ExportPlan, source: OnnxModel, files: dict[str, bytes], settings: Mapping[str, str]
    ) -> None:
        self._plan = plan
        self._source = source
        self._files = files
        self._settings = settings
        self.compiled = _compile(_read(files), settings)

    def run(self, inputs: Values) -> list[np.ndarray]:
        """Runs a batch."""
        with refusals("OpenVINO", "run"):
            results = self.compiled(feeds(inputs))
        return [np.array(results[f"{name}:0"]) for name in self._plan.outputs]

    def layers(self, inputs: Values) -> dict[str, np.ndarray]:
        """Runs the model with the outputs of layers as outputs of its own."""
        model = _read(self._files)
        names = _names(model)
        ends = {name: tensor for name, tensor in self._source.ends.items() if tensor in names}
        model.add_outputs(list(dict.fromkeys(ends.values())))
        compiled = _compile(model, self._settings)
        with refusals("OpenVINO", "run"):
            results = compiled(feeds(inputs))
        return {name: in_layout(self._plan, name, np.array(results[tensor])) for name, tensor in ends.items()}


def _read(files: Mapping[str, bytes]) -> Any:
    with refusals("OpenVINO", "load"):
        return library("openvino", "openvino").Core().read_model(files[".xml"], files[".bin"])


def _compile(model: Any, settings: Mapping[str, str]) -> Any:
    with refusals("OpenVINO", "load"):
        return library("openvino", "openvino").Core().compile_model(model, "CPU", dict(settings))


def _names(model: Any) -> set[str]:
    """Returns the names of all tensors; the conversion merges some."""
    return {name for operation in model.get_ops() for output in operation.outputs() for name in output.get_names()}


def _layers_in_float(plan: ExportPlan, source: OnnxModel, compiled: Any) -> dict[str, str]:
    """Returns the layers that the CPU plugin, on this machine, does not execute in int8."""
    int8: set[str] = set()
    for operation in compiled.get_runtime_model().get_ops():
        told = operation.get_rt_info()
        if str(told["runtimePrecision"].astype(str)) in _INT8:
            names = str(told["originalLayersNames"].astype(str)).split(",")
            int8.update(name.removesuffix("/WithoutBiases").removesuffix("/DequantizationMultiply") for name in names)
    return {
        name: f"OpenVINO's CPU plugin makes no int8 kernel of this {plan.layers[name].op_type.name}"
        for name, node in source.nodes.items()
        if node not in int8
    }


OPENVINO = Target(
    "openvino",
    (".xml", ".bin"),
    _export,
    no_int8_sums="its int8 kernels yield float where an Add reads it, and add on the way, without a rounding",
)
