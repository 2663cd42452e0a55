"""Barriers where the quantizers of a model stand, so that TensorFlow's converter folds nothing across them.

The twin has no quantizers, and the converter knows algebra: a bias in front of a dense layer goes through its weights
into its bias, and a scale into its weights. That is right in float, and wrong once the integers of both layers are put
back. So a maximum with the least float stands in each of these places, which changes no value, and which no rule of the
converter's knows. They are taken out again before the integers come in.
"""

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.export.plan import ExportPlan
from amct_tensorflow.export.tflite_editor import TfliteEditor
from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView, full_tensor_name

_LEAST = np.array(np.finfo(np.float32).min)


def with_barriers(plan: ExportPlan) -> GraphDef:
    """Returns the twin of a plan with a barrier on every tensor that is to be quantized."""
    editor = GraphEditor(GraphView(plan.twin))
    barriers: dict[str, str] = {}
    for name, layer in plan.quantized_layers.items():
        index = layer.op_type.data_input
        data = editor.node(name).input[index]
        key = full_tensor_name(data)
        if key not in barriers:
            barrier = editor.unique_name(f"{layer.quantizer}/barrier")
            least = editor.add(make_const(editor.unique_name(f"{barrier}/least"), _LEAST), like=name)
            barriers[key] = editor.add(make_node(barrier, "Maximum", [data, least], T=tf.float32), like=name)
        editor.replace_input(name, index, barriers[key])
    return editor.graph_def_for(plan.outputs)


def remove_barriers(editor: TfliteEditor) -> None:
    """Takes the barriers out of a converted model."""
    for operator in list(editor.operators):
        if editor.op_type(operator) == "MAXIMUM":
            data, least = (int(index) for index in operator.inputs)
            if editor.constant(least) == _LEAST.tobytes():
                editor.bypass(operator, data)
