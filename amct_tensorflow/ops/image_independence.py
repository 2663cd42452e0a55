"""Tells from a graph alone that it computes every image of a batch by itself, so that parts of the batch do as well."""

from collections.abc import Collection

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, data_inputs, full_tensor_name, parse_tensor_name, upstream
from amct_tensorflow.ops.op_table import trait
from amct_tensorflow.ops.per_image import PerImage
from amct_tensorflow.ops.varying import yields_own_data


def computes_each_image_alone(view: GraphView, sources: Collection[str], tensors: Collection[str]) -> bool:
    """Tells whether each of some tensors has a value per image that is fed, which follows from that image alone.

    It may be so although this denies it: of few op types it is known, and some shapes only a run tells.

    Args:
        view: the graph, with its shapes.
        sources: the full names of the tensors that are fed, each with all images along its first axis.
        tensors: the full names of what is computed from them.
    """
    if not all(view.shape(source) for source in sources):
        return False
    counting = dict.fromkeys(sources, True)  # per tensor whether its first axis counts images, where that is known
    wanted = upstream(view.nodes, {parse_tensor_name(tensor).node for tensor in tensors})
    for node in view.topological():
        if node.name in wanted and (found := _counts_images(view, node, counting)) is not None:
            counting.setdefault(f"{node.name}:0", found)
    return all(counting.get(tensor, False) for tensor in tensors)


def _counts_images(view: GraphView, node: NodeDef, counting: dict[str, bool]) -> bool | None:
    """Tells whether the first axis of what a node yields first counts images; None if that is not known."""
    read = [counting.get(full_tensor_name(text)) for text in data_inputs(node.input)]
    known = [each for each in read if each is not None]
    if len(known) < len(read):
        return None
    if not any(known):
        return None if yields_own_data(node, view.graph_def.library) else False
    rule = trait(node.op, PerImage)
    return True if rule is not None and rule.holds(view, node, known) else None
