"""The batches that the caller's session feeds to a calibration, each handed on as soon as it is complete."""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import tensorflow as tf

from amct_tensorflow.calibration.kept_batches import KeptBatches
from amct_tensorflow.calibration.replay import Batch
from amct_tensorflow.calibration.replay_sources import fed_tensors, readers_of, replay_sources
from amct_tensorflow.calibration.taps import attach_tap
from amct_tensorflow.graph.fusion import FusedGraph
from amct_tensorflow.models.float_model import FloatModel


class Feed:
    """Keeps what ``batch_num`` batches of a live graph must leave for the inputs of layers to be computed again.

    Attributes:
        batches: what has been kept.
        tensors: the tensors of the caller's graph that are kept, by full name.
        error: what went wrong inside the caller's session, where TensorFlow would turn it into text; else None.
    """

    def __init__(
        self,
        model: FloatModel,
        fused: FusedGraph,
        nodes: Mapping[str, Sequence[str]],
        batch_num: int,
        *,
        outputs: Sequence[str] = (),
        graph: tf.Graph | None = None,
    ) -> None:
        """Finds out what must be kept.

        Args:
            model: the float model.
            fused: the model as it is computed again.
            nodes: per node of the fused model, those of its inputs to compute, as GraphDef writes them.
            batch_num: how many batches to keep.
            outputs: nodes that are to be computed from the batches, too; what only these need may arrive late.
            graph: the caller's graph; None for that of the model.

        Raises:
            ModelError: the inputs cannot be computed from what the graph is fed with.
        """
        same = fused.original_values() & model.original.nodes.keys()
        find = partial(replay_sources, fused.view, same, nodes)
        sources = find()
        self._late = [source for source in find(outputs) if source not in sources] if outputs else []
        self._fed = fed_tensors(model.original, sources)
        self.batches = KeptBatches(batch_num, sources, self._late, self._fed)
        self.error: Exception | None = None
        self._graph = graph or model.graph
        self.tensors = {source: self._graph.get_tensor_by_name(source) for source in sources}
        self._model = model
        self._needed = model.original_upstream([*nodes, *model.outputs])
        self._batch_num = batch_num
        self._taken = 0
        self._lock = threading.Lock()

    def start(
        self, take: Callable[[Batch, int | None], None], finish: Callable[[], None], release: Callable[[], None]
    ) -> None:
        """Edits the caller's graph: from now on its runs are listened to.

        Args:
            take: called once with each batch, and with how many images the caller fed if that is known.
            finish: called after the last one.
            release: called after that, or when something went wrong: the caller's graph holds the taps, and so what
                they call.
        """
        self._take, self._finish, self._release = take, finish, release
        kept = (*self.tensors, *self._late)
        for tensor in dict.fromkeys((*self._fed, *kept)):
            readers = readers_of(self._model.original, tensor, self._needed)
            attach_tap(self._graph, readers, tensor, partial(self._look, tensor, tensor in kept))

    def _look(self, tensor: str, is_kept: bool, value: np.ndarray) -> None:
        """Takes a tensor of the caller's session."""
        if tensor in self._fed:
            with self._lock:
                self.batches.measure(tensor, value)
        if is_kept:
            self._keep(tensor, value)

    def _keep(self, source: str, value: np.ndarray) -> None:
        """Takes a tensor to keep; whichever comes last of a batch starts what the batch is for."""
        with self._lock:
            if self.error is not None:
                return
            try:
                self.batches.keep(source, value)
                while self._taken < min(self.batches.complete, self._batch_num):
                    self._take(self.batches.batch(self._taken), self.batches.images(self._taken))
                    self._taken += 1
                    if self._taken == self._batch_num:
                        self._finish()
                        self._release()
            except Exception as error:
                self.error = error
                self.batches.forget()
                self._release()
                raise
