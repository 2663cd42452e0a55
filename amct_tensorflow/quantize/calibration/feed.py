"""Collects the batches of the caller's session, and passes each on as soon as it is complete."""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import numpy as np
import tensorflow as tf

from amct_tensorflow.errors import CalibrationError
from amct_tensorflow.graph.graph_runner import Batch
from amct_tensorflow.graph.names import FusedName, OriginalName, PreparedName
from amct_tensorflow.graph.rewrite import subgraph
from amct_tensorflow.graph.view import parse_tensor_name
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.fusion import FusedGraph
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.calibration.lent_weights import LentWeights
from amct_tensorflow.quantize.calibration.replay_sources import fed_tensors, readers_of, replay_sources
from amct_tensorflow.quantize.calibration.taps import INPUT, attach_tap


class KeptBatches:
    """Collects the tensors of ``batch_num`` batches.

    The tensors arrive one by one and in any order. The n-th value of each tensor belongs to the n-th run of the
    caller's session. Runs after the last batch, and runs without images, do not count.
    """

    def __init__(
        self, batch_num: int, tensors: Collection[str], late: Collection[str] = (), fed: Collection[str] = ()
    ) -> None:
        """Starts with none.

        Args:
            batch_num: how many batches to keep.
            tensors: the tensors of a batch.
            late: tensors that are kept as well, but may arrive after the batch is complete, or never.
            fed: the tensors that the caller feeds; only their length is kept.
        """
        self._batch_num = batch_num
        self._tensors = tuple(tensors)
        self._values: dict[str, dict[int, np.ndarray]] = {tensor: {} for tensor in (*tensors, *late)}
        self._arrived = dict.fromkeys(self._values, 0)
        self._counted: list[int] = []
        self._empty: set[int] = set()
        self._lengths: dict[str, list[int | None]] = {tensor: [] for tensor in fed}

    def measure(self, fed: str, value: np.ndarray) -> None:
        """Takes the length of a fed tensor, before the tensors that depend on it arrive."""
        if self.complete < self._batch_num:
            self._lengths[fed].append(len(value) if value.ndim else None)

    def images(self, index: int) -> int | None:
        """Returns how many images the caller fed for a complete batch: the length of all fed tensors but scalars.

        None if lengths differ, or only scalars were fed. If the caller feeds tensors inside the model, their lengths
        count.
        """
        run = self._counted[index]
        fed = [each[run] for each in self._lengths.values() if run < len(each)]
        if not fed or len(fed) < len(self._lengths):
            fed = [len(value) if value.ndim else None for value in self.batch(index).values()]
        lengths = {length for length in fed if length is not None}
        return lengths.pop() if len(lengths) == 1 else None

    def keep(self, tensor: str, value: np.ndarray) -> None:
        """Takes a copy of a tensor."""
        run = self._arrived[tensor]
        self._arrived[tensor] += 1
        complete = self.complete == self._batch_num
        following = len(self._counted) + len(self._empty)
        if run in self._empty or (complete and run not in self._counted) or run >= following + self._batch_num:
            return
        self._values[tensor][run] = np.array(value)
        while self.complete < self._batch_num and all(following in self._values[each] for each in self._tensors):
            self._judge(following)
            following += 1

    def _judge(self, run: int) -> None:
        """Counts a run of which every tensor has arrived, or drops it."""
        if all(self._values[tensor][run].size for tensor in self._tensors):
            self._counted.append(run)
            return
        self._empty.add(run)
        for values in self._values.values():
            values.pop(run, None)

    @property
    def complete(self) -> int:
        """Number of batches of which every tensor has arrived."""
        return len(self._counted)

    def batch(self, index: int) -> Batch:
        """Returns a complete batch, without the late tensors."""
        return {tensor: self._values[tensor][self._counted[index]] for tensor in self._tensors}

    def batches(self) -> tuple[Batch, ...]:
        """Returns every batch, with those late tensors that arrived in all of them."""
        arrived = [tensor for tensor, values in self._values.items() if all(run in values for run in self._counted)]
        return tuple({tensor: self._values[tensor][run] for tensor in arrived} for run in self._counted)

    def forget(self) -> None:
        """Frees the memory, and keeps nothing from now on."""
        self._batch_num = 0
        self._counted.clear()
        for values in self._values.values():
            values.clear()

    def check_complete(self) -> None:
        """Raises CalibrationError if a batch, or a tensor of one, is missing."""
        if self.complete == self._batch_num:
            return
        counts = {tensor: self._arrived[tensor] for tensor in self._tensors}
        if len(set(counts.values())) > 1:
            tensor = min(counts, key=lambda name: counts[name])
            raise CalibrationError(
                f"Tensor {tensor!r} was not computed in every calibration batch. Feed the model at its placeholders, "
                "not at a tensor between them and the quantized layers."
            )
        without = f", and {len(self._empty)} without images" if self._empty else ""
        raise CalibrationError(
            f"Calibration needs {self._batch_num} batches, but saw {self.complete}{without}. Run the model's outputs "
            "at least batch_num times in calibration(), in a session on the graph given."
        )


class Feed:
    """Keeps the tensors of ``batch_num`` batches of a live graph from which the inputs of layers can be computed.

    Attributes:
        batches: what has been kept.
        tensors: what is known of the tensors of the caller's graph that are kept, by full name.
        inputs: the graph of the model's inputs alone that the caller runs; None if it runs the model.
        error: the error inside the caller's session, which TensorFlow would turn into text; None without one.
    """

    def __init__(
        self,
        model: FloatModel,
        fused: FusedGraph,
        nodes: Mapping[PreparedName, Sequence[str]],
        batch_num: int,
        *,
        outputs: Sequence[str] = (),
        scalable: Collection[FusedName] = (),
        graph: tf.Graph | None = None,
        inputs_do: bool = False,
    ) -> None:
        """Finds the tensors to keep.

        Args:
            model: the float model.
            fused: the model as it is computed again.
            nodes: per node, which fusion keeps, those of its inputs to compute, as the fused model writes them.
            batch_num: how many batches to keep.
            outputs: nodes to compute from the batches, too; tensors that only these need may arrive late.
            scalable: nodes whose values may be scaled before the kept tensors are used; theirs are not kept.
            graph: the caller's graph; None for that of the model.
            inputs_do: whether the caller runs a graph of the model's inputs alone, if nothing else is kept.

        Raises:
            ModelError: the inputs cannot be computed from the fed tensors.
        """
        same = (fused.original_values() & model.original.nodes.keys()) - set(map(OriginalName, scalable))
        find = partial(replay_sources, fused.view, same, nodes)
        sources = find()
        self._late = [source for source in find(outputs) if source not in sources] if outputs else []
        self._fed = fed_tensors(model.original, sources)
        self.batches = KeptBatches(batch_num, sources, self._late, self._fed)
        self.error: Exception | None = None
        self._needed = model.original_upstream([*nodes, *map(PreparedName, model.outputs)])
        self.inputs: tf.Graph | None = None
        kept = {OriginalName(parse_tensor_name(tensor).node) for tensor in (*sources, *self._late, *self._fed)}
        if inputs_do and all(model.original.nodes[name].op == INPUT for name in kept):
            self.inputs, self._needed = import_graph(subgraph(model.graph_def, kept), model.source), set()
        self._graph = graph or self.inputs or model.graph
        found = {source: self._graph.get_tensor_by_name(source) for source in sources}
        self.tensors = {source: tf.TensorSpec(tensor.shape, tensor.dtype) for source, tensor in found.items()}
        self._model = model
        self._batch_num = batch_num
        self._taken = 0
        self._lock = threading.Lock()

    def start(
        self, take: Callable[[Batch, int | None], None], finish: Callable[[], None], release: Callable[[], None]
    ) -> None:
        """Adds taps to the caller's graph; from now on its runs are observed.

        Args:
            take: called once with each batch, and with how many images the caller fed if that is known.
            finish: called after the last one.
            release: called after that, or after an error, to free memory: the caller's graph keeps the taps alive.
        """
        self._take, self._finish, self._free = take, finish, release
        self._lent = LentWeights(self._graph, self._model.original, self._needed)
        kept = (*self.tensors, *self._late)
        for tensor in dict.fromkeys((*self._fed, *kept)):
            readers = readers_of(self._model.original, tensor, self._needed)
            attach_tap(self._graph, readers, tensor, partial(self._observe, tensor, tensor in kept))
        # The caller's graph, which may live long, keeps what the taps call; a large one need not live long.
        del self._model, self._needed, self._graph

    def _observe(self, tensor: str, is_kept: bool, value: np.ndarray) -> None:
        """Takes a tensor of the caller's session."""
        if tensor in self._fed:
            with self._lock:
                self.batches.measure(tensor, value)
        if is_kept:
            self._keep(tensor, value)

    def _keep(self, source: str, value: np.ndarray) -> None:
        """Keeps a tensor; the last one of a batch passes the batch on."""
        with self._lock:
            if self.error is not None:
                return
            try:
                self.batches.keep(source, value)
                while self._taken < min(self.batches.complete, self._batch_num):
                    self._take(self.batches.batch(self._taken), self.batches.images(self._taken))
                    self._taken += 1
                    if self._taken == self._batch_num:
                        self._lent.take_back()  # what is computed now takes memory itself
                        self._finish()
                        self._release()
            except Exception as error:
                self.error = error
                self.batches.forget()
                self._release()
                raise

    def _release(self) -> None:
        self._free()
        self._lent.take_back()
        del self._take, self._finish, self._free, self._lent
