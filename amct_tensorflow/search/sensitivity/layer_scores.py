"""Scores of layers, and of sets of layers, that need no evaluation by the user."""

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property

import tensorflow as tf

from amct_tensorflow.errors import ModelError
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for
from amct_tensorflow.quantize.calibration.calibrator import CalibrationResult
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.quantize.record.factors import wide_layers
from amct_tensorflow.search.configuration import in_16_bits
from amct_tensorflow.search.sensitivity.compared_operators import compared_operators
from amct_tensorflow.search.sensitivity.divergence import Divergence
from amct_tensorflow.search.sensitivity.measures import SensitivityBase
from amct_tensorflow.search.sensitivity.switchable_model import MeasureT, SwitchableModel

# Each layer alone is tried on so many images that all of them together cost about so many float runs of all calibration
# images, by their multiply-accumulates, and no more than so many of these.
_PASSES = 5.0
_PRODUCTS_ALONE = 1e11
# A set is scored on so many images that it takes no more multiply-accumulates than these, but on a few in any case: a
# search scores some twenty, each of which a processor would else work on for several seconds.
_PRODUCTS_PER_SET = 1e10
_FEWEST_IMAGES = 4


class LayerScores:
    """Multiply-accumulates, similarities, and the divergence of the outputs for any set of quantized layers.

    The switchable model is built when it is first needed. What has been measured is not measured again.
    """

    def __init__(
        self, graph: tf.Graph, plan: QuantizationPlan, calibration: CalibrationResult, in_float: Collection[str] = ()
    ) -> None:
        """Takes the float model as a ``tf.Graph``, the plan of all layers, and the findings of calibration.

        Layers that are ``in_float`` anyway are not ranked.
        """
        self._in_float = set(in_float)
        self._graph = graph
        self._plan = plan
        self._wide: QuantizationPlan | None = None
        self._calibration = calibration
        # Layers that the configuration asks to read 16 bits do so in the plan, by their own names.
        self._own_names = {in_16_bits(name): str(name) for name in wide_layers(plan.factors)}
        self._known: dict[tuple[int | None, frozenset[str]], float] = {}

    def leave_in_float(self, names: Collection[str]) -> None:
        """Takes more layers that stay in float anyway, and are not ranked."""
        self._in_float.update(names)

    def add_rung(self, wide: QuantizationPlan) -> None:
        """Lets sets hold layers in 16 bits; see ``in_16_bits``.

        Args:
            wide: the plan of these layers.
        """
        self.close()
        self._wide = wide

    @cached_property
    def mac_shares(self) -> dict[str, float]:
        """Per layer, its share of the multiply-accumulates of all layers that can be quantized."""
        counts = {name: analysis.multiply_accumulates for name, analysis in self._calibration.analyses.items()}
        total = max(sum(counts.values()), 1)
        return {name: count / total for name, count in counts.items()}

    @property
    def images(self) -> int | None:
        """How many images a divergence runs: all of calibration, or the first ones of many; None if it is not known."""
        return self._set_sample or self._calibration.images

    def local_similarities(self) -> dict[str, float]:
        """Per layer, the similarity of its float and quantized outputs."""
        analyses = self._calibration.analyses.items()
        return {name: analysis.similarity for name, analysis in analyses if name not in self._in_float}

    def ranking(self, sensitivity: SensitivityBase) -> dict[str, float]:
        """Per layer, its similarity by the sensitivity."""
        names = list(self.local_similarities())
        if not names or not sensitivity.scores_outputs:
            return self.local_similarities()
        log_for("search").info("Ranking %s by how far each moves the model's outputs.", plural(len(names), "layer"))
        similarities = self._similarities(names, sensitivity)
        if not similarities or any(math.isnan(value) for value in similarities):
            log_for("search").warning("Layers are ranked by their own outputs, as those of the model tell nothing.")
            return self.local_similarities()
        return dict(zip(names, similarities, strict=True))

    def divergences(self, candidates: Sequence[Collection[str]], base: Collection[str] = ()) -> list[float]:
        """Per set of quantized layers, the divergence on ``images``; see ``SwitchableModel.divergences``.

        Sets are those of ``quantized_layers``; layers in 16 bits need ``add_rung`` before.
        Where outputs follow from decisions, it is that of the last layers before them (``compared_operators``). NaN if
        it cannot be measured.
        """
        return self._divergences(candidates, base, self._set_sample)

    def sampled_divergences(self, candidates: Sequence[Collection[str]]) -> list[float]:
        """Per set of quantized layers, the divergence on so few images that all layers can be tried alone."""
        return self._divergences(candidates, (), self._sample)

    def _similarities(self, names: Sequence[str], sensitivity: SensitivityBase) -> list[float]:
        """Returns the similarity of each layer; none if the model cannot be run so."""
        alone: list[Collection[str]] = [{name} for name in names]
        if sensitivity.similarity_of_divergence is not None:
            return list(map(sensitivity.similarity_of_divergence, self.sampled_divergences(alone)))
        # A user's own comparison gets the outputs as they are, of all images.
        with closing(_Switchable(self._graph, self._plan, self._calibration)) as model:
            return [measure.similarity for measure in model.compare(alone, (), sensitivity.output_measure, None)]

    def _divergences(
        self, candidates: Sequence[Collection[str]], base: Collection[str], images: int | None
    ) -> list[float]:
        """Returns the divergence of each candidate on so many images, measured once; NaN if it cannot be."""
        keys = [(images, self._named(candidate)) for candidate in candidates]
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        if new:
            measures = self._switchable.compare([layers for _, layers in new], self._named(base), Divergence, images)
            self._known.update(zip(new, [each.value for each in measures], strict=False))  # none if they failed
        return [self._known.get(key, math.nan) for key in keys]

    def _named(self, layers: Collection[str]) -> frozenset[str]:
        """Returns a set of layers as the switchable model names them."""
        return frozenset(self._own_names.get(name, name) for name in layers)

    @cached_property
    def _sample(self) -> int | None:
        """How many images each layer alone is tried on, no more than a set is scored on; None for all."""
        model, images = self._switchable.model, self._calibration.images
        if model is None or images is None:
            return None
        runs = sum(self.mac_shares.get(layer, 0.0) for name in self.mac_shares for layer in model.layers_to_run({name}))
        passes = min(_PASSES * images, _PRODUCTS_ALONE / self._products_per_image)
        affordable = max(1, int(passes / max(runs, 1e-9)))
        return affordable if affordable < (self._set_sample or images) else self._set_sample

    @cached_property
    def _set_sample(self) -> int | None:
        """How many images a set is scored on; None for all."""
        images = self._calibration.images
        affordable = max(_FEWEST_IMAGES, int(_PRODUCTS_PER_SET / self._products_per_image))
        return affordable if images is not None and affordable < images else None

    @property
    def _products_per_image(self) -> float:
        """The multiply-accumulates of all layers for an image."""
        counts = sum(analysis.multiply_accumulates for analysis in self._calibration.analyses.values())
        return max(counts / (self._calibration.images or 1), 1.0)

    @cached_property
    def _switchable(self) -> "_Switchable":
        operators = compared_operators(self._graph, self._plan)
        replaced = [output for output in self._plan.outputs if output not in operators]
        if replaced:
            log_for("search").info(
                "%s follows from decisions, such as a choice of the largest; how far quantization moves the model is "
                "measured in front of them, at %s.", ", ".join(replaced), ", ".join(operators),
            )  # fmt: skip
        return _Switchable(self._graph, replace(self._plan, outputs=operators), self._calibration, self._wide)

    def close(self) -> None:
        """Frees the switchable model."""
        if "_switchable" in vars(self):
            self._switchable.close()
            del self._switchable


class _Switchable:
    """A switchable model that is built when it is first needed, if it can be."""

    def __init__(
        self,
        graph: tf.Graph,
        plan: QuantizationPlan,
        calibration: CalibrationResult,
        wide: QuantizationPlan | None = None,
    ) -> None:
        self._graph = graph
        self._plan = plan
        self._wide = wide
        self._batches = calibration.batches
        self._model: SwitchableModel | None = None

    @property
    def model(self) -> SwitchableModel | None:
        """The model; None if TensorFlow does not take it."""
        try:
            return self._built()
        except ModelError as error:
            _warn(error)
            return None

    def compare(
        self,
        candidates: Sequence[Collection[str]],
        base: Collection[str],
        new_measure: Callable[[int], MeasureT],
        images: int | None,
    ) -> list[MeasureT]:
        """Returns a measure of each candidate; none if the model cannot be run so.

        Raises:
            EvaluatorError: a user's sensitivity failed.
        """
        try:
            return self._built().compare(candidates, base, new_measure, images)
        except ModelError as error:
            _warn(error)
            return []

    def close(self) -> None:
        """Frees the model."""
        if self._model is not None:
            self._model.close()

    def _built(self) -> SwitchableModel:
        """Returns the model.

        Raises:
            ModelError: TensorFlow does not take it.
        """
        if self._model is None:
            self._model = SwitchableModel(self._graph, self._plan, self._batches, self._wide)
            missing = sorted(set(self._plan.outputs) - set(self._model.outputs))
            if missing:
                log_for("search").warning(
                    "Output %s does not follow from what calibration() ran, and is not compared.", ", ".join(missing)
                )
        return self._model


def _warn(error: ModelError) -> None:
    """Says what cannot be measured: evaluations may have taken hours by now, and are not lost for it."""
    log_for("search").warning("How the outputs move cannot be measured: %s", " ".join(str(error).split())[:300])
