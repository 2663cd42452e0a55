"""Files for other runtimes with int8 kernels: the formats, one line each."""

from amct_tensorflow.export.onnx.onnx_target import ONNX
from amct_tensorflow.export.openvino.openvino_target import OPENVINO
from amct_tensorflow.export.target import Target
from amct_tensorflow.export.tflite.tflite_target import TFLITE

TARGETS: dict[str, Target] = {target.name: target for target in (TFLITE, ONNX, OPENVINO)}
