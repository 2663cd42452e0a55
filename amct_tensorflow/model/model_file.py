"""Reads and imports a model, and refuses one that cannot be quantized."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.view import GraphView, parse_tensor_name
from amct_tensorflow.model.loading.known_ops import why_not_importable
from amct_tensorflow.model.loading.load import load_frozen
from amct_tensorflow.ops import has, trait
from amct_tensorflow.ops.traits import FakeQuantizer, Quantized

# What calibration inserts into the caller's graph stands in this scope.
CALIBRATION_SCOPE = "amct_calibration"


def read_model(path: str | Path) -> GraphView:
    """Reads a model in any of its forms.

    Args:
        path: as for ``load_frozen``.

    Returns:
        The frozen graph, indexed; it has at least one node, unique names, and no dangling input.

    Raises:
        ModelNotFoundError: there is nothing.
        ModelError: there is no model, or one that cannot be frozen.
    """
    return GraphView(load_frozen(path).graph_def)


def import_graph(graph_def: GraphDef, source: str | Path) -> tf.Graph:
    """Imports a GraphDef into a fresh graph, so that each caller may add nodes of its own.

    Raises:
        ModelError: TensorFlow refuses the graph; ``source`` names it in the message.
    """
    graph = tf.Graph()
    imported = GraphDef()
    imported.CopyFrom(graph_def)  # TensorFlow adds the attributes that are left out because they have their default
    with graph.as_default():
        try:
            tf.import_graph_def(imported, name="")
        except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
            reason = why_not_importable(imported) or f"{error} Freeze it again, for this version of TensorFlow."
            raise ModelError(f"TensorFlow cannot import {source}: {reason}") from error
    return graph


def load_graph(model_file: str | Path) -> tf.Graph:
    """Reads a model into a fresh graph.

    Args:
        model_file: as for ``load_frozen``.

    Raises:
        ModelNotFoundError: there is nothing.
        ModelError: there is no model, or one that cannot be frozen.
    """
    return import_graph(read_model(model_file).graph_def, model_file)


def check_outputs(
    view: GraphView, outputs: Sequence[str], source: str | Path, known: Mapping[str, str] | None = None
) -> None:
    """Checks that every requested output is a node of the model.

    Args:
        view: the model.
        outputs: names of operators.
        source: what messages call the model.
        known: the model's own names of its outputs, by operator, as far as its form tells them.

    Raises:
        ModelError: one is not; the message suggests the outputs that are known, or similar names.
    """
    for name in outputs:
        if name in view.nodes:
            continue
        if parse_tensor_name(name).node in view.nodes:
            raise ModelError(f"Output {name!r} is a tensor name; give the operator {parse_tensor_name(name).node!r}.")
        similar = _ends_of_scope(view, name) or difflib.get_close_matches(name, view.nodes, n=3)
        hint = f" Did you mean {', '.join(map(repr, similar))}?" if similar else ""
        if known:
            hint = f" Its outputs are {', '.join(f'{operator!r} ({label})' for operator, label in known.items())}."
        raise ModelError(f"Output {name!r} is not a node of {source}.{hint} Give operator names without ':0'.")


def _ends_of_scope(view: GraphView, scope: str) -> list[str]:
    """Returns the first few nodes of a scope that no other node of it reads, constants left out."""
    inside = {name for name in view.nodes if name.startswith(f"{scope}/") and view.nodes[name].op != "Const"}
    ends = (name for name in inside if not any(edge.node.name in inside for edge in view.consumers(name)))
    return sorted(ends)[:3]


def check_not_quantized(view: GraphView, source: str | Path) -> None:
    """Refuses a model that is quantized, or being calibrated, already.

    Raises:
        ModelError: it holds one of the ops of spec section 4, a function of such a name, or what calibration inserts.
    """
    for node in view.nodes.values():
        if node.name.startswith(f"{CALIBRATION_SCOPE}/"):
            raise ModelError(
                f"Node {node.name!r} shows that {source} is being calibrated already. Load the model again for another "
                "calibration."
            )
        if has(node.op, Quantized):
            raise ModelError(
                f"Node {node.name!r} ({node.op}) shows that {source} is quantized already. Give the original model."
            )
    for function in view.graph_def.library.function:
        quantized = trait(function.signature.name, Quantized)
        if quantized is not None and quantized.is_custom:
            raise ModelError(
                f"The function library of {source} defines {function.signature.name!r}, a name that the quantized "
                "model needs for itself. Give the original float model."
            )


def check_not_fake_quantized(view: GraphView, source: str | Path) -> None:
    """Refuses a model that was trained for quantization.

    Raises:
        ModelError: it fakes quantization.
    """
    for node in view.nodes.values():
        if has(node.op, FakeQuantizer):
            raise ModelError(
                f"Node {node.name!r} ({node.op}) shows that {source} was trained for quantization: it holds ranges of "
                "its own, which a calibration would contradict. Call convert_qat_model, or give the float model "
                "without them."
            )
