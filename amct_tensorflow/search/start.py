"""What a search starts with, which follows from the calibration alone.

So it can be made beside the evaluation of the original model: the first quantized model, and whether it runs in
integers with the same results.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from amct_tensorflow.devices.rungs import Ladder
from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.fusion import FusedGraph
from amct_tensorflow.quantize.calibration.calibrator import CalibrationResult
from amct_tensorflow.quantize.config.schema import QuantConfig
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.quantize.record.factors import unfused_layers
from amct_tensorflow.search.configuration import Configuration
from amct_tensorflow.search.costless import costless_layers, is_small
from amct_tensorflow.search.evaluations import Evaluations
from amct_tensorflow.search.integers.integer_execution import IntegerExecution
from amct_tensorflow.search.roll_back import RollBack
from amct_tensorflow.search.rung_plans import RungPlans
from amct_tensorflow.search.sensitivity.layer_scores import LayerScores


@dataclass(frozen=True, eq=False)
class Start:
    """A search that has not judged any model yet.

    Attributes:
        calibration: the findings of the calibration.
        fused: the float model, fused as it was calibrated.
        whole: the plan of all layers.
        scores: the scores of layers, to be closed in the end.
        costless: the layers that start in float as that costs nothing.
        plans: the plans of configurations.
        search: judges configurations.
        execution: makes the execution graphs of quantized models; None if each is to be run itself.
    """

    calibration: CalibrationResult
    fused: FusedGraph
    whole: QuantizationPlan
    scores: LayerScores
    costless: list[LayerName]
    plans: RungPlans
    search: RollBack
    execution: IntegerExecution | None

    @property
    def first(self) -> Configuration:
        """The configuration that is judged first."""
        return self.plans.lowest


def start_search(
    calibration: CalibrationResult,
    model: FloatModel,
    config: QuantConfig,
    evaluations: Evaluations,
    rungs: Ladder,
    in_float: Mapping[LayerName, str],
    *,
    exact: bool,
    raise_costless: bool,
) -> Start:
    """Returns what a search starts with.

    Args:
        calibration: the findings of the calibration.
        model: the float model.
        config: what to quantize, and how.
        evaluations: the evaluations of the run.
        rungs: those that the strategy knows of the device.
        in_float: per layer that stays in float for the sake of the device, why.
        exact: run every model itself.
        raise_costless: whether layers start in float that cost nothing there, which takes their analyses.
    """
    fused = model.fuse(unfused_layers(calibration.factors), calibration.balance)
    whole, kept = calibration.plan(fused, model.outputs), {**calibration.unquantizable, **in_float}
    scores = LayerScores(model.outline, whole, calibration, kept)
    costless = _costless(scores, kept) if raise_costless else []
    plans = RungPlans(model.outline, whole, calibration, config, rungs, [*kept, *costless])
    in_process = not evaluations.in_background
    execution = None if exact else IntegerExecution(model.outputs, calibration.batches, in_process=in_process)
    return Start(calibration, fused, whole, scores, costless, plans, RollBack(plans, evaluations, scores), execution)


def _costless(scores: LayerScores, kept: Collection[str]) -> list[LayerName]:
    """Returns the layers that start in float as that costs nothing, and takes them out of the ranking.

    Layers are scored only if there are such small ones.
    """
    shares = {name: share for name, share in scores.mac_shares.items() if name not in kept}
    if not any(map(is_small, shares.values())):
        return []
    damages = zip(shares, scores.sampled_divergences([{name} for name in shares]), strict=True)
    found = [LayerName(name) for name in costless_layers(dict(damages), shares)]
    scores.leave_in_float(found)
    return found
