"""Makes the graph of a quantized model in which TensorFlow Lite computes the parts that take less time there."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.graph.names import QuantizedName
from amct_tensorflow.graph.nodes import make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.search.integers.kernel_layer import KernelLayer
from amct_tensorflow.search.lite.lite_kernel import LiteKernel, node_of
from amct_tensorflow.search.lite.lite_region import LiteRegion, find_regions
from amct_tensorflow.search.lite.lite_translation import translate


@dataclass(frozen=True, eq=False)
class LiteExecution:
    """A graph that runs as long as this is kept.

    Attributes:
        graph_def: the graph.
        layers: the layers that TensorFlow Lite computes.
        kept: what keeps its kernels callable.
    """

    graph_def: GraphDef
    layers: frozenset[QuantizedName]
    kept: tuple[object, ...]


def lite_execution(
    view: GraphView, layers: Mapping[QuantizedName, KernelLayer], outputs: Collection[str]
) -> LiteExecution:
    """Returns the graph in which some layers run in TensorFlow Lite.

    Args:
        view: the quantized model; knows the shapes of what quantizers read, as far as they are known.
        layers: the layers that can be computed in integers, by name.
        outputs: nodes whose values are requested; they keep their names.
    """
    editor, regions = GraphEditor(view), find_regions(view, layers, outputs)
    kept = [_replace(view, editor, region, outputs) for region in regions]
    computed = frozenset(layer.name for region in regions for layer in region.layers.values())
    return LiteExecution(editor.graph_def_for(outputs), computed, tuple(kept))


def _replace(view: GraphView, editor: GraphEditor, region: LiteRegion, outputs: Collection[str]) -> object:
    """Puts a kernel in the place of a part; returns what keeps the kernel."""
    kernel = LiteKernel(translate(view, region, outputs))
    node, kept = node_of(kernel, len(region.inputs), len(region.outputs))
    owner = region.outputs[0]
    node.name = editor.unique_name(f"{owner}/in_lite")
    node.input.extend(region.inputs)
    editor.add(node, like=owner)
    # As in the simulation, TensorFlow knows no shapes behind a dequantizer: it would fuse floats by them, and round
    # otherwise.
    for port, name in enumerate(region.outputs):
        value = f"{node.name}:{port}"
        if region.yields_sums(name):
            editor.replace_input(name, 0, value)
        else:
            editor.replace_node(make_node(name, "Identity", [value], T=tf.float32))
    return kept
