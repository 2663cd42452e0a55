"""Logs, before a run begins, the share of the model that it will put into int8."""

from collections.abc import Collection, Iterator, Mapping

from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for
from amct_tensorflow.model.inspection import Inspection
from amct_tensorflow.model.inspection_output import random_sentence, table_sentence

_ENOUGH = 0.9
_MOST_REASONS = 3
_DISABLED = "the configuration leaves it in float"


def log_coverage(
    inspection: Inspection,
    quantized: Collection[str],
    wide: Collection[str] = (),
    compressed: Collection[str] = (),
    for_device: Mapping[LayerName, str] | None = None,
) -> None:
    """Logs the layers for int8, and warns if they are, or may be, less than 90 % of the multiply-accumulates.

    Products of two computed operands, whose size only a run tells, are no reason: they are few beside dense layers.

    Args:
        inspection: the model.
        quantized: names of the layers to quantize.
        wide: names of those of them whose activations have 16 bits.
        compressed: names of the tables to store in int8.
        for_device: per layer that stays in float for the sake of the device, why.
    """
    share = inspection.share(quantized)
    count = sum(layer.name in quantized for layer in inspection.layers)
    unknown = "" if share.of == "multiply-accumulates" else ", as the shapes do not tell the multiply-accumulates"
    scalings = len(inspection.float_scalings)
    log_for("coverage").info(
        "%d of %d layers will be in int8, %s%s. %s or other %s in float.",
        count, len(inspection.layers), share, unknown, plural(scalings, "BatchNorm"),
        "scaling of channels stays" if scalings == 1 else "scalings of channels stay",
    )  # fmt: skip
    if wide:
        log_for("coverage").info(
            "%d of these layers %s activations in 16 bits, %s.",
            len(wide),
            "reads" if len(wide) == 1 else "read",
            inspection.share(wide),
        )
    in_float = [layer for layer in inspection.layers if layer.name not in quantized]
    is_uncertain = share.is_upper_bound and any(layer.parameters or layer.in_loop for layer in in_float)
    if share.value < _ENOUGH or is_uncertain:
        beginning = "Only" if share.value < _ENOUGH else "Perhaps only"
        reasons = "; ".join(_reasons(inspection, quantized, for_device or {}))
        log_for("coverage").warning("%s %s will be in int8. In float: %s.", beginning, share, reasons)
    if inspection.random:
        log_for("coverage").warning("%s", random_sentence(inspection.random))
    for table in inspection.tables:
        log_for("coverage").info("%s", table_sentence(table, compressed=table.name in compressed))


def _reasons(inspection: Inspection, quantized: Collection[str], for_device: Mapping[LayerName, str]) -> Iterator[str]:
    """Yields the reasons why layers stay in float, the most important first."""
    names: dict[str, list[str]] = {}
    for layer in inspection.layers:
        if layer.name not in quantized:
            reason = layer.reason or for_device.get(LayerName(layer.name), _DISABLED)
            names.setdefault(reason, []).append(layer.name)
    shares = {reason: inspection.share(found).value for reason, found in names.items()}
    ranked = sorted(shares, key=lambda reason: -shares[reason])
    for reason in ranked[:_MOST_REASONS]:
        found = names[reason]
        layers = f"{found[0]!r}" if len(found) == 1 else f"{len(found)} layers, as {found[0]!r}"
        yield f"{100 * shares[reason]:.1f} % in {layers}: {reason}"
    if len(ranked) > _MOST_REASONS:
        yield plural(len(ranked) - _MOST_REASONS, "other reason")
