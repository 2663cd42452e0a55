"""Resumes a run from its state."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from amct_tensorflow.errors import StateError
from amct_tensorflow.log import LOG_DIR
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.quantize.calibration.calibrator import CalibrationResult
from amct_tensorflow.quantize.config.schema import QuantConfig
from amct_tensorflow.quantize.record.factors import unfused_layers
from amct_tensorflow.quantize.record.record_file import check_record
from amct_tensorflow.search.run_key import RunKey, digest
from amct_tensorflow.search.state import FOLDER, SearchState

_FOLDER_NAME_LENGTH = 16


def open_state(
    model_file: Path,
    key: RunKey,
    choices: Mapping[str, str],
    model: FloatModel,
    config: QuantConfig,
    *,
    resume: bool,
) -> SearchState:
    """Opens the state of the run that writes ``model_file``; each such file has a state of its own."""
    name = digest(os.path.abspath(model_file))[:_FOLDER_NAME_LENGTH]  # noqa: PTH100 - resolve() follows links
    folder = LOG_DIR / FOLDER / name
    if resume:
        return SearchState.resume(folder, key, choices, partial(_check_calibration, model, config))
    return SearchState.begin(folder, key, choices)


def _check_calibration(model: FloatModel, config: QuantConfig, calibration: CalibrationResult) -> None:
    """Checks that a calibration from a file is one of this model with this configuration.

    Raises:
        AmctError: it is not.
    """
    fused = model.fuse(unfused_layers(calibration.factors), calibration.balance)
    shapes = {name: (layer.op, layer.channels) for name, layer in fused.layers.items()}
    check_record(calibration.factors, shapes, model.op_types, "of the earlier run")
    layers = set(config.enabled_layers()) - calibration.unquantizable.keys()
    if (
        calibration.tables != config.compressed_tables()
        or set(calibration.factors) != {*layers, *(tensor.key for tensor in config.tensor_quantize)}
        or set(calibration.analyses) != layers
        or not all(correction.fits(fused.layers[name]) for name, correction in calibration.corrections.items())
        or (calibration.batches and len(calibration.batches) != config.batch_num)
    ):
        raise StateError("The calibration of the earlier run does not fit the model.")
