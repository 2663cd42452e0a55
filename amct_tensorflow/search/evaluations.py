"""Evaluates models, or takes their evaluations from the state of an earlier run."""

import time
from collections.abc import Collection, Sequence
from dataclasses import replace

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.io.memory import give_memory_back
from amct_tensorflow.log import log_for
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator, Tapped
from amct_tensorflow.search.evaluator import Evaluation
from amct_tensorflow.search.run_key import digest
from amct_tensorflow.search.state import SearchState
from amct_tensorflow.search.workers.scheduler import Scheduler
from amct_tensorflow.search.workers.shares import Candidate

# To search for what a smaller model has left takes longer than it is worth.
_LARGE_BYTES = 1 << 24


def _size(model: bytes | GraphDef) -> int:
    return len(model) if isinstance(model, bytes) else model.ByteSize()


def bytes_of(model: bytes | GraphDef) -> bytes:
    """Returns the bytes of a model, which are as many as its file has."""
    return model if isinstance(model, bytes) else bytes(model.SerializeToString(deterministic=True))


class Evaluations:
    """Evaluates models by their bytes.

    Attributes:
        evaluator: the user's evaluator.
    """

    def __init__(
        self,
        evaluator: CheckedEvaluator,
        state: SearchState,
        outputs: Sequence[str],
        scheduler: Scheduler | None = None,
    ) -> None:
        """Takes the evaluator, and the scheduler of workers that evaluate instead of this process, if there are any."""
        self.evaluator = evaluator
        self._state = state
        self._outputs = outputs
        self._scheduler = scheduler

    @property
    def in_background(self) -> bool:
        """Whether models are evaluated while this process does something else."""
        return self._scheduler is not None

    def begin(
        self, quantized: Collection[str] | None, model: bytes, title: str, execution: bytes | None = None
    ) -> None:
        """Lets workers begin with a model that ``get`` will be asked for; does nothing without workers.

        The result counts, and is kept, only when ``get`` asks for it, so that the state is that of a run without
        workers. The arguments are those of ``get``.
        """
        if self._scheduler is not None and self._known(quantized, digest(model)) is None:
            self._scheduler.begin(self._candidate(execution or model, title))

    def forget(self, model: bytes, execution: bytes | None = None) -> None:
        """Cancels the evaluation of a model that workers have begun."""
        if self._scheduler is not None:
            self._scheduler.forget(digest(execution or model))

    def knows(self, quantized: Collection[str] | None) -> bool:
        """Tells whether an earlier run has evaluated a set of quantized layers, perhaps of other bytes."""
        return self._state.evaluation(quantized) is not None

    def get(
        self,
        quantized: Collection[str] | None,
        model: bytes | GraphDef,
        title: str,
        execution: bytes | None = None,
        *,
        checked: tf.Graph | None = None,
        tapped: Tapped | None = None,
    ) -> Evaluation:
        """Returns the evaluation of a model; an earlier run may have evaluated the same bytes.

        Args:
            quantized: its quantized layers; None for the original model.
            model: the bytes of its file, or what they are made of, so that nobody holds them while it is evaluated.
            title: what it is called in messages.
            execution: those of its execution graph, which yields the same, to run instead.
            checked: the execution graph as it was run already, with a session left open.
            tapped: what to run the calibration batches on in passing; see ``CheckedEvaluator.evaluate``.
        """
        identity = digest(bytes_of(model))
        evaluation = self._known(quantized, identity)
        if evaluation is not None:
            log_for().info("The result of %s is known from the earlier run.", title)
            self.evaluator.reuse()
            return evaluation
        evaluation = replace(self._evaluate(execution or model, title, checked, tapped), model=identity)
        self._state.add_evaluation(quantized, evaluation)
        return evaluation

    def _known(self, quantized: Collection[str] | None, identity: str) -> Evaluation | None:
        evaluation = self._state.evaluation(quantized)
        return evaluation if evaluation is not None and evaluation.model == identity else None

    def _evaluate(
        self, model: bytes | GraphDef, title: str, graph: tf.Graph | None, tapped: Tapped | None
    ) -> Evaluation:
        if self._scheduler is None:
            if _size(model) >= _LARGE_BYTES:
                give_memory_back()  # before the evaluator takes what it needs
            if graph is None:
                graph = import_graph(GraphDef.FromString(model) if isinstance(model, bytes) else model, title)
            return self.evaluator.evaluate(graph, self._outputs, title, tapped)
        start = time.perf_counter()
        shares = self._scheduler.finish(self._candidate(bytes_of(model), title))
        return self.evaluator.join_shares(shares.results, title, shares.seconds, time.perf_counter() - start)

    def _candidate(self, model: bytes, title: str) -> Candidate:
        return Candidate(model, tuple(self._outputs), title)
