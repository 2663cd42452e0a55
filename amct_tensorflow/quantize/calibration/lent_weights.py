"""Lends a large model its weights while it is calibrated, so that TensorFlow does not copy them again and again.

    Const --> its readers      becomes      Const
                                            PyFunc --> its readers

A session optimizes its graph before it runs it the first time, and most of the twenty steps of that copy all constants:
of a network of 90 MB this takes as long as four runs of a batch, and half a GB. A calibration runs few batches. So what
reads large constants reads the same values from here, where nothing copies them. The constants keep their names and
values, and what the model computes stays the same but for last digits, as TensorFlow arranges constants for its
products.
"""

import math
from collections.abc import Collection

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.names import OriginalName
from amct_tensorflow.graph.view import NamedGraph, attribute, const_value
from amct_tensorflow.model.model_file import CALIBRATION_SCOPE

# Below this a model is copied sooner than edited; smaller constants of a larger one are not worth an edge.
_LEAST_BYTES = 1 << 26
_LEAST_BYTES_OF_ONE = 1 << 16


class LentWeights:
    """The large constants of a caller's graph."""

    def __init__(self, graph: tf.Graph, view: NamedGraph[OriginalName], needed: Collection[OriginalName]) -> None:
        """Edits the graph if it is large.

        Args:
            graph: the caller's graph.
            view: its nodes before calibration added any.
            needed: the nodes that the caller runs.
        """
        sizes = {name: _bytes(view.nodes[name]) for name in view.nodes if name in needed}
        names = [name for name, size in sizes.items() if size >= _LEAST_BYTES_OF_ONE]
        if sum(sizes[name] for name in names) < _LEAST_BYTES:
            return
        self._constants = [graph.get_operation_by_name(name) for name in names]
        self._values: list[np.ndarray] | None = None
        self._keeps = True
        types = [constant.outputs[0].dtype for constant in self._constants]
        with (
            graph.as_default(),
            graph.device("/CPU:0"),
            tf.name_scope(f"{CALIBRATION_SCOPE}/"),
            graph.control_dependencies(None),
        ):
            lent = tf.numpy_function(self._lend, [], types)
        for name, constant, tensor in zip(names, self._constants, lent, strict=True):
            tensor.set_shape(constant.outputs[0].shape)
            for edge in view.consumers(name):
                if not view.is_control(edge) and edge.node.name in needed:
                    _read(graph.get_operation_by_name(edge.node.name), edge.input_index, constant, tensor)

    def take_back(self) -> None:
        """Frees the memory; who runs the graph once more is lent the constants anew."""
        self._values, self._keeps = None, False

    def _lend(self) -> list[np.ndarray]:
        """Returns the values, which are held from the first run to the last one that counts."""
        values = self._values or [const_value(constant.node_def) for constant in self._constants]
        self._values = values if self._keeps else None
        return values


def _bytes(node: NodeDef) -> int:
    """Returns how many bytes a constant of floats takes; 0 of one in a loop or branch, and of any other node."""
    if node.op != "Const" or node.input:
        return 0
    dtype = tf.dtypes.as_dtype(attribute(node, "dtype").type)
    elements = math.prod(axis.size for axis in attribute(node, "value").tensor.tensor_shape.dim)
    return elements * int(dtype.size) if dtype.is_floating else 0


def _read(reader: tf.Operation, index: int, constant: tf.Operation, lent: tf.Tensor) -> None:
    """Makes a node read what is lent in place of a constant, or of what an earlier calibration has lent."""
    read = reader.inputs[index].op
    if read is constant or (read.type == lent.op.type and read.name.startswith(f"{CALIBRATION_SCOPE}/")):
        # TensorFlow has no public way to change an edge of a live graph.
        reader._update_input(index, lent)
