"""The message of a simplified configuration: spec section 3."""

from amct_tensorflow.storage.text_messages import message_class

# Enumerations are listed with their values; the numbers of TensorFlow's own fields are free.
_ENUMS = {
    "DataType": {"INT8": 1, "INT16": 2},
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
        "ifmr_quantize": (100, "optional FMRQuantize"),
        "hfmg_quantize": (101, "optional HFMGQuantize"),
        "dmq_balancer": (200, "optional DMQBalancer"),
    },
    "ARQuantize": {"channel_wise": (1, "optional bool")},
    "NUQuantize": {"num_steps": (1, "optional uint32"), "num_of_iteration": (2, "optional uint32")},
    "NuqConfig": {"mapping_file": (1, "optional string"), "nuq_quantize": (2, "optional NUQuantize")},
    "FMRQuantize": {
        "search_range_start": (1, "optional float"),
        "search_range_end": (2, "optional float"),
        "search_step": (3, "optional float"),
        "max_percentile": (4, "optional float"),
        "min_percentile": (5, "optional float"),
        "asymmetric": (6, "optional bool"),
        "dst_type": (10, "optional DataType"),
    },
    "HFMGQuantize": {
        "num_of_bins": (1, "optional uint32"),
        "asymmetric": (2, "optional bool"),
        "dst_type": (10, "optional DataType"),
    },
    "DMQBalancer": {"migration_strength": (1, "optional float")},
    "TensorQuantize": {
        "layer_name": (1, "optional string"),
        "input_index": (2, "optional uint32"),
        "ifmr_quantize": (3, "optional FMRQuantize"),
        "hfmg_quantize": (4, "optional HFMGQuantize"),
    },
}

AMCTConfig = message_class("AMCTTensorflowConfig", _CONFIG, _ENUMS, "AMCTConfig")
