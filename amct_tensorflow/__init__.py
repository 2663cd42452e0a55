"""Accuracy-based post-training quantization of frozen TensorFlow models.

The names here, and those in ``common`` and ``utils``, are those of the original toolkit; see the README.
"""

from amct_tensorflow.accuracy_based_auto_calibration import AutoCalibrationResult, accuracy_based_auto_calibration
from amct_tensorflow.errors import AmctError
from amct_tensorflow.log import set_logging_level
from amct_tensorflow.quantization import convert_model, create_quant_config, quantize_model, save_model

__all__ = [
    "AmctError",
    "AutoCalibrationResult",
    "accuracy_based_auto_calibration",
    "convert_model",
    "create_quant_config",
    "quantize_model",
    "save_model",
    "set_logging_level",
]
