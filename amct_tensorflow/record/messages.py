"""The message of a record file: spec section 4, the superset that readers accept."""

from amct_tensorflow.storage.text_messages import message_class

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

ScaleOffsetRecord = message_class("AMCTTensorflow", _RECORD, {}, "ScaleOffsetRecord")
