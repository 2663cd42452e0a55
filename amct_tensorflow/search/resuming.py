"""What a run must have in common with an earlier one to go on from its state."""

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from amct_tensorflow.calibration.calibrator import CalibrationResult
from amct_tensorflow.config.json_file import dump_config
from amct_tensorflow.config.schema import QuantConfig
from amct_tensorflow.errors import StateError
from amct_tensorflow.log import LOG_DIR
from amct_tensorflow.models.float_model import FloatModel
from amct_tensorflow.record.layer_factors import unfused_layers
from amct_tensorflow.record.record_file import check_record
from amct_tensorflow.search.evaluator import CheckedEvaluator
from amct_tensorflow.search.source_code import code_of, parameters_of
from amct_tensorflow.search.state import FOLDER, RunKey, SearchState, digest
from amct_tensorflow.sensitivity.measures import CosineSimilaritySensitivity, SensitivityBase
from amct_tensorflow.version import VERSION

_FOLDER_NAME_LENGTH = 16


def run_key(
    model: FloatModel, config: QuantConfig, evaluator: CheckedEvaluator, sensitivity: SensitivityBase
) -> RunKey:
    """Collects what determines the results of evaluations and of the calibration; decisions are made anew."""
    comparison = sensitivity.layer_comparison()
    kind = CosineSimilaritySensitivity if comparison is None else type(comparison)
    things = {
        "evaluator": evaluator.name,
        "evaluator's code": evaluator.code(),
        "model": model.graph_def.SerializeToString(deterministic=True),
        "outputs": json.dumps(model.outputs),
        "configuration": dump_config(config),
        "sensitivity": f"{kind.__module__}.{kind.__qualname__}",
        "sensitivity's code": code_of(kind, "sensitivity") + parameters_of(comparison),
        "software": f"{VERSION}, TensorFlow {tf.__version__}, NumPy {np.__version__}",
    }
    identity = {name: digest(thing) for name, thing in evaluator.identity().items()}
    return RunKey({name: digest(thing) for name, thing in things.items()}, identity)


def open_state(model_file: Path, key: RunKey, model: FloatModel, config: QuantConfig, *, resume: bool) -> SearchState:
    """Opens the state of the run that writes ``model_file``; runs that write others have their own."""
    name = digest(os.path.abspath(model_file))[:_FOLDER_NAME_LENGTH]  # noqa: PTH100 - resolve() follows links
    folder = LOG_DIR / FOLDER / name
    if resume:
        return SearchState.resume(folder, key, partial(_check_calibration, model, config))
    return SearchState.begin(folder, key)


def _check_calibration(model: FloatModel, config: QuantConfig, calibration: CalibrationResult) -> None:
    """Checks that a calibration from a file is one of this model with this configuration.

    Raises:
        AmctError: it is not.
    """
    fused = model.fuse(unfused_layers(calibration.factors))
    shapes = {name: (layer.op_type, layer.channels) for name, layer in fused.layers.items()}
    check_record(calibration.factors, shapes, model.op_types, "of the earlier run")
    expected = {*config.enabled_layers(), *(tensor.key for tensor in config.tensor_quantize)}
    channels = {name: len(correction) for name, correction in calibration.corrections.items()}
    if (
        set(calibration.factors) != expected
        or set(calibration.analyses) != set(config.enabled_layers())
        or any(count != fused.layers[name].channels for name, count in channels.items())
        or (calibration.batches and len(calibration.batches) != config.batch_num)
    ):
        raise StateError("The calibration of the earlier run does not fit the model.")
