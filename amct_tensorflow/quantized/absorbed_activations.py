"""Leaves out the activation in front of a quantizer that clips to the same range itself.

With offset -128 a quantizer yields ``rint(x * scale)`` limited to [0, 255]. It makes the same integers of ``x`` as of
``Relu(x)``, and as of ``Relu6(x)`` if it has reached 255 at 6, since rounding is monotonic. Without the activation the
factors of the dequantizer before it and of the quantizer meet, and TensorFlow multiplies by their product: of four
passes over memory two are left. (Spec section 9 names the weaker form, Relu6 to Relu, for the same reason.)
"""

from collections.abc import Collection, Mapping

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import attribute, parse_tensor_name
from amct_tensorflow.quantized.ascend_ops import QUANT

_HIGHEST = 255.0
_BOUNDS = {"Relu": np.inf, "Relu6": 6.0}


def absorb_activations(editor: GraphEditor, quantizers: Collection[str], outputs: Collection[str]) -> dict[str, str]:
    """Makes quantizers read the input of activations that they repeat.

    Args:
        editor: the graph.
        quantizers: names of its AscendQuant nodes.
        outputs: nodes whose own value is requested.

    Returns:
        Per quantizer that was changed, the activation that it now stands for as well.
    """
    readers = editor.readers(outputs)
    absorbed = {}
    for name in quantizers:
        activation = _source(editor, name, outputs)
        if activation.op not in _BOUNDS or activation.name in outputs:
            continue
        if all(_repeats(reader, activation) for reader in _readers(editor, readers, activation.name, outputs)):
            absorbed[name] = str(activation.name)
    for name, activation_name in absorbed.items():
        editor.replace_input(name, 0, editor.node(activation_name).input[0])
    return absorbed


def _source(editor: GraphEditor, quantizer: str, outputs: Collection[str]) -> NodeDef:
    """Returns the node that a quantizer reads, seen through Identity nodes."""
    node = editor.node(parse_tensor_name(editor.node(quantizer).input[0]).node)
    while _passes_on(node, outputs):
        node = editor.node(parse_tensor_name(node.input[0]).node)
    return node


def _readers(
    editor: GraphEditor, readers: Mapping[str, Collection[str]], name: str, outputs: Collection[str]
) -> list[NodeDef]:
    """Returns the nodes that read node ``name``, seen through Identity nodes."""
    found: list[NodeDef] = []
    waiting = [name]
    while waiting:
        for reader in map(editor.node, readers.get(waiting.pop(), ())):
            if _passes_on(reader, outputs):
                waiting.append(str(reader.name))
            else:
                found.append(reader)
    return found


def _passes_on(node: NodeDef, outputs: Collection[str]) -> bool:
    return node.op == "Identity" and len(node.input) == 1 and node.name not in outputs


def _repeats(reader: NodeDef, activation: NodeDef) -> bool:
    """Tells whether a reader is a quantizer that the activation makes no difference to."""
    if reader.op != QUANT or len(reader.input) != 1 or attribute(reader, "offset").f != -128:
        return False
    bound = np.float32(_BOUNDS[activation.op]) * np.float32(attribute(reader, "scale").f)
    return bool(np.rint(bound) >= _HIGHEST)
