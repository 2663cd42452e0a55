"""Writes a report as event files for TensorBoard, which need not be installed."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from amct_tensorflow.errors import OutputError
from amct_tensorflow.results.report.document import Activation, Report


def _metadata(plugin: str, data_class: int) -> tf.compat.v1.SummaryMetadata:
    """Returns the metadata that selects TensorBoard's plugin for a value."""
    data = tf.compat.v1.SummaryMetadata.PluginData(plugin_name=plugin)
    return tf.compat.v1.SummaryMetadata(plugin_data=data, data_class=data_class)


# Classes of data as TensorFlow's summary.proto numbers them. A histogram is a matrix with rows of left edge, right edge
# and count.
_SCALARS, _HISTOGRAMS = _metadata("scalars", 1), _metadata("histograms", 2)


def write_events(report: Report, folder: Path) -> None:
    """Writes the search, by evaluation; numbers of the layers, by their place in the model; and their histograms.

    Raises:
        OutputError: they cannot be written.
    """
    try:
        writer = tf.summary.create_file_writer(str(folder))
        with writer.as_default():
            _write_search(report)
            _write_layers(report)
        writer.close()
    except (tf.errors.OpError, OSError) as error:
        raise OutputError(
            f"Event files cannot be written to {folder}: {getattr(error, 'message', error)}. Choose another folder, or "
            "make room and give permission."
        ) from error


def _write_search(report: Report) -> None:
    for each in report.evaluations:
        numbers = {"loss": each.loss, "layers in float": len(each.in_float), "float share": each.float_mac_share,
                   "layers in 16 bits": len(each.in_16_bits)}  # fmt: skip
        numbers["metric"] = None if isinstance(each.metric, str) else each.metric
        _write_scalars("search", numbers, each.number)


def _write_layers(report: Report) -> None:
    for place, layer in enumerate(report.layers, 1):
        numbers = {
            "damage": layer.damage,
            "sqnr_db": layer.sqnr_db,
            "uncorrected_sqnr_db": layer.uncorrected_sqnr_db,
            "int8": float(layer.int8),
            "scale": layer.activation.scale if layer.activation else None,
        }
        _write_scalars("layers", numbers, place)
        if layer.activation is not None:
            _write_histogram(f"activations/{layer.name}", layer.activation)
        if layer.second_operand is not None:
            _write_histogram(f"activations/{layer.name}/second_operand", layer.second_operand)
        if layer.weights is not None:
            ends = {"lowest": min(layer.weights.lowest), "highest": max(layer.weights.highest)}
            _write_scalars("weights", ends, place)
    for tensor in report.inputs:
        _write_histogram(f"activations/{tensor.name}", tensor.activation)


def _write_scalars(group: str, numbers: Mapping[str, float | None], step: int) -> None:
    for name, value in numbers.items():
        if value is not None:
            tf.summary.write(f"{group}/{name}", tf.constant(value, tf.float32), step, metadata=_SCALARS)


def _write_histogram(tag: str, activation: Activation) -> None:
    seen = activation.observed
    if seen is None:
        return
    edges = np.linspace(seen.lowest, seen.highest, len(seen.counts) + 1)
    rows = np.stack([edges[:-1], edges[1:], np.array(seen.counts)], axis=1)
    tf.summary.write(tag, tf.constant(rows, tf.float64), 0, metadata=_HISTOGRAMS)
