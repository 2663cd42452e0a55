"""Checks a model in a file for a device, with what the report beside it tells of its calibration."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from amct_tensorflow.devices.device_table import ASCEND, DEVICES, choose_device
from amct_tensorflow.devices.graph_check import DeviceCheck, check_graph
from amct_tensorflow.errors import ArgumentValueError, ModelError, ReportError
from amct_tensorflow.graph.view import Shape
from amct_tensorflow.io.arguments import require_names, require_path
from amct_tensorflow.log import log_for
from amct_tensorflow.model.input_shapes import fix_input_shapes
from amct_tensorflow.model.loading.load import load_frozen
from amct_tensorflow.results.report.document import Layer
from amct_tensorflow.results.report.report_json import REPORT_NUMBERS, read_report

_NAME = "check"


def check(
    model_file: str | Path,
    outputs: Sequence[str] = (),
    *,
    device: str = ASCEND.name,
    input_shapes: Mapping[str, Shape] | None = None,
    report: str | Path | None = None,
) -> DeviceCheck:
    """Checks what the compiler of a device is expected to make of a model, by public rules.

    Args:
        model_file: a quantized model, or a float one of any form that can be quantized.
        outputs: output operators, without ``:0``; without any, all nodes of the graph are examined.
        device: the device; ``"ascend"`` is the only one with rules.
        input_shapes: shapes of inputs that the model leaves open, by operator; None stands for a length that stays so.
        report: the report of the run that wrote the model, which tells the ranges of values in calibration; None for
            the one beside it, if there is one.

    Returns:
        The findings. None of them was tried with the compiler; each says where its rule comes from.

    Raises:
        ArgumentTypeError: an argument has the wrong type.
        ArgumentValueError: there are no rules for the device, or an input has no such shape.
        ModelNotFoundError: there is no such file.
        ModelError: it holds no model, a damaged one, or one without one of ``outputs``.
        ReportError: the report that was given is damaged, or not there.
    """
    require_path(_NAME, "model_file", model_file)
    require_names(_NAME, "outputs", outputs, may_be_empty=True)
    if not choose_device(_NAME, device).has_rules:
        known = [each.name for each in DEVICES.values() if each.has_rules]
        raise ArgumentValueError(f"{_NAME}: there are no rules for {device!r}; use {' or '.join(map(repr, known))}.")
    graph_def = load_frozen(model_file).graph_def
    names = {str(node.name) for node in graph_def.node}
    for output in outputs:
        if output not in names:
            raise ModelError(f"Output {output!r} is not a node of {model_file}. Give operator names without ':0'.")
    fixed = fix_input_shapes(graph_def, model_file, input_shapes) if input_shapes else graph_def
    layers = _reported_layers(Path(model_file)) if report is None else read_report(Path(report)).layers
    return check_graph(fixed, outputs, observed_ranges(layers), str(model_file))


def observed_ranges(layers: Sequence[Layer]) -> dict[str, tuple[float, float]]:
    """Returns per layer of a report the least and the greatest value of its input in calibration."""
    observed = {layer.name: layer.activation.observed for layer in layers if layer.activation is not None}
    return {name: (each.lowest, each.highest) for name, each in observed.items() if each is not None}


def _reported_layers(model: Path) -> Sequence[Layer]:
    """Returns the layers in the report beside a model; none if there is no report, or that of another model."""
    beside = model.parent / REPORT_NUMBERS
    if not model.is_file() or not beside.is_file():
        return ()
    try:
        found = read_report(beside)
    except ReportError as error:
        log_for(_NAME).warning("%s is left out, and with it the ranges of calibration: %s", beside, error)
        return ()
    return found.layers if found.model == model.name else ()
