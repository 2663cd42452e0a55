"""Which nodes of a quantized model compute a quantized layer."""

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, data_inputs
from amct_tensorflow.quantize.quantized import ascend_ops


def nodes_of_layer(view: GraphView, dequantizer: str) -> list[NodeDef]:
    """Returns the nodes between the AscendQuant and the AscendDequant of a layer, from the last to the layer itself.

    Args:
        view: the quantized model.
        dequantizer: the name of the AscendDequant.
    """
    found = [view.producer(view.nodes[dequantizer].input[0])]
    while quantizer_of(view, found[-1]) is None and data_inputs(found[-1].input):
        found.append(view.producer(found[-1].input[0]))
    return found


def quantizer_of(view: GraphView, node: NodeDef) -> NodeDef | None:
    """Returns the AscendQuant that a node reads; None if it reads none."""
    sources = map(view.producer, data_inputs(node.input))
    return next((source for source in sources if source.op == ascend_ops.QUANT), None)
