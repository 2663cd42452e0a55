"""Lets convolutions pad nothing whose strides skip the end of an axis, as XNNPACK would yield zeros for them.

It does where the padding is "SAME" and the last place of the filter ends in front of the data's end
(``findings/xnnpack_convolves_to_zeros_where_strides_skip_the_end.sh``). What is to be padded along the other axis is
padded in front of them. Elsewhere the converted model stays as it is.
"""

from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from amct_tensorflow.export.tflite.tflite_editor import TfliteEditor
from amct_tensorflow.ops.sliding import beyond

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def pad_in_front_of_long_strides(editor: TfliteEditor) -> None:
    """Takes the padding out of these convolutions of a converted model, which is in floats still."""
    for operator in list(editor.operators):
        if editor.op_type(operator) in _CONVOLUTIONS and operator.builtinOptions.padding == schema.Padding.SAME:
            missing = _missing(editor, operator)
            if min(missing) < 0:
                operator.builtinOptions.padding = schema.Padding.VALID
                around = [(0, 0), *((total // 2, total - total // 2) for total in map(_positive, missing)), (0, 0)]
                data, *others = operator.inputs
                operator.inputs = [editor.add_zeros(int(data), np.array(around, np.int32)), *others]


def _missing(editor: TfliteEditor, operator: Any) -> list[int]:
    """Returns how many places the filter reaches beyond height and width; below 0, how many it does not reach."""
    options, (data, filters) = operator.builtinOptions, (editor.tensor(int(each)) for each in operator.inputs[:2])
    strides, dilations = (options.strideH, options.strideW), (options.dilationHFactor, options.dilationWFactor)
    return [
        beyond(int(length), (int(size) - 1) * dilation + 1, stride)
        for length, size, stride, dilation in zip(data.shape[1:3], filters.shape[1:3], strides, dilations, strict=True)
    ]


def _positive(number: int) -> int:
    return max(number, 0)
