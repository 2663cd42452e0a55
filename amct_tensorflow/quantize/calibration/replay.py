"""Running the float model again, from tensors that were kept in the caller's session.

The caller's graph is what the caller wrote; what is calibrated is that graph prepared and fused, in which layers may
stand that the caller's graph hides in a function. So the caller's session yields only the data, and everything is
observed here, in the very form that is quantized.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.errors import AmctError
from amct_tensorflow.graph.rewrite import subgraph
from amct_tensorflow.graph.session_options import session_options
from amct_tensorflow.graph.view import full_tensor_name, parse_tensor_name
from amct_tensorflow.model.fusion import FusedGraph
from amct_tensorflow.quantize.quantized.builder import FLOAT_SCOPE

Batch: TypeAlias = Mapping[str, np.ndarray]


class Replay:
    """The fused float graph in a session of its own, to which each stage of a calibration adds what it looks with.

    Attributes:
        graph: the graph; the nodes of the float model stand under ``FLOAT_SCOPE``.
        error: what a look raised inside TensorFlow, which would turn it into text; else None.
    """

    def __init__(self, fused: FusedGraph, needed: Collection[str], sources: Mapping[str, tf.Tensor]) -> None:
        """Imports the float graph.

        Args:
            fused: the float graph after fusion.
            needed: the nodes that are looked at.
            sources: the tensors of the caller's graph from which those follow, by full name.
        """
        self.graph = tf.Graph()
        self.error: AmctError | None = None
        with self.graph.as_default():
            self._sources = {name: _stand_in(tensor) for name, tensor in sources.items()}
            self._takes_any_number = all(map(_is_of_any_number, sources.values()))
            part = subgraph(fused.graph_def, needed)
            tf.import_graph_def(part, name=FLOAT_SCOPE, input_map=_present(self._sources, part))
        self._session: tf.compat.v1.Session | None = None

    def tensor(self, name: str) -> tf.Tensor:
        """Returns a tensor of the float model by its full name."""
        if name in self._sources:
            return self._sources[name]
        return self.graph.get_tensor_by_name(f"{FLOAT_SCOPE}/{name}")

    def look_at(
        self, tensors: Sequence[tf.Tensor], look: Callable[..., None], after: Sequence[tf.Operation] = ()
    ) -> tf.Operation:
        """Adds an operation that looks at the values of tensors.

        Args:
            tensors: of the replay's graph.
            look: is called with their values, which it must neither keep nor change.
            after: operations to wait for.
        """

        def tap(*values: np.ndarray) -> np.int32:
            try:
                look(*values)
            except AmctError as error:
                self.error = error
                raise
            return np.int32(0)

        with self.graph.as_default(), tf.device("/CPU:0"), tf.control_dependencies(after):
            return tf.numpy_function(tap, tensors, tf.int32).op

    def takes_any_number(self, tensors: Collection[str]) -> bool:
        """Tells whether the sources and ``tensors``, by full name, may belong to any number of images."""
        return self._takes_any_number and all(_is_of_any_number(self.tensor(name)) for name in tensors)

    def let_wait(self, node: str, operation: tf.Operation) -> None:
        """Makes a node of the float model wait for an operation, so that few tensors are alive at a time."""
        self.close()  # a session does not notice edges that are added to what it has run
        # TensorFlow has no public way to add an edge to a live graph.
        self.graph.get_operation_by_name(f"{FLOAT_SCOPE}/{node}")._add_control_input(operation)

    def run(self, operations: Sequence[tf.Operation], part: Batch) -> None:
        """Runs operations on a part of a batch.

        Raises:
            AmctError: what a look raised.
        """
        if self._session is None:
            # The replay runs inside a call from the caller's session, whose threads may all be taken. The calling
            # thread also has the memory at hand that the caller's session has just freed.
            options = session_options(self.graph, run_often=False, in_calling_thread=True)
            self._session = tf.compat.v1.Session(graph=self.graph, config=options)
        try:
            self._session.run(operations, {self._sources[name]: value for name, value in part.items()})
        except tf.errors.OpError:
            if self.error is not None:
                raise self.error from None
            raise

    def close(self) -> None:
        """Frees the session; ``run`` opens another."""
        if self._session is not None:
            self._session.close()
            self._session = None


def _stand_in(tensor: tf.Tensor) -> tf.Tensor:
    """Returns a placeholder for a tensor; its first axis counts images, whose number may change."""
    shape = tensor.shape
    return tf.compat.v1.placeholder(tensor.dtype, [None, *shape[1:]] if shape.rank else shape)


def _is_of_any_number(tensor: tf.Tensor) -> bool:
    """Tells whether a tensor may belong to any number of images: it does not if its first axis always is as long."""
    shape = tensor.shape
    return bool(shape.rank is None or shape.rank == 0 or shape[0] is None)


def _present(sources: Mapping[str, tf.Tensor], graph_def: GraphDef) -> dict[str, tf.Tensor]:
    """Returns what stands for the sources; ``import_graph_def`` refuses to map what nothing in the graph reads."""
    texts = {text for node in graph_def.node for text in node.input}
    read = {text if text.startswith("^") else full_tensor_name(text) for text in texts}
    waits = {f"^{parse_tensor_name(name).node}": tensor for name, tensor in sources.items()}
    return {name: tensor for name, tensor in {**sources, **waits}.items() if name in read}
