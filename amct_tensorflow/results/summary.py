"""Logs the summary of a run."""

from collections.abc import Iterable

from amct_tensorflow.io.progress import duration
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for
from amct_tensorflow.search.checked_evaluator import format_metric
from amct_tensorflow.search.statistics import CONFIDENCE, LossInterval
from amct_tensorflow.search.trials import SearchResult


def log_report(result: SearchResult, model_dir: str, record_dir: str) -> None:
    """Logs a table of the results, remarks, and the closing lines of spec section 6.5."""
    logger = log_for()
    for line in _table(result):
        logger.info("%s", line)
    if not result.saved.judged.satisfied:
        logger.warning(
            "No quantized model satisfies the requirement. The best one found is saved: its loss is %g.",
            result.saved.judged.loss,
        )
    if result.interval is not None and result.target_loss is not None:
        _warn_if_too_few_images(result.interval, result.target_loss)
    logger.info("Accuracy of original model is         %s", format_metric(result.original.metric))
    logger.info("Accuracy of global quantized model is %s", format_metric(result.global_metric))
    logger.info("Accuracy of saved model is            %s", format_metric(result.saved.metric))
    logger.info("The generated model is stored in dir: %s", model_dir)
    logger.info("The records is stored in dir: %s", record_dir)


def _table(result: SearchResult) -> Iterable[str]:
    saved, share = result.saved, 100 * result.float_mac_share
    rest = result.cost.seconds - result.cost.evaluation_seconds
    reused = f" ({result.cost.reused} of them in the earlier run)" if result.cost.reused else ""
    rows = [
        ("original model", format_metric(result.original.metric)),
        ("all layers quantized", format_metric(result.global_metric)),
        ("saved model", format_metric(result.saved.metric)),
        ("loss of the saved model", f"{result.saved.judged.loss:.4g}{_interval(result.interval)}"),
        (
            "layers in float",
            f"{saved.in_float} of {len(saved.configuration)}, {share:.1f} % of the multiply-accumulates",
        ),
        *_wide_rows(result),
        ("evaluations", f"{result.cost.evaluations}{reused}, {duration(result.cost.evaluation_seconds)}"),
        ("everything else", duration(rest)),
    ]
    width = max(len(label) for label, _ in rows)
    return [f"{label:<{width}} | {value}" for label, value in rows]


def _wide_rows(result: SearchResult) -> list[tuple[str, str]]:
    """Returns the row of the layers in 16 bits, if the device has that rung."""
    if not result.has_wide_rung:
        return []
    return [("layers in 16 bits", f"{result.saved.in_16_bits}, {100 * result.wide_mac_share:.1f} %")]


def _interval(interval: LossInterval | None) -> str:
    if interval is None:
        return ""
    bounds = f"{interval.lower:.3g} to {interval.upper:.3g}"
    return f" ({bounds} with {100 * CONFIDENCE:.0f} % confidence, from {plural(interval.images, 'image')})"


def _warn_if_too_few_images(interval: LossInterval, target: float) -> None:
    if interval.half_width <= target:
        return
    advice = f"About {interval.images_to_resolve(target)} would." if target > 0 else "No number of them can resolve 0."
    log_for().warning(
        "%s too few to resolve a loss of %.3g: the loss is known to +-%.2g only. %s",
        plural(interval.images, "image", "is", "are"), target, interval.half_width, advice,
    )  # fmt: skip
