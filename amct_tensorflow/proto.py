"""Protobuf messages of the text formats, built at run time from the tables below.

Text format knows fields by name only, so that files are exchanged with other writers of the same schema. Generated
code would tie the package to one protobuf release; these few lines work with every one.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_LABELS = {
    "optional": _Field.LABEL_OPTIONAL,
    "required": _Field.LABEL_REQUIRED,
    "repeated": _Field.LABEL_REPEATED,
}
_TYPES = {
    "bool": _Field.TYPE_BOOL,
    "float": _Field.TYPE_FLOAT,
    "int32": _Field.TYPE_INT32,
    "uint32": _Field.TYPE_UINT32,
    "string": _Field.TYPE_STRING,
}

# Per message: field name -> (number, "label type"). Spec section 4, the superset that readers accept.
_RECORD = {
    "ScaleOffsetRecord": {"record": (1, "repeated MapFiledEntry")},
    "MapFiledEntry": {"key": (1, "optional string"), "value": (2, "optional SingleLayerRecord")},
    "SingleLayerRecord": {
        "scale_d": (1, "optional float"),
        "offset_d": (2, "optional int32"),
        "scale_w": (3, "repeated float"),
        "offset_w": (4, "repeated int32"),
        "shift_bit": (5, "repeated uint32"),
        "cluster": (6, "repeated int32"),
        "skip_fusion": (9, "optional bool"),
        "dst_type": (10, "optional string"),
        "prune_producer": (11, "repeated string"),
        "prune_consumer": (12, "repeated string"),
        "tensor_balance_factor": (13, "repeated float"),
        "act_type": (14, "optional string"),
        "wts_type": (15, "optional string"),
    },
}

# Spec section 3. Enumerations are listed with their values; the numbers of TensorFlow's own fields are free.
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

_Messages = Mapping[str, Mapping[str, tuple[int, str]]]
_Enums = Mapping[str, Mapping[str, int]]


def _message_class(package: str, messages: _Messages, enums: _Enums, name: str) -> Any:
    """Builds all messages of a schema and returns the class of one; the others are reached through its fields."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    for enum, values in enums.items():
        described = file.enum_type.add(name=enum)
        for value, number in values.items():
            described.value.add(name=value, number=number)
    for message, fields in messages.items():
        described_message = file.message_type.add(name=message)
        for field, (number, kind) in fields.items():
            label, type_name = kind.split()
            added = described_message.field.add(name=field, number=number, label=_LABELS[label])
            if type_name in _TYPES:
                added.type = _TYPES[type_name]
            else:
                added.type = _Field.TYPE_ENUM if type_name in enums else _Field.TYPE_MESSAGE
                added.type_name = f".{package}.{type_name}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))


ScaleOffsetRecord = _message_class("AMCTTensorflow", _RECORD, {}, "ScaleOffsetRecord")
AMCTConfig = _message_class("AMCTTensorflowConfig", _CONFIG, _ENUMS, "AMCTConfig")
