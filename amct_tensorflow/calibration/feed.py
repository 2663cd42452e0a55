"""The batches that the caller's session feeds to a calibration, each handed on as soon as it is complete."""

import threading
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import tensorflow as tf

from amct_tensorflow.calibration.kept_batches import KeptBatches
from amct_tensorflow.calibration.replay import Batch
from amct_tensorflow.calibration.replay_sources import readers_of, replay_sources
from amct_tensorflow.calibration.taps import attach_tap
from amct_tensorflow.models.float_model import FloatModel


class Feed:
    """Keeps what ``batch_num`` batches of a live graph must leave for the inputs of layers to be computed again.

    Attributes:
        batches: what has been kept.
        tensors: the tensors of the caller's graph that are kept, by full name.
        error: what went wrong inside the caller's session, where TensorFlow would turn it into text; else None.
    """

    def __init__(
        self, model: FloatModel, nodes: Mapping[str, str], batch_num: int, *, graph: tf.Graph | None = None
    ) -> None:
        """Finds out what must be kept.

        Args:
            model: the float model.
            nodes: per node of the prepared model, the input of it to compute, as GraphDef writes it.
            batch_num: how many batches to keep.
            graph: the caller's graph; None for that of the model.

        Raises:
            ModelError: the inputs cannot be computed from what the graph is fed with.
        """
        sources = replay_sources(model.prepared_graph, model.view, model.original.nodes, nodes)
        self.batches = KeptBatches(batch_num, sources)
        self.error: Exception | None = None
        self._graph = graph or model.graph
        self.tensors = {source: self._graph.get_tensor_by_name(source) for source in sources}
        self._model = model
        self._needed = model.original_upstream([*nodes, *model.outputs])
        self._batch_num = batch_num
        self._taken = 0
        self._lock = threading.Lock()

    @property
    def complete(self) -> bool:
        """Whether every batch has been handed on."""
        return self._taken == self._batch_num

    def start(self, take: Callable[[Batch], None], finish: Callable[[], None]) -> None:
        """Edits the caller's graph: from now on its runs are listened to.

        Args:
            take: called with each batch, once.
            finish: called after the last one.
        """
        for source in self.tensors:
            self.listen(source, partial(self._keep, source, take, finish))

    def listen(self, source: str, look: Callable[[np.ndarray], None]) -> None:
        """Calls ``look`` with the values of a tensor of the caller's graph, by full name."""
        attach_tap(self._graph, readers_of(self._model.original, source, self._needed), source, look)

    def _keep(self, source: str, take: Callable[[Batch], None], finish: Callable[[], None], value: np.ndarray) -> None:
        """Takes a tensor of the caller's session; whichever comes last of a batch starts what the batch is for."""
        with self._lock:
            if self.complete or self.error is not None:
                return
            self.batches.keep(source, value)
            try:
                while self._taken < self.batches.complete:
                    take(self.batches.batch(self._taken))
                    self._taken += 1
                    if self.complete:
                        finish()
            except Exception as error:
                self.error = error
                raise
