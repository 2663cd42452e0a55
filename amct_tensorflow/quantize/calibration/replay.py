"""Running the float model again, from tensors that were kept in the caller's session.

The caller's graph is what the caller wrote; what is calibrated is that graph prepared and fused, in which layers may
stand that the caller's graph hides in a function. So the caller's session yields only the data, and everything is
observed here, in the very form that is quantized.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import tensorflow as tf

from amct_tensorflow.errors import CalibrationError
from amct_tensorflow.graph.batch_splitter import BatchSplitter
from amct_tensorflow.graph.graph_runner import GraphRunner, Look, last_of_chains
from amct_tensorflow.graph.names import FusedName
from amct_tensorflow.graph.rewrite import subgraph
from amct_tensorflow.graph.view import upstream
from amct_tensorflow.graph.weights import take_weights_out
from amct_tensorflow.model.fusion import FusedGraph
from amct_tensorflow.ops.image_independence import computes_each_image_alone
from amct_tensorflow.quantize.quantized.builder import FLOAT_SCOPE

# While one of them looks at values, the other computes the next ones, or looks at others.
_THREADS = 2
# What reads a tensor waits until the tensor before the last one has been looked at.
_LOOKS_BEHIND = 2


class Replay(GraphRunner):
    """The fused float graph, to which each stage of a calibration adds its observers.

    The nodes of the float model stand under ``FLOAT_SCOPE``. Its weights are fed: TensorFlow would copy constants for
    each stage again.

    Attributes:
        is_stopped: whether somebody has asked, from another thread, that nothing is run any more.
    """

    is_stopped = False

    def __init__(self, fused: FusedGraph, needed: Collection[str], sources: Mapping[str, tf.TensorSpec]) -> None:
        """Imports the float graph.

        Args:
            fused: the float graph after fusion.
            needed: the nodes that are looked at.
            sources: the tensors of the caller's graph from which those follow, by full name.
        """
        # The replay runs inside a call from the caller's session, whose threads may all be taken.
        super().__init__(tf.Graph(), sources, own_threads=_THREADS)
        names = upstream(fused.view.nodes, map(FusedName, needed))
        rest, weights = take_weights_out(fused.graph_def, names, fused.weights)
        self.import_behind(subgraph(rest, needed), FLOAT_SCOPE)
        self.weights = {f"{FLOAT_SCOPE}/{name}:0": values for name, values in weights.items()}
        self._fused = fused
        self._own_control_inputs: dict[tf.Operation, list[tf.Operation]] = {}  # of the nodes that wait

    def run(self, fetches: Any, feeds: Mapping[Any, Any] | None = None) -> Any:
        """Returns the values of fetches; see ``GraphRunner.run``.

        Raises:
            CalibrationError: it is stopped.
        """
        if self.is_stopped:
            raise CalibrationError("The calibration was stopped. Start again.")
        return super().run(fetches, feeds)

    def tensor(self, name: str) -> tf.Tensor:
        """Returns a tensor of the float model by its full name."""
        if name in self.sources:
            return self.sources[name]
        return self.graph.get_tensor_by_name(f"{FLOAT_SCOPE}/{name}")

    def splitter(self, inputs: Iterable[str], layers: Iterable[str]) -> BatchSplitter:
        """Returns what splits batches where layers then read and yield the same values.

        Args:
            inputs: what they read, by full names.
            layers: the layers.
        """
        names = dict.fromkeys((*inputs, *(f"{name}:0" for name in layers)))
        is_known = computes_each_image_alone(self._fused.view, self.sources, names)
        return BatchSplitter(self, list(map(self.tensor, names)), may_split=is_known)

    @cached_property
    def _order(self) -> Mapping[str, int]:
        """The places of operations in topological order; TensorFlow has what leaves a loop before what runs in it."""
        names = (f"{FLOAT_SCOPE}/{node.name}" for node in self._fused.view.topological())
        return {name: place for place, name in enumerate(names)}

    def look(self, looks: Sequence[Look]) -> list[tf.Operation]:
        """Adds the observers of a stage, in place of those of the stage before; returns the operations to run.

        The model would run far ahead of them, and hold all that they have not looked at yet. So its nodes wait for
        them: what reads a tensor, for observers of tensors in front of it in topological order.
        """
        self.look_no_more()
        first = -1  # sources, which wait for nothing
        added = self.observe_each(sorted(looks, key=lambda look: self._order.get(look.tensor.op.name, first)))
        for earlier, look in zip(added, list(added)[_LOOKS_BEHIND:], strict=False):
            for reader in look.tensor.consumers():
                if reader.name.startswith(f"{FLOAT_SCOPE}/"):
                    self._let_wait(reader, added[earlier])
        return last_of_chains(added)

    def let_wait(self, node: str, operation: tf.Operation) -> None:
        """Makes a node of the float model wait for an operation, until ``look_no_more``."""
        self._let_wait(self.graph.get_operation_by_name(f"{FLOAT_SCOPE}/{node}"), operation)

    def _let_wait(self, node: tf.Operation, operation: tf.Operation) -> None:
        self.close()  # a session does not notice edges that are added to what it has run
        self._own_control_inputs.setdefault(node, list(node.control_inputs))
        # TensorFlow has no public way to change the edges of a live graph.
        node._add_control_input(operation)

    def look_no_more(self) -> None:
        """Lets no node wait any more, so that what runs the model runs no observers of an earlier stage."""
        self.close()
        for node, own in self._own_control_inputs.items():
            node._remove_all_control_inputs()
            node._add_control_inputs(own)
        self._own_control_inputs.clear()
