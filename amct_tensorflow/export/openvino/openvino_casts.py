"""Writes casts of small integers and decisions such that OpenVINO does not take them for quantized data.

A mask of attention is often ``(1 - Cast(mask)) * -1e9``, and to OpenVINO 2026.4 a Cast of 8 bits or of a bool, less one
constant, times another, is data to dequantize. It adds what stands before that first, and the large factor behind: the
scores of attention lose all their digits beside the mask. It does not look for this behind 32 bits or a choice.
"""

from typing import Any

import numpy as np

from amct_tensorflow.export.libraries import library
from amct_tensorflow.export.onnx.onnx_editor import OnnxEditor


def with_plain_casts(model: Any) -> Any:
    """Returns an ONNX model whose casts of bool and of 8 bits to float32 are written in other ops; values are the same.

    Args:
        model: the model.
    """
    onnx = library("onnx", "onnx")
    types = onnx.TensorProto
    inferred = onnx.shape_inference.infer_shapes(model).graph
    kinds = {each.name: each.type.tensor_type.elem_type for each in (*inferred.input, *inferred.value_info)}
    kinds.update({each.name: each.data_type for each in inferred.initializer})
    editor = OnnxEditor(model)
    for node in [each for each in editor.nodes if each.op_type == "Cast"]:
        kind = kinds.get(node.input[0])
        if not any(each.name == "to" and each.i == types.FLOAT for each in node.attribute):
            continue
        result = str(node.output[0])
        if kind == types.BOOL:
            choices = [
                editor.add_constant(f"{result}/{name}", np.array(value, np.float32))
                for name, value in (("one", 1), ("zero", 0))
            ]
            editor.remove(node)
            editor.add_node("Where", [node.input[0], *choices], result)
        elif kind in (types.INT8, types.UINT8):
            node.input[0] = editor.add_node("Cast", [node.input[0]], f"{result}/int32", to=types.INT32)
    return editor.model()
