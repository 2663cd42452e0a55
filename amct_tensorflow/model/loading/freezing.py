"""Turns the variables of a model into constants."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from amct_tensorflow.errors import ModelError, first_line
from amct_tensorflow.model.loading.frozen_graph import FrozenModel
from amct_tensorflow.model.loading.reproducible import reproducible
from amct_tensorflow.ops import has, trait
from amct_tensorflow.ops.traits import Fed, Identity, RunsPython, RunState, WritesVariable

FREEZE_IT_YOURSELF = "Freeze it in the program that made it, as docs/guide/own_model.md shows, and give the .pb."
_EXPORT_WITHOUT_STATE = "Export it without lookup tables, queues, and variables that it writes to."


@dataclass(frozen=True, eq=False)
class Inference:
    """The inference function of a model.

    Attributes:
        function: a tf.ConcreteFunction.
        labels: the model's names of its outputs, in the order of the function's.
        owner: the object that keeps the variables alive.
    """

    function: Any
    labels: tuple[str, ...]
    owner: object


def freeze(inference: Inference, source: Path) -> FrozenModel:
    """Freezes the inference function of a model.

    Inputs and outputs keep their names in the function; TensorFlow 2 calls the latter ``Identity``, ``Identity_1``, ...

    Args:
        inference: the function.
        source: where the model is.

    Raises:
        ModelError: it holds state that cannot become a constant.
    """
    try:
        function = convert_variables_to_constants_v2(inference.function)
        graph_def = function.graph.as_graph_def()
    except Exception as error:  # whatever TensorFlow did not expect of the graph
        raise _refusal(inference.function, source, error) from error
    graph_def = reproducible(graph_def, [tensor.op.name for tensor in function.outputs])
    kept = {node.name for node in graph_def.node}
    check_stateless(function.graph, kept, source)
    check_complete(graph_def, source)
    inputs = {tensor.op.name: describe(tensor) for tensor in function.inputs if tensor.op.name in kept}
    names = [tensor.name.removesuffix(":0") for tensor in function.outputs]
    return FrozenModel(graph_def, source, True, inputs, dict(zip(names, inference.labels, strict=True)))


def writer_in(graph_def: GraphDef) -> NodeDef | None:
    """Returns a node of a graph, or of a function in it, that writes to a variable; None if there is none."""
    return next((node for node in _all_nodes(graph_def) if has(node.op, WritesVariable)), None)


def writes(source: Path, writer: NodeDef) -> ModelError:
    """Returns the error that says that a model writes to a variable."""
    return ModelError(
        f"Model {source} writes to a variable: node {writer.name!r} ({writer.op}). {_EXPORT_WITHOUT_STATE}"
    )


def _refusal(function: Any, source: Path, error: Exception) -> ModelError:
    """Returns why a function cannot be frozen: that it writes to variables, or else TensorFlow's reason."""
    writer = writer_in(function.graph.as_graph_def())
    if writer is not None:
        return writes(source, writer)
    return ModelError(f"Model {source} cannot be frozen ({first_line(error)}). {FREEZE_IT_YOURSELF}")


def check_stateless(graph: tf.Graph, names: Collection[str], source: Path) -> None:
    """Checks that no node of a frozen graph works on state: a variable that is written to, a table, a queue.

    The lists that each run fills anew are none.

    Raises:
        ModelError: one does.
    """
    operations = [op for op in graph.get_operations() if op.name in names]
    anew = _lists_of_runs(operations)
    stateful = [
        op for op in operations if _holds_state(each for each in (*op.inputs, *op.outputs) if each.name not in anew)
    ]
    if stateful:
        working = [op for op in stateful if not (has(op.type, Identity) or has(op.type, Fed))]
        op = next((op for op in working if op.inputs), next(iter(working), stateful[0]))
        raise ModelError(
            f"Model {source} holds state that cannot become a constant: node {op.name!r} ({op.type}) works on it. "
            f"{_EXPORT_WITHOUT_STATE}"
        )


def _lists_of_runs(operations: Iterable[tf.Operation]) -> set[str]:
    """Returns the names of the tensors that stand for a list that each run fills anew."""
    found: set[str] = set()
    for op in operations:
        made = trait(op.type, RunState)
        held = [each for each in op.inputs if _holds_state([each])]
        if (made is not None and made.makes) or (held and all(each.name in found for each in held)):
            found.update(each.name for each in op.outputs)
    return found


def check_complete(graph_def: GraphDef, source: Path) -> None:
    """Checks that a graph needs no Python function of the program that made it.

    Raises:
        ModelError: it does.
    """
    caller = next((node for node in _all_nodes(graph_def) if has(node.op, RunsPython)), None)
    if caller is not None:
        raise ModelError(
            f"Model {source} calls Python code that is not in it: node {caller.name!r} ({caller.op}). Export it with "
            "ops of TensorFlow in its place."
        )


def _all_nodes(graph_def: GraphDef) -> Iterator[NodeDef]:
    """Yields the nodes of a graph, and those of the functions in it."""
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def


def _holds_state(tensors: Iterable[tf.Tensor]) -> bool:
    return any(tensor.dtype == tf.resource or tensor.dtype._is_ref_dtype for tensor in tensors)


def describe(tensor: tf.Tensor) -> str:
    """Returns type and shape of a tensor."""
    shape = "of any shape" if tensor.shape.rank is None else str(tensor.shape.as_list())
    return f"{tensor.dtype.name} {shape}"
