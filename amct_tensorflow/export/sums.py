"""Which sums between layers can be computed in 8 bits: residual Adds, whose operands and whose result are on grids.

A sum gets its grid by the rules of the outputs of layers. It is left in float where an operand is in float anyway, as
the output of a layer that was rolled back, and where no layer follows.
"""

from collections.abc import Collection, Mapping

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.export.output_grids import SUMS, Output, output_of
from amct_tensorflow.graph.view import GraphView


def find_sums(view: GraphView, layers: Mapping[str, Output], outputs: Collection[str]) -> dict[str, Output]:
    """Returns per sum what becomes of it, each after those that it adds.

    Args:
        view: the quantized model.
        layers: what becomes of the output of each layer.
        outputs: its output operators.
    """
    in_8_bits = {output.end for output in layers.values() if not output.is_final}
    found = {}
    for node in view.topological():
        if node.op in SUMS and in_8_bits.issuperset(_operands(view, node)):
            output = output_of(view, node.name, outputs)
            if not output.is_final:
                found[str(node.name)] = output
                in_8_bits.add(output.end)
    return found


def _operands(view: GraphView, node: NodeDef) -> list[str]:
    return [str(view.producer(tensor).name) for tensor in node.input[:2]]
