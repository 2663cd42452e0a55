"""Running the float model again, from tensors that were kept in the caller's session.

The caller's graph is what the caller wrote; what is calibrated is that graph prepared and fused, in which layers may
stand that the caller's graph hides in a function. So the caller's session yields only the data, and everything is
observed here, in the very form that is quantized.
"""

from collections.abc import Collection, Iterable, Mapping

import tensorflow as tf

from amct_tensorflow.graph.graph_runner import GraphRunner
from amct_tensorflow.graph.names import FusedName
from amct_tensorflow.graph.rewrite import subgraph
from amct_tensorflow.graph.view import upstream
from amct_tensorflow.graph.weights import take_weights_out
from amct_tensorflow.model.fusion import FusedGraph
from amct_tensorflow.quantize.quantized.builder import FLOAT_SCOPE

# While one of them looks at values, the other computes the next ones, or looks at others.
_THREADS = 2


class Replay(GraphRunner):
    """The fused float graph, to which each stage of a calibration adds its observers.

    The nodes of the float model stand under ``FLOAT_SCOPE``. Its weights are fed: TensorFlow would copy constants for
    each stage again.
    """

    def __init__(self, fused: FusedGraph, needed: Collection[str], sources: Mapping[str, tf.Tensor]) -> None:
        """Imports the float graph.

        Args:
            fused: the float graph after fusion.
            needed: the nodes that are looked at.
            sources: the tensors of the caller's graph from which those follow, by full name.
        """
        # The replay runs inside a call from the caller's session, whose threads may all be taken.
        super().__init__(tf.Graph(), sources, own_threads=_THREADS)
        names = upstream(fused.view.nodes, map(FusedName, needed))
        rest, weights = take_weights_out(fused.graph_def, names)
        self.import_behind(subgraph(rest, needed), FLOAT_SCOPE)
        self.weights = {f"{FLOAT_SCOPE}/{name}:0": values for name, values in weights.items()}

    def tensor(self, name: str) -> tf.Tensor:
        """Returns a tensor of the float model by its full name."""
        if name in self.sources:
            return self.sources[name]
        return self.graph.get_tensor_by_name(f"{FLOAT_SCOPE}/{name}")

    def observed(self, inputs: Iterable[str], layers: Iterable[str]) -> list[tf.Tensor]:
        """Returns, each once, tensors by their full names, and what layers of the float model yield."""
        return [self.tensor(name) for name in dict.fromkeys((*inputs, *(f"{name}:0" for name in layers)))]

    def let_wait(self, node: str, operation: tf.Operation) -> None:
        """Makes a node of the float model wait for an operation, so that few tensors are alive at a time."""
        self.close()  # a session does not notice edges that are added to what it has run
        # TensorFlow has no public way to add an edge to a live graph.
        self.graph.get_operation_by_name(f"{FLOAT_SCOPE}/{node}")._add_control_input(operation)
