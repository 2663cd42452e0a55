"""Scores of layers, and of sets of layers, that need no evaluation by the user."""

import math
from collections.abc import Callable, Collection, Sequence

import tensorflow as tf

from amct_tensorflow.errors import ModelError
from amct_tensorflow.log import log_for
from amct_tensorflow.quantize.calibration.calibrator import CalibrationResult
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.search.sensitivity.divergence import Divergence
from amct_tensorflow.search.sensitivity.measures import SensitivityBase
from amct_tensorflow.search.sensitivity.switchable_model import MeasureT, SwitchableModel


class LayerScores:
    """Multiply-accumulates, similarities, and the divergence of the outputs for any set of quantized layers.

    The switchable model is built when it is first needed.
    """

    def __init__(
        self, graph: tf.Graph, plan: QuantizationPlan, calibration: CalibrationResult, in_float: Collection[str] = ()
    ) -> None:
        """Takes the float model as a ``tf.Graph``, the plan of all layers, and the findings of calibration.

        Layers that are ``in_float`` anyway are not ranked.
        """
        self._ranked = {name: each for name, each in calibration.analyses.items() if name not in in_float}
        self._graph = graph
        self._plan = plan
        self._calibration = calibration
        self._switchable: SwitchableModel | None = None

    @property
    def mac_shares(self) -> dict[str, float]:
        """Per layer, its share of the multiply-accumulates of all layers that can be quantized."""
        counts = {name: analysis.multiply_accumulates for name, analysis in self._calibration.analyses.items()}
        total = max(sum(counts.values()), 1)
        return {name: count / total for name, count in counts.items()}

    def local_similarities(self) -> dict[str, float]:
        """Per layer, the similarity of its float and quantized outputs."""
        return {name: analysis.similarity for name, analysis in self._ranked.items()}

    def ranking(self, sensitivity: SensitivityBase) -> dict[str, float]:
        """Per layer, its similarity by the sensitivity."""
        names = list(self._ranked)
        if not names or not sensitivity.scores_outputs:
            return self.local_similarities()
        log_for("search").info("Ranking %d layers by how far each moves the model's outputs.", len(names))
        measures = self._compare([{name} for name in names], (), sensitivity.output_measure)
        similarities = [measure.similarity for measure in measures]
        if not similarities or any(math.isnan(value) for value in similarities):
            log_for("search").warning("Layers are ranked by their own outputs, as those of the model tell nothing.")
            return self.local_similarities()
        return dict(zip(names, similarities, strict=True))

    def divergences(self, candidates: Sequence[Collection[str]], base: Collection[str] = ()) -> list[float]:
        """Per set of quantized layers, the divergence of the outputs; see ``SwitchableModel.divergences``."""
        measures = self._compare(candidates, base, Divergence)
        return [measure.value for measure in measures] or [math.nan] * len(candidates)

    def _compare(
        self, candidates: Sequence[Collection[str]], base: Collection[str], new_measure: Callable[[int], MeasureT]
    ) -> list[MeasureT]:
        """Returns a measure of each candidate; none if the model cannot be run so.

        Raises:
            EvaluatorError: a user's sensitivity failed.
        """
        try:
            return self._switchable_model().compare(candidates, base, new_measure)
        except ModelError as error:
            # Evaluations may have taken hours by now: do without this rather than lose them.
            log_for("search").warning("How the outputs move cannot be measured: %s", " ".join(str(error).split())[:300])
            return []

    def _switchable_model(self) -> SwitchableModel:
        """Returns the switchable model."""
        if self._switchable is None:
            self._switchable = SwitchableModel(self._graph, self._plan, self._calibration.batches)
            missing = sorted(set(self._plan.outputs) - set(self._switchable.outputs))
            if missing:
                log_for("search").warning(
                    "Output %s does not follow from what calibration() ran, and is not compared.", ", ".join(missing)
                )
        return self._switchable

    def close(self) -> None:
        """Frees the switchable model."""
        if self._switchable is not None:
            self._switchable.close()
            self._switchable = None
