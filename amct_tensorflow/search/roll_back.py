"""Raises layers, to float or rungs between, as a strategy asks, until the model satisfies (spec section 6.3)."""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import tensorflow as tf

from amct_tensorflow.errors import EvaluatorError, StateError
from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.io.progress import duration
from amct_tensorflow.io.stages import stage
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for
from amct_tensorflow.quantize.quantized.builder import QuantizedGraph, quantize_graph
from amct_tensorflow.search.configuration import (
    Configuration,
    layers_in_16_bits,
    layers_in_float,
    quantized_layers,
)
from amct_tensorflow.search.evaluations import Evaluations
from amct_tensorflow.search.evaluator import Evaluation
from amct_tensorflow.search.integers.integer_execution import IntegerExecution
from amct_tensorflow.search.run_key import digest
from amct_tensorflow.search.rung_plans import RungPlans
from amct_tensorflow.search.sensitivity.layer_scores import LayerScores
from amct_tensorflow.search.sensitivity.measures import SensitivityBase
from amct_tensorflow.search.strategy import CheckedStrategy, Decision, SearchKnowledge
from amct_tensorflow.search.trials import Trial, Trials

_NAMES_PER_LINE = 10


class _Made(NamedTuple):
    """The model of a configuration, and the execution graph that is evaluated in its place, if one is.

    Attributes:
        quantized: the model.
        execution: its execution graph, as bytes.
        graph: the same as it was checked, if it was.
    """

    quantized: QuantizedGraph
    execution: bytes | None = None
    graph: tf.Graph | None = None


class RollBack:
    """Judges configurations, each once, and keeps the best.

    Attributes:
        trials: the configurations judged so far.
        settled: the layers that the latest decision of the strategy quantizes.
    """

    def __init__(self, plans: RungPlans, evaluations: Evaluations, scores: LayerScores) -> None:
        """Takes the plans of configurations, evaluations, and scores of layers."""
        self.trials = Trials()
        self._ranking: dict[str, float] | None = None
        self.settled: frozenset[str] = frozenset()
        self._plans = plans
        self._original: Evaluation
        self._evaluations = evaluations
        self._evaluator = evaluations.evaluator
        self._scores = scores
        self._execution: IntegerExecution | None = None
        # The best model so far, as it was evaluated: what is saved in the end is not built again. Only one is kept,
        # so that memory does not grow with the number of evaluations.
        self._built: tuple[Trial, QuantizedGraph] | None = None
        # A model that was made before it is judged.
        self._ahead: tuple[frozenset[str], QuantizedGraph] | None = None
        # Models that workers have begun with.
        self._begun: dict[frozenset[str], _Made] = {}

    @property
    def ranking(self) -> dict[str, float]:
        """Per layer, its similarity; by the sensitivity asked for once a search has begun.

        Ranking by the model's outputs takes time; nobody needs it unless layers are to be rolled back.
        """
        return self._scores.local_similarities() if self._ranking is None else self._ranking

    @stage("making quantized models")
    def make_ahead(self, configuration: Configuration, execution: IntegerExecution | None) -> None:
        """Makes the model of a configuration that will be judged next, beside the evaluation of the original model.

        It is tried in integers before it is known whether they are to be used; see ``compare_with``.
        """
        key, quantized = quantized_layers(configuration), quantize_graph(self._plans.of(configuration))
        if execution is not None and key:
            execution.prepare(quantized)
        self._ahead = key, quantized

    @property
    def made_ahead(self) -> QuantizedGraph | None:
        """The model of ``make_ahead``, until it is judged."""
        return None if self._ahead is None else self._ahead[1]

    def begin(self, configuration: Configuration, title: str) -> None:
        """Lets workers, if there are any, begin with a configuration that will be judged; see ``judge``."""
        key = quantized_layers(configuration)
        if self._evaluations.in_background and key and key not in self._begun and self.trials.find(key) is None:
            made = self._begun[key] = self._make(configuration)
            self._evaluations.begin(key, made.quantized.model, title, made.execution)

    def compare_with(self, original: Evaluation, execution: IntegerExecution | None) -> None:
        """Takes the evaluation of the original model, with which all others are compared.

        With an ``execution``, models are evaluated in integers from here on, which yields the same.
        """
        self._original = original
        self._execution = execution

    def judge(self, configuration: Configuration, title: str) -> Trial:
        """Evaluates a configuration, unless it is known; with all layers and tables in float, it needs no evaluation.

        Args:
            configuration: on which rung each layer stands; those that stay in float anyway may be left out.
            title: what the model is called in messages.
        """
        key = quantized_layers(configuration)
        known = self.trials.find(key)
        if known is not None:
            return known
        is_float = not key and len(self.trials) > 0 and not self._plans.has_tables
        made = None if is_float else self._begun.pop(key, None) or self._make(configuration)
        evaluation, in_integers = (self._original, False) if made is None else self._evaluate(key, made, title)
        judged = self._evaluator.judge_model(self._original.metric, evaluation.metric, title)
        decided = {**configuration, **self._plans.in_float}
        trial = Trial(decided, evaluation, judged, in_integers=in_integers)
        self.trials.add(trial)
        if made is not None and self.trials.best(self.settled) is trial:
            self._built = trial, made.quantized
        return trial

    @stage("evaluating quantized models")
    def _evaluate(self, key: frozenset[str], made: _Made, title: str) -> tuple[Evaluation, bool]:
        """Evaluates a model; returns whether that was in integers, too.

        A graph of this process alone is of no use to an evaluator that runs models elsewhere, or converts them. It gets
        the model itself then; if it fails for another reason, it fails again.
        """
        try:
            evaluation = self._evaluations.get(key, made.quantized.model, title, made.execution, checked=made.graph)
            return evaluation, made.execution is not None
        except EvaluatorError as error:
            if made.execution is None or self._execution is None or not self._execution.is_of_this_process:
                raise
            log_for("search").warning(
                "Models are simulated from here on, as the evaluator failed in integers: %s", error
            )
            self._execution = None
            return self._evaluations.get(key, made.quantized.model, title), False

    @stage("making quantized models")
    def _make(self, configuration: Configuration) -> _Made:
        """Makes the model of a configuration; see ``judge``."""
        quantized = self._quantize(configuration)
        execution = self._execution if quantized_layers(configuration) else None
        if execution is None:
            return _Made(quantized)
        return _Made(quantized, execution.model_of(quantized), execution.take_graph())

    def _quantize(self, configuration: Configuration) -> QuantizedGraph:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == quantized_layers(configuration):
            return ahead[1]
        return quantize_graph(self._plans.of(configuration))

    def search(self, strategy: CheckedStrategy, sensitivity: SensitivityBase) -> None:
        """Runs the strategy, from the result with all layers quantized."""
        with stage("ranking the layers"):
            if self._plans.wide is not None:
                self._scores.add_rung(self._plans.wide)
            self._ranking = self._scores.ranking(sensitivity)
        if not self._ranking:  # only tensors are quantized
            return
        self._follow(strategy)
        log_for().info("Fine search finished after %s.", plural(self._evaluator.evaluations - 2, "evaluation"))

    def _follow(self, strategy: CheckedStrategy) -> None:
        """Judges the decisions of a strategy until it stops."""
        find_target = partial(self._evaluator.find_target, self._original.metric)
        scores = self._scores
        knowledge = SearchKnowledge(
            scores.divergences, scores.mac_shares, find_target, scores.sampled_divergences, self._scoring_pays(),
            self._plans.ladders,
        )  # fmt: skip
        strategy.begin(knowledge, self.ranking)
        judged = self.trials.first.judged
        repetitions = 0
        while repetitions <= len(self.trials):
            decision = strategy.decide(judged, self._plans.ladders)
            self.settled = quantized_layers(decision.configuration)
            self._look_ahead(decision, strategy)
            is_known = self.trials.find(self.settled) is not None
            repetitions = repetitions + 1 if is_known else 0
            judged = self._try(decision.configuration, strategy).judged
            if decision.stops or not self.settled:
                break
        else:
            log_for().warning(
                "%s asked %d times in a row for configurations that have been evaluated, and does not set "
                "stop_flag. The search ends here.",
                strategy.name, repetitions,
            )  # fmt: skip
            self.settled = frozenset()

    def _scoring_pays(self) -> bool:
        """Tells whether a set is scored on fewer images than it is evaluated on, as far as that is known."""
        evaluated, scored = self._original.image_results, self._scores.images
        return evaluated is None or scored is None or scored < len(evaluated)

    def model_of(self, trial: Trial) -> QuantizedGraph:
        """Returns the model of a trial; it is built again unless it is the best one.

        Raises:
            StateError: it is not the one that was evaluated.
        """
        if self._built is not None and self._built[0] is trial:
            return self._built[1]
        quantized = quantize_graph(self._plans.of(trial.configuration))
        if digest(quantized.model) != trial.evaluation.model:
            raise StateError("The model to save is not the one that was evaluated. Start again, without resume.")
        return quantized

    def mac_share(self, layers: Iterable[LayerName]) -> float:
        """Returns the share of the multiply-accumulates that layers do."""
        shares = self._scores.mac_shares
        return sum(shares.get(name, 0.0) for name in layers)

    def _look_ahead(self, decision: Decision, strategy: CheckedStrategy) -> None:
        """Lets workers begin with the decision, and with the next one if the strategy is certain of it."""
        if self._forget_begun(but=self.settled):
            log_for().warning("%s named a configuration as its next, and decided for another.", strategy.name)
        if decision.stops or not self._evaluations.in_background:
            return
        step = len(self.trials)
        following = strategy.next_config(self._plans.ladders)
        for number, configuration in enumerate([decision.configuration, *([following] if following else [])], step):
            self.begin(configuration, f"the model of fine search step {number}")

    def _forget_begun(self, but: frozenset[str] | None = None) -> bool:
        """Cancels evaluations that workers have begun, but for one set of layers; returns whether there were any."""
        keys = self._begun.keys() - {but}
        for key in keys:
            made = self._begun.pop(key)
            self._evaluations.forget(made.quantized.model, made.execution)
        return bool(keys)

    def _try(self, configuration: Configuration, strategy: CheckedStrategy) -> Trial:
        """Judges a decision, and logs it if it is new."""
        step = len(self.trials)
        key = quantized_layers(configuration)
        is_new = bool(key) and self.trials.find(key) is None
        if not key:
            log_for().info("Every layer would have to be rolled back.")
        elif is_new:
            self._log_step(step, configuration, strategy)
        trial = self.judge(configuration, f"the model of fine search step {step}")
        if is_new:
            log_for().info("metric_eval: (%s, %g)", trial.judged.satisfied, trial.judged.loss)
        return trial

    def _log_step(self, step: int, configuration: Configuration, strategy: CheckedStrategy) -> None:
        stars = "*" * 20
        in_float, wide = layers_in_float(configuration), layers_in_16_bits(configuration)
        log_for().info(
            "%s fine search step %d: %d of %d layers (%.1f %% of the multiply-accumulates) in float%s %s",
            stars, step, len(in_float), len(configuration), 100 * self.mac_share(in_float),
            f", {len(wide)} ({100 * self.mac_share(wide):.1f} %) in 16 bits" if wide else "", stars,
        )  # fmt: skip
        expected = strategy.evaluations_to_expect(len(configuration))
        number = self._evaluator.evaluations + 1
        total = f" of about {max(expected, number)}" if expected else ""
        seconds = self.trials.first.evaluation.seconds
        log_for().info("Evaluation %d%s%s.", number, total, "" if seconds is None else f", about {duration(seconds)}")
        decided = {name: rung.name if rung.is_wide else not rung.is_float for name, rung in configuration.items()}
        pairs = [f"({name}, {decision})" for name, decision in decided.items()]
        log_for().debug("quant layers:")
        for begin in range(0, len(pairs), _NAMES_PER_LINE):
            log_for().debug("%s", " ".join(pairs[begin : begin + _NAMES_PER_LINE]))
