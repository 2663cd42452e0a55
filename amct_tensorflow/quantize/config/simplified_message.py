"""The message of a simplified configuration: spec section 3."""

from typing import Any

from amct_tensorflow.io.text_messages import message_class
from amct_tensorflow.quantize.algorithms import ACTIVATION_ALGORITHMS
from amct_tensorflow.quantize.algorithms.activation_algorithm import ActivationAlgorithm, Parameter
from amct_tensorflow.quantize.algorithms.activation_factors import ACTIVATION_BITS, type_name
from amct_tensorflow.quantize.config.schema import WEIGHT_ROUNDINGS

# Per value of DataType, the bits that it stands for.
DATA_TYPES = dict(enumerate(ACTIVATION_BITS, 1))
# Enumerations are listed with their values; the numbers of TensorFlow's own fields are free.
_ENUMS = {
    "DataType": {type_name(bits): number for number, bits in DATA_TYPES.items()},
    "WeightRounding": {name.upper(): number for number, name in enumerate(WEIGHT_ROUNDINGS)},
    "FakequantPrecisionMode": {"DEFAULT": 0, "FORCE_FP16_QUANT": 1},
}
_CONFIG = {
    "AMCTConfig": {
        "batch_num": (1, "optional uint32"),
        "activation_offset": (2, "optional bool"),
        "joint_quant": (3, "optional bool"),
        "skip_layers": (10, "repeated string"),
        "skip_layer_types": (11, "repeated string"),
        "skip_approximation_layers": (12, "repeated string"),
        "fakequant_precision_mode": (21, "optional FakequantPrecisionMode"),
        "nuq_config": (22, "optional NuqConfig"),
        "common_config": (50, "optional CalibrationConfig"),
        "override_layer_types": (51, "repeated OverrideLayerType"),
        "conv_calibration_config": (60, "optional CalibrationConfig"),
        "fc_calibration_config": (61, "optional CalibrationConfig"),
        "override_layer_configs": (100, "repeated OverrideLayer"),
        "do_fusion": (200, "optional bool"),
        "skip_fusion_layers": (201, "repeated string"),
        "tensor_quantize": (202, "repeated TensorQuantize"),
        "bias_correction": (300, "optional bool"),
        "weight_rounding": (301, "optional WeightRounding"),
        "range_refinement": (302, "optional bool"),
        "input_balancing": (303, "optional bool"),
        "quantize_products": (304, "optional bool"),
    },
    "OverrideLayerType": {
        "layer_type": (1, "required string"),
        "calibration_config": (2, "required CalibrationConfig"),
    },
    "OverrideLayer": {
        "layer_name": (1, "required string"),
        "calibration_config": (2, "required CalibrationConfig"),
    },
    "CalibrationConfig": {
        "arq_quantize": (13, "optional ARQuantize"),
        "nuq_quantize": (14, "optional NUQuantize"),
        "dmq_balancer": (200, "optional DMQBalancer"),
        "weight_compress_only": (300, "optional bool"),
    },
    "ARQuantize": {"channel_wise": (1, "optional bool")},
    "NUQuantize": {"num_steps": (1, "optional uint32"), "num_of_iteration": (2, "optional uint32")},
    "NuqConfig": {"mapping_file": (1, "optional string"), "nuq_quantize": (2, "optional NUQuantize")},
    "DMQBalancer": {"migration_strength": (1, "optional float")},
    "TensorQuantize": {
        "layer_name": (1, "optional string"),
        "input_index": (2, "optional uint32"),
    },
}

_FIRST_ALGORITHM = {"CalibrationConfig": 100, "TensorQuantize": 3}


def new_config() -> Any:
    """Returns an empty AMCTConfig, which knows every algorithm for activations."""
    messages = {**_CONFIG, **{one.message: _fields(one) for one in ACTIVATION_ALGORITHMS.values()}}
    for message, first in _FIRST_ALGORITHM.items():
        choices = {
            algorithm_field(name): (number, f"optional {one.message}")
            for number, (name, one) in enumerate(ACTIVATION_ALGORITHMS.items(), first)
        }
        messages[message] = {**messages[message], **choices}
    return message_class("AMCTTensorflowConfig", messages, _ENUMS, "AMCTConfig")()


def algorithm_field(name: str) -> str:
    """Returns the field that chooses an algorithm for activations."""
    return f"{name}_quantize"


def parameter_fields(name: str, default: Parameter) -> list[str]:
    """Returns the fields that hold a parameter of an algorithm: two for a pair, else one."""
    return [f"{name}_start", f"{name}_end"] if isinstance(default, tuple) else [name]


def _fields(algorithm: type[ActivationAlgorithm]) -> dict[str, tuple[int, str]]:
    fields = [
        (field, "optional uint32" if isinstance(default, int) else "optional float")
        for name, default in algorithm.parameters().items()
        for field in parameter_fields(name, default)
    ]
    numbered = enumerate([*fields, ("asymmetric", "optional bool")], 1)
    return {**{field: (number, kind) for number, (field, kind) in numbered}, "dst_type": (10, "optional DataType")}
