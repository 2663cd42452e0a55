"""Removes activations in front of quantizers that clip to the same range themselves.

With offset -128 a quantizer yields ``rint(x * scale)`` limited to [0, 255]. It makes the same integers of ``x`` as of
``Relu(x)``, and as of ``Relu6(x)`` if it has reached 255 at 6, since rounding is monotonic. Without the activation, the
dequantizer before it stands next to the quantizer, and TensorFlow multiplies by the product of their factors: two
passes over memory remain of four. (Spec section 9 names the weaker form, Relu6 to Relu, for the same reason.)
"""

from collections.abc import Collection, Mapping

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.names import FusedName, QuantizedName
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import const_value, parse_tensor_name
from amct_tensorflow.ops.clips import Clip
from amct_tensorflow.ops.effects import as_clip
from amct_tensorflow.quantize.quantized.ascend_ops import QUANT
from amct_tensorflow.quantize.quantized.quantized_layer import read_quantizer


def absorb_activations(
    editor: GraphEditor, quantizers: Collection[QuantizedName], outputs: Collection[str]
) -> dict[QuantizedName, tuple[FusedName, ...]]:
    """Makes quantizers read the input of activations that they repeat.

    Args:
        editor: the graph.
        quantizers: names of its AscendQuant nodes.
        outputs: nodes whose own value is requested.

    Returns:
        Per changed quantizer, the activations that it replaces, in order.
    """
    absorbed: dict[QuantizedName, tuple[FusedName, ...]] = {}
    while True:
        readers = editor.readers(outputs)
        found: dict[QuantizedName, tuple[FusedName, str]] = {}
        for name in quantizers:
            activation = _source(editor, name, outputs)
            clip = None if activation.name in outputs else as_clip(activation, lambda text: _constant(editor, text))
            if clip is not None and all(
                _repeats(reader, clip[0]) for reader in _readers(editor, readers, activation.name, outputs)
            ):
                found[name] = FusedName(activation.name), clip[1]
        if not found:
            return absorbed
        for name, (activation_name, source) in found.items():
            editor.replace_input(name, 0, source)
            absorbed[name] = (activation_name, *absorbed.get(name, ()))


def _constant(editor: GraphEditor, text: str) -> np.ndarray | None:
    node = editor.node(parse_tensor_name(text).node)
    return const_value(node) if node.op == "Const" else None


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


def _repeats(reader: NodeDef, clip: Clip) -> bool:
    """Tells whether a reader is a quantizer whose integers a clip does not change."""
    return reader.op == QUANT and len(reader.input) == 1 and read_quantizer(reader).grid.repeats(clip)
