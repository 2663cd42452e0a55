"""The formats that models are exported to: one line each."""

from amct_tensorflow.export.onnx_target import ONNX
from amct_tensorflow.export.openvino_target import OPENVINO
from amct_tensorflow.export.target import Target
from amct_tensorflow.export.tflite_target import TFLITE

TARGETS: dict[str, Target] = {target.name: target for target in (TFLITE, ONNX, OPENVINO)}
