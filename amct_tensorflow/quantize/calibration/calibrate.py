"""Calibrates a model with batches that an evaluator runs."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import tensorflow as tf

from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.calibration.balancing import Balancer
from amct_tensorflow.quantize.calibration.calibrator import CalibrationResult, Calibrator
from amct_tensorflow.quantize.calibration.output_comparison import Comparison
from amct_tensorflow.quantize.config.schema import QuantConfig

# Runs ``batch_num`` batches through a graph, to the outputs of these operators.
Run = Callable[[tf.Graph, Sequence[str]], None]


class Calibration(NamedTuple):
    """A calibration that is prepared.

    Attributes:
        run: runs the batches; to be called first. What it is given runs them instead of the evaluator.
        check: checks behind the last batch that there were enough.
        result: waits for the result, and returns it.
        stop: ends soon what is computed beside the caller, whose result nobody wants any more.
        is_beside: whether the result is computed while the caller goes on.
        is_small: whether the model is so small that nothing has to be freed while it is evaluated.
    """

    run: Callable[..., None]
    check: Callable[[], None]
    result: Callable[[], CalibrationResult]
    stop: Callable[[], None]
    is_beside: bool
    is_small: bool


def known_calibration(result: CalibrationResult) -> Calibration:
    """Returns a calibration of which nothing is left to do."""
    return Calibration(lambda: None, lambda: None, lambda: result, lambda: None, is_beside=False, is_small=True)


def prepare_calibration(
    model: FloatModel,
    config: QuantConfig,
    run: Run,
    *,
    for_search: bool = False,
    comparison: Comparison | None = None,
    beside: Executor | None = None,
    overlaps: bool = False,
    inputs_do: bool = False,
) -> Calibration:
    """Prepares a calibration, so that errors in model and configuration show at once.

    Layers are balanced first, if the configuration asks for it; that runs the batches through a graph of its own.

    Args:
        model: the float model; its graph gets taps.
        config: what to quantize, and how.
        run: runs the batches.
        for_search: as for ``Calibrator``.
        comparison: as for ``Calibrator``.
        beside: as for ``Calibrator``.
        overlaps: as for ``Calibrator``.
        inputs_do: as for ``Calibrator``.

    Raises:
        AmctError: the model cannot be calibrated so. The functions returned raise it if the data cannot be used, or too
            few batches were run.
    """
    balance = _balance(model, config, run) if config.asks_for_balancing() else {}
    calibrator = Calibrator(
        model, config, lambda _: None, for_search=for_search, comparison=comparison, balance=balance, beside=beside,
        overlaps=overlaps, inputs_do=inputs_do,
    )  # fmt: skip

    def run_batches(by: Run = run) -> None:
        _run_for(calibrator, by, calibrator.inputs or model.graph, model.outputs)
        calibrator.check_fed()

    return Calibration(
        run_batches, calibrator.check_fed, calibrator.check_complete, calibrator.stop, calibrator.computes_beside,
        calibrator.is_small,
    )  # fmt: skip


def _balance(model: FloatModel, config: QuantConfig, run: Run) -> Mapping[LayerName, tuple[float, ...]]:
    """Returns the balance factors, from calibration data that is run through a graph of its own."""
    graph = import_graph(model.graph_def, model.source)
    balancer = Balancer(model, config, lambda _: None, graph=graph)
    if balancer.result is None:
        _run_for(balancer, run, graph, model.outputs)
    return balancer.check_complete()


def _run_for(listener: Balancer | Calibrator, run: Run, graph: tf.Graph, outputs: Sequence[str]) -> None:
    try:
        run(graph, outputs)
    except Exception:
        # Who runs the batches only sees what TensorFlow made of an error inside a tap.
        if listener.error is not None:
            raise listener.error from None
        raise
