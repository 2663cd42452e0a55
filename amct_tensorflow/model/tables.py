"""Finds tables: constants whose rows are looked up, as those of an embedding, and says which can be stored in int8.

    Const [rows, ...] --> [Identity | Cast] --> Gather(., indices)

A lookup yields rows unchanged, so that the integers of a row and its scale can be looked up instead, and multiplied
behind it. That takes nothing of the speed, and a quarter of the file.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.names import LayerName, PreparedName
from amct_tensorflow.graph.view import Consumer, GraphView, attribute, const_value, stored_bytes
from amct_tensorflow.model.layers import control_flow_reason
from amct_tensorflow.ops import has, trait
from amct_tensorflow.ops.traits import ControlFlow, Conversion, Identity, Lookup

# Below this a table gains less than the nodes that bring its rows back are worth.
_LEAST_GAIN = 4096


@dataclass(frozen=True, eq=False)
class Table:
    """A constant of floats that is looked up.

    Attributes:
        name: the first node that looks it up; its key in config.json and in the record.
        op_type: the op type of that node.
        lookups: all nodes that look it up, in the order of the graph.
        constant: the node that holds it.
        path: the nodes between the constant and the lookups.
        dtype: the type of its numbers in the file.
        shape: its shape.
        float_bytes: how many bytes of numbers the file of the float model has for it.
        reason: why it cannot be stored in int8, as the rest of a sentence about it; None if it can.
    """

    name: LayerName
    op_type: str
    lookups: tuple[PreparedName, ...]
    constant: str
    path: frozenset[str]
    dtype: tf.DType
    shape: tuple[int, ...]
    float_bytes: int
    reason: str | None

    @property
    def int8_bytes(self) -> int:
        """How many bytes it takes in int8, with a float32 scale per row."""
        return math.prod(self.shape) + 4 * math.prod(self.shape[:1])

    @property
    def gain(self) -> int:
        """How many bytes int8 saves."""
        return self.float_bytes - self.int8_bytes

    @property
    def fits(self) -> bool:
        """Whether it can be stored in int8."""
        return self.reason is None


def find_tables(view: GraphView, outputs: Collection[str] = (), inside: Mapping[str, str] | None = None) -> list[Table]:
    """Finds the tables of a graph, in the order of their first lookups.

    Args:
        view: the graph.
        outputs: nodes whose own value is requested.
        inside: per node of an open function, why it cannot be changed.
    """
    found: dict[str, list[NodeDef]] = {}
    for node in view.graph_def.node:
        if has(node.op, Lookup):
            constant = _constant_behind(view, node)
            if constant is not None:
                found.setdefault(constant.name, []).append(node)
    return [_table(view, view.nodes[name], lookups, outputs, inside or {}) for name, lookups in found.items()]


def table_names(tables: Collection[Table]) -> dict[str, Table]:
    """Returns per name that a user's file may use for a table, the table: the names of all nodes that look it up."""
    return {str(name): table for table in tables for name in table.lookups}


def table_values(view: GraphView, table: Table) -> np.ndarray:
    """Returns the numbers of a table in its own type."""
    return const_value(view.nodes[table.constant])


def _constant_behind(view: GraphView, lookup: NodeDef) -> NodeDef | None:
    """Returns the constant of floats that a node looks up, perhaps behind nodes that pass it on; None without."""
    node, seen = view.producer(lookup.input[0]), set[str]()
    while _passes_on(node) and node.name not in seen:
        seen.add(node.name)
        node = view.producer(node.input[0])
    if node.op != "Const" or not tf.dtypes.as_dtype(attribute(node, "dtype").type).is_floating:
        return None
    return node


def _passes_on(node: NodeDef) -> bool:
    """Tells whether a node yields its first input, perhaps as floats of another type, or to a loop or branch."""
    if trait(node.op, ControlFlow) in (ControlFlow.ENTER, ControlFlow.SWITCH):
        return True
    if has(node.op, Conversion):
        return bool(tf.dtypes.as_dtype(attribute(node, "DstT").type).is_floating)
    identity = trait(node.op, Identity)
    return identity is not None and not identity.all_inputs


def _table(
    view: GraphView, constant: NodeDef, lookups: list[NodeDef], outputs: Collection[str], inside: Mapping[str, str]
) -> Table:
    tensor = attribute(constant, "value").tensor
    shape = tuple(int(dim.size) for dim in tensor.tensor_shape.dim)
    dtype = tf.dtypes.as_dtype(attribute(constant, "dtype").type)
    path, readers = _readers(view, constant.name)
    table = Table(
        name=LayerName(lookups[0].name),
        op_type=str(lookups[0].op),
        lookups=tuple(PreparedName(node.name) for node in lookups),
        constant=str(constant.name),
        path=frozenset(path),
        dtype=dtype,
        shape=shape,
        float_bytes=min(math.prod(shape) * dtype.size, stored_bytes(tensor)),
        reason=None,
    )
    reason = next((inside[name] for name in table.lookups if name in inside), None)
    return replace(table, reason=reason or _why_not(view, table, readers, outputs))


def _readers(view: GraphView, constant: str) -> tuple[set[str], list[Consumer]]:
    """Returns the nodes that pass a constant on, and the edges to all that read it."""
    path: set[str] = set()
    found: list[Consumer] = []
    waiting = [constant]
    while waiting:
        for edge in view.consumers(waiting.pop()):
            if view.is_control(edge):
                continue
            if _passes_on(edge.node):
                if edge.node.name not in path:
                    path.add(edge.node.name)
                    waiting.append(edge.node.name)
            else:
                found.append(edge)
    return path, found


def _why_not(view: GraphView, table: Table, readers: list[Consumer], outputs: Collection[str]) -> str | None:
    """Returns why a table cannot be stored in int8; None if it can."""
    for edge in readers:
        if not (has(edge.node.op, Lookup) and edge.input_index == 0):
            return f"{edge.node.name!r} ({edge.node.op}) reads it, too, and not by rows"
    for name in table.lookups:
        reason = _why_not_lookup(view, view.nodes[name], len(table.shape))
        if reason is not None:
            return reason
    kept = sorted({table.constant, *table.path} & set(outputs))
    if kept:
        return f"it is an output of the model, as {kept[0]!r}"
    if len(table.shape) < 2:
        return "a row is a single number, which needs no scale"
    if table.gain < _LEAST_GAIN:
        return f"it takes {table.float_bytes} bytes, of which int8 would save {max(table.gain, 0)}"
    return _why_not_values(table_values(view, table))


def _why_not_lookup(view: GraphView, node: NodeDef, rank: int) -> str | None:
    lookup = trait(node.op, Lookup)
    assert lookup is not None
    place = control_flow_reason(view, node)
    if place is not None:
        return place
    if lookup.by_coordinates:
        return f"{node.name!r} ({node.op}) looks up by coordinates, not by rows"
    if attribute(node, "batch_dims").i:
        return f"{node.name!r} looks up in each of several tables (batch_dims), and a scale belongs to a row of one"
    if lookup.axis_input is not None:
        axis = view.constant(node.input[lookup.axis_input])
        if axis is None:
            return f"a value in the graph says along which axis {node.name!r} looks up"
        if int(axis) not in (0, -rank):
            return f"{node.name!r} looks up along axis {int(axis)}, and a scale belongs to a row of the first one"
    return None


def _why_not_values(values: np.ndarray) -> str | None:
    """Returns why int8 does not have the values of a table; None if it has."""
    finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if finite.all():
        return None
    bad = int(np.argmin(finite))
    return f"its row {bad}{'' if (~finite).sum() == 1 else f' and {(~finite).sum() - 1} more'} hold NaN or Inf"
