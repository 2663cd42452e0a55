"""Evaluations of models, each taken from the state of an earlier run if it is known there."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import tensorflow as tf

from amct_tensorflow.graph.model_file import import_graph
from amct_tensorflow.log import log_for
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator
from amct_tensorflow.search.evaluator import Evaluation
from amct_tensorflow.search.run_key import digest
from amct_tensorflow.search.state import SearchState


class Evaluations:
    """Evaluates models by their bytes.

    Attributes:
        evaluator: the user's evaluator.
    """

    def __init__(self, evaluator: CheckedEvaluator, state: SearchState, outputs: Sequence[str]) -> None:
        self.evaluator = evaluator
        self._state = state
        self._outputs = outputs

    def get(
        self, quantized: Collection[str] | None, model: bytes, title: str, *, in_integers: bool = False
    ) -> Evaluation:
        """Returns the evaluation of a model, which an earlier run may have done, of the very same bytes.

        Args:
            quantized: its quantized layers; None for the original model.
            model: what stands in its file, or its execution graph.
            title: what it is called in messages.
            in_integers: whether it is its execution graph.
        """
        identity = digest(model)
        evaluation = self._state.evaluation(quantized, in_integers=in_integers)
        if evaluation is not None and evaluation.model == identity:
            log_for().info("The result of %s is known from the earlier run.", title)
            self.evaluator.reuse()
            return evaluation
        graph = import_graph(tf.compat.v1.GraphDef.FromString(model), title)
        evaluation = replace(self.evaluator.evaluate(graph, self._outputs, title), model=identity)
        self._state.add_evaluation(quantized, evaluation, in_integers=in_integers)
        return evaluation
