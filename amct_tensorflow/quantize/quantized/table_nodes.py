"""Stores a table in int8: its rows are looked up as integers, and multiplied by their scales, in plain ops.

    float table --> Gather(., indices) --> readers

becomes

    int8 table  --> Gather(., indices) --> Cast --> Mul --> readers
    scales      --> Gather(., indices) --------------^

The last node takes the name of the lookup. The product is computed in float32, as the scales are; a table of another
type gets a Cast behind it. Each row has a scale of its own,

    q[r] = rint(w[r] / s[r]),  s[r] = max |w[r]| / 127

which costs 4 bytes and clips no value. A scale with the least squared error gains nothing that can be measured: rows
are short, and a value near their ends is not rare.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView, attribute
from amct_tensorflow.model.tables import Table, table_values

_TABLE, _SCALES = "table", "scales"
_LARGEST = 127
# Smaller numbers lose digits, and kernels may take them for 0.
_SMALLEST_SCALE = np.finfo(np.float32).tiny


def quantize_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantizes the rows of a table; equal tables give equal bytes on every machine.

    Args:
        table: finite floats, [rows, ...].

    Returns:
        Integers, int8 in the shape of the table, and scales, float32 [rows, 1, ...], which broadcast against what is
        looked up. A row of zeros has the scale 1.
    """
    axes = tuple(range(1, table.ndim))
    largest = np.max(np.abs(table), axis=axes, keepdims=True, initial=0).astype(np.float64)
    scales = (largest / _LARGEST).astype(np.float32)
    scales = np.where(scales >= _SMALLEST_SCALE, scales, np.float32(1))
    integers = np.empty(table.shape, np.int8)
    # In parts, since the table of a language model is large, and float64 takes twice as much.
    for part in np.array_split(np.arange(len(table)), max(1, table.size >> 20)):
        rounded = np.rint(table[part].astype(np.float64) / scales[part].astype(np.float64))
        integers[part] = np.clip(rounded, -_LARGEST, _LARGEST)
    return integers, scales


def compress_table(editor: GraphEditor, view: GraphView, table: Table, insert: Callable[[NodeDef, str], str]) -> None:
    """Stores a table in int8; it is stored once, however many nodes look it up.

    Args:
        editor: the graph under edit.
        view: the graph before.
        table: the table, which fits.
        insert: adds a node on the device of another one, and returns its name.
    """
    integers, scales = quantize_rows(np.asarray(table_values(view, table)))
    scope = editor.unique_scope(f"{table.name}/row_quant", [_TABLE, _SCALES])
    stored = insert(make_const(f"{scope}/{_TABLE}", integers), table.name)
    steps = insert(make_const(f"{scope}/{_SCALES}", scales), table.name)
    for lookup in table.lookups:
        _look_up(editor, editor.node(lookup), stored, steps, insert)
    for name in (table.constant, *table.path):  # or the floats would stay
        editor.replace_waits(name, ())


def _look_up(
    editor: GraphEditor, lookup: NodeDef, integers: str, scales: str, insert: Callable[[NodeDef, str], str]
) -> None:
    """Puts the product of looked up integers and scales in the place of a node that looks up floats."""
    name = str(lookup.name)
    found = {
        leaf: _copy(lookup, editor.unique_name(f"{name}/{leaf}"), table, dtype)
        for leaf, table, dtype in (("integers", integers, tf.int8), ("steps", scales, tf.float32))
    }
    rows = insert(found["integers"], name)
    floats = insert(make_node(editor.unique_name(f"{name}/Cast"), "Cast", [rows], SrcT=tf.int8, DstT=tf.float32), name)
    factors = [floats, insert(found["steps"], name)]
    dtype = tf.dtypes.as_dtype(attribute(lookup, "Tparams").type)
    if dtype == tf.float32:
        product = make_node(name, "Mul", factors, T=tf.float32)
    else:
        inner = insert(make_node(editor.unique_name(f"{name}/Mul"), "Mul", factors, T=tf.float32), name)
        product = make_node(name, "Cast", [inner], SrcT=tf.float32, DstT=dtype)
    product.input.extend(text for text in lookup.input if text.startswith("^"))
    editor.replace_node(product)


def _copy(lookup: NodeDef, name: str, table: str, dtype: tf.DType) -> NodeDef:
    """Returns a node that looks the same rows up in another table."""
    node = NodeDef()
    node.CopyFrom(lookup)
    node.name = name
    node.input[0] = table
    node.attr["Tparams"].type = dtype.as_datatype_enum
    return node
