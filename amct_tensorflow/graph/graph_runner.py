"""Runs a graph on kept batches.

Values are fetched, which copies them, or looked at while the graph runs. The first axis of fed tensors may count
images; ``BatchSplitter`` finds out whether it does.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tensorflow.python.eager import context  # there is no public way to ask what tf.config was told

from amct_tensorflow.errors import AmctError, DatasetError, first_line
from amct_tensorflow.graph.view import full_tensor_name, parse_tensor_name

# Values of tensors by full name.
Batch: TypeAlias = Mapping[str, np.ndarray]
_LEFT_OPEN = "_amct_session"


@dataclass(frozen=True, eq=False)
class Look:
    """An observer of a tensor.

    Attributes:
        tensor: of the graph.
        observer: called with its value, which it must neither keep nor change.
        chain: observers of the same chain are called one after the other.
    """

    tensor: tf.Tensor
    observer: Callable[..., None]
    chain: int = 0


class GraphRunner:
    """A session on a graph, opened by the first run; close it, or use it in a ``with`` statement.

    Attributes:
        graph: the graph.
        sources: per tensor of another graph, by full name, the placeholder in this one that stands for it.
        weights: what each run is fed besides its own values, by the full names of placeholders; see ``weights``.
    """

    def __init__(
        self,
        graph: tf.Graph,
        kept: Mapping[str, tf.TensorSpec] | None = None,
        *,
        run_often: bool = False,
        own_threads: int = 0,
    ) -> None:
        """Takes a graph, and adds placeholders to it.

        Args:
            graph: the graph.
            kept: what is known of tensors of another graph whose batches were kept, by full name; see
                ``import_behind``.
            run_often: as for ``session_options``.
            own_threads: likewise.
        """
        self.graph = graph
        self.weights: dict[str, np.ndarray] = {}
        self._run_often = run_often
        self._own_threads = own_threads
        tensors = kept or {}
        with graph.as_default():
            self.sources = {name: placeholder_for(tensor) for name, tensor in tensors.items()}
        self._takes_any_number = all(map(_is_of_any_number, tensors.values()))
        self._session: tf.compat.v1.Session | None = None
        self._copies: dict[str, tf.Tensor] = {}
        self._error: AmctError | None = None

    def __enter__(self) -> "GraphRunner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def import_behind(self, graph_def: GraphDef, scope: str, given: Mapping[str, tf.Tensor] | None = None) -> None:
        """Imports a graph, with sources in place of the tensors of their names.

        A node that waits for the node of such a tensor waits for its source.

        Args:
            graph_def: the graph.
            scope: the prefix of its names.
            given: tensors that replace sources, or other tensors of the graph.

        Raises:
            ValueError: TensorFlow does not take it.
        """
        waits = {f"^{parse_tensor_name(name).node}": source for name, source in self.sources.items()}
        texts = {text for node in graph_def.node for text in node.input}
        read = {text if text.startswith("^") else full_tensor_name(text) for text in texts}
        # import_graph_def refuses to map what nothing in the graph reads.
        mapped = {name: each for name, each in {**self.sources, **(given or {}), **waits}.items() if name in read}
        with self.graph.as_default():
            tf.import_graph_def(graph_def, name=scope, input_map=mapped)

    def takes_any_number(self, tensors: Collection[tf.Tensor]) -> bool:
        """Tells whether the kept tensors, and tensors of the graph, accept any number of images."""
        return self._takes_any_number and all(map(_is_of_any_number, tensors))

    def copy_of(self, tensor: tf.Tensor) -> tf.Tensor:
        """Returns a tensor with the value of another, which may be fed itself, or have no kernel for its layout."""
        if tensor.name not in self._copies:
            with self.graph.as_default(), self.graph.device(None), tf.control_dependencies(None):
                self._copies[tensor.name] = tf.identity(tensor)
        return self._copies[tensor.name]

    def observe(
        self, tensors: Sequence[tf.Tensor], observer: Callable[..., None], after: Sequence[tf.Operation] = ()
    ) -> tf.Operation:
        """Adds an operation that passes the values of tensors to an observer.

        Args:
            tensors: of the graph.
            observer: called with their values, which it must neither keep nor change.
            after: operations to wait for.
        """

        def tap(*values: np.ndarray) -> np.int32:
            try:
                observer(*values)
            except AmctError as error:
                self._error = self._error or error  # the first one, which TensorFlow would turn into text
                raise
            return np.int32(0)

        with self.graph.as_default(), tf.device("/CPU:0"), tf.control_dependencies(after):
            return tf.numpy_function(tap, tensors, tf.int32).op

    def look(self, looks: Sequence[Look]) -> list[tf.Operation]:
        """Adds observers; returns the operations to run, which are the last ones of the chains.

        Args:
            looks: in topological order of what they look at.
        """
        return last_of_chains(self.observe_each(looks))

    def observe_each(self, looks: Sequence[Look]) -> dict[Look, tf.Operation]:
        """Adds observers, each behind the one before it in its chain; returns their operations in the same order."""
        added: dict[Look, tf.Operation] = {}
        last: dict[int, tf.Operation] = {}
        for each in looks:
            before = [last[each.chain]] if each.chain in last else []
            added[each] = last[each.chain] = self.observe([each.tensor], each.observer, after=before)
        return added

    def look_no_more(self) -> None:
        """Lets the graph run without the observers of ``look``, which are left where nobody runs them."""

    def run(self, fetches: Any, feeds: Mapping[Any, Any] | None = None) -> Any:
        """Returns the values of fetches, in their structure; an operation has none.

        Args:
            fetches: tensors, operations or names of tensors, in any structure that a session takes.
            feeds: the fed values, by tensor, by the name of a source, or by that of a tensor.

        Raises:
            AmctError: the error of an observer.
            tf.errors.OpError: the graph cannot be run so.
            ValueError: a tensor cannot have such a value.
            TypeError: likewise.
        """
        if self._session is None:
            self._session = self._left_open() or self._opened()
        self._error = None
        given = {self.sources.get(key, key): each for key, each in (feeds or {}).items()}
        try:
            return self._session.run(fetches, {**self.weights, **given})
        except tf.errors.OpError:
            if self._error is not None:
                raise self._error from None
            raise

    def values(self, tensors: Iterable[str], feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the values of tensors, by full name, on a user's values; any tensor can be fed.

        Raises:
            DatasetError: TensorFlow refuses to run on such values.
        """
        fetches = {name: self.copy_of(self.graph.get_tensor_by_name(name)) for name in tensors}
        try:
            found: dict[str, np.ndarray] = self.run(fetches, feeds)
        except tf.errors.ResourceExhaustedError as error:
            raise DatasetError("There is not enough memory to compare on such batches. Give smaller ones.") from error
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise DatasetError(f"The model cannot be run on this data: {first_line(error)}") from error
        return found

    def _opened(self) -> tf.compat.v1.Session:
        options = session_options(self.graph, run_often=self._run_often, own_threads=self._own_threads)
        return tf.compat.v1.Session(graph=self.graph, config=options)

    def close(self) -> None:
        """Frees the session, and TensorFlow's graphs for each set of fetches; ``run`` opens another."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def leave_open(self) -> None:
        """Leaves the session to the next runner of this graph, for which TensorFlow need not optimize it again."""
        # The graph holds it, so that both are freed together.
        setattr(self.graph, _LEFT_OPEN, (self._run_often, self._own_threads, self._session))
        self._session = None

    def _left_open(self) -> tf.compat.v1.Session | None:
        """Returns the session that a runner with the same options has left, if any."""
        if not hasattr(self.graph, _LEFT_OPEN):
            return None
        *options, session = getattr(self.graph, _LEFT_OPEN)
        delattr(self.graph, _LEFT_OPEN)
        if session is not None and options != [self._run_often, self._own_threads]:
            session.close()
            return None
        return session


def last_of_chains(added: Mapping[Look, tf.Operation]) -> list[tf.Operation]:
    """Returns the last operation of each chain of observers."""
    return list({look.chain: operation for look, operation in added.items()}.values())


def placeholder_for(tensor: tf.Tensor | tf.TensorSpec) -> tf.Tensor:
    """Returns a placeholder for a tensor; its first axis counts images, whose number may change."""
    shape = tensor.shape
    return tf.compat.v1.placeholder(tensor.dtype, [None, *shape.as_list()[1:]] if shape.rank else shape)


def _is_of_any_number(tensor: tf.Tensor | tf.TensorSpec) -> bool:
    """Tells whether a tensor accepts any number of images; it does not if its first axis has a fixed length."""
    shape = tensor.shape
    return not shape.rank or shape.as_list()[0] is None


def session_options(graph: tf.Graph, *, run_often: bool, own_threads: int = 0) -> tf.compat.v1.ConfigProto:
    """Returns the options of a session on a graph: those that it has by default, which ``tf.config`` sets, and more.

    TensorFlow without oneDNN has no kernels for NCHW on a CPU; its optimizer turns such nodes into NHWC, and must be on
    then. Nodes that are bound to a device which the machine lacks run elsewhere, as whoever trains on GPUs expects.

    Args:
        graph: the graph that the session runs.
        run_often: whether it pays to optimize the graph first, which takes several times as long as running it.
        own_threads: number of threads that only this session has, in which its ops run; 0 for those of all sessions.
    """
    options = tf.compat.v1.ConfigProto()
    options.CopyFrom(context.context().config)
    options.allow_soft_placement = True
    options.experimental.disable_output_partition_graphs = True  # which nobody asks for: copies of the weights
    if own_threads:
        options.inter_op_parallelism_threads = own_threads
        options.use_per_session_threads = True
    rewrites = options.graph_options.rewrite_options
    rewrites.disable_tfg_optimizer = True  # most of the time of optimizing, of which no graph gets faster
    if any(map(_is_nchw, graph.get_operations())):
        rewrites.cpu_layout_conversion = RewriterConfig.NCHW_TO_NHWC
        rewrites.min_graph_nodes = -1  # small graphs, too
    elif not run_often:
        rewrites.disable_meta_optimizer = True
    return options


def _is_nchw(operation: tf.Operation) -> bool:
    if "data_format" not in {attribute.name for attribute in operation.op_def.attr}:
        return False
    return bool(operation.get_attr("data_format").startswith(b"NC"))
