"""Prepares a run for a device, and checks its result.

Before hours are spent, what the device's compiler would not read in the float model is an error. Layers that it would
compute in fp16 although they are quantized start in float: that costs nothing there, and is more accurate.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.devices.ascend_rules import Level
from amct_tensorflow.devices.check_text import told, verdict
from amct_tensorflow.devices.device_table import Device
from amct_tensorflow.devices.examined_graph import ExaminedGraph, examine
from amct_tensorflow.devices.graph_check import DeviceCheck, Finding, check_graph
from amct_tensorflow.devices.quantization_rules import knows_channels
from amct_tensorflow.devices.undone_layers import computes_its_size, why_undone
from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.inspection_output import few
from amct_tensorflow.ops import OP_TYPES
from amct_tensorflow.quantize.config.schema import QuantConfig

_MOST_LINES = 3
_NO_KERNEL = "the size of its output is computed, for which the device has no int8 kernel"


@dataclass(frozen=True)
class DeviceDemands:
    """What a device asks of a run.

    Attributes:
        config: the configuration, without zero points where the device would not correct them.
        in_float: per layer that stays in float, why, as the rest of a sentence about it.
    """

    config: QuantConfig
    in_float: Mapping[LayerName, str] = field(default_factory=dict)


def prepare_for_device(
    model: FloatModel, config: QuantConfig, device: Device, *, free_roll_back: bool = True
) -> DeviceDemands:
    """Returns what a device asks of a run; checks the float model by the device's rules, and logs what it finds.

    Args:
        model: the float model.
        config: what to quantize, and how.
        device: the device.
        free_roll_back: whether layers that the device computes in fp16 anyway stay in float.

    Raises:
        ModelError: the device's compiler is not expected to read the model.
    """
    if not device.has_rules:
        return DeviceDemands(config)
    fused = model.fuse(config.unfused_layers())
    _refuse_errors(check_graph(fused.graph_def, model.outputs), model, device)
    graph = examine(fused.graph_def, model.outputs)
    enabled = [name for name in config.enabled_layers() if name in graph.view.nodes]
    unsupported = {name: _NO_KERNEL for name in enabled if computes_its_size(graph.view, graph.view.nodes[name])}
    if unsupported:
        log_for("device").warning("%s: %s.", _stay(unsupported), _NO_KERNEL)
    undone = _undone(graph, [name for name in enabled if name not in unsupported]) if free_roll_back else {}
    if undone and len(undone) + len(unsupported) == len(enabled):
        log_for("device").warning(
            "GE is expected to compute every layer of %s in fp16: int8 gains nothing on %s. They are quantized all the "
            "same.", model.source, device.name,
        )  # fmt: skip
        undone = {}
    elif undone:
        log_for("device").info(
            "%s, as GE is expected to compute such in fp16 anyway (by rules of 2022): %s.",
            _stay(undone), _share(graph, undone),
        )  # fmt: skip
    in_float = {**unsupported, **undone}
    return DeviceDemands(_without_zero_points(graph, config, set(enabled) - in_float.keys()), in_float)


def _refuse_errors(check: DeviceCheck, model: FloatModel, device: Device) -> None:
    for finding in check.of_level(Level.WARNING)[:_MOST_LINES]:
        log_for("device").warning("%s", _line(finding))
    if len(check.of_level(Level.WARNING)) > _MOST_LINES:
        log_for("device").warning("`amct_tensorflow check` shows %d more.", len(check.of_level(Level.WARNING)) - 3)
    if check.errors:
        raise ModelError(
            f"{model.source} is not expected to compile for {device.name}: {_line(check.errors[0])} "
            f"{plural(len(check.errors), 'error')} in all, by public rules that were not tried; "
            "`amct_tensorflow check` lists them. Mend the model, or run without a device."
        )


def _line(finding: Finding) -> str:
    node = f"{finding.node}: " if finding.node else ""
    return f"{node}{finding.detail} {finding.text} ({told(finding.evidence[:1])}) {finding.remedy}"


def _undone(graph: ExaminedGraph, names: Iterable[LayerName]) -> dict[LayerName, str]:
    reasons = {name: why_undone(graph.view, graph.view.nodes[name]) for name in names}
    return {name: f"GE computes it in fp16 anyway: {why}" for name, why in reasons.items() if why is not None}


def _without_zero_points(graph: ExaminedGraph, config: QuantConfig, names: Collection[LayerName]) -> QuantConfig:
    """Returns a configuration without zero points of layers that read an unknown number of channels.

    A zero point that the device does not correct shifts every output, while one that is left out costs a bit at most.
    """
    if not graph.knows_shapes:
        return config
    layers = [name for name in config.layers if name in names and OP_TYPES[graph.view.nodes[name].op].has_weights]
    open_ones = [
        name
        for name in layers
        if config.layers[name].activation.asymmetric and not knows_channels(graph.view, graph.view.nodes[name])
    ]
    if open_ones:
        log_for("device").warning(
            "%s calibrated without a zero point, as GE corrects it only where the number of channels is known: %s.",
            plural(len(open_ones), "layer", "is", "are"), few(open_ones),
        )  # fmt: skip
    return config.without_zero_points(open_ones)


def _stay(names: Collection[str]) -> str:
    return f"{plural(len(names), 'layer')} {'starts' if len(names) == 1 else 'start'} in float"


def _share(graph: ExaminedGraph, names: Mapping[LayerName, str]) -> str:
    share = graph.share(names)
    known = "" if share is None else f"; {100 * share:.1f} % of the multiply-accumulates"
    return f"{few(list(names))}{known}"


def check_result(
    device: Device, graph_def: GraphDef, outputs: Sequence[str], path: str, ranges: Mapping[str, tuple[float, float]]
) -> DeviceCheck | None:
    """Checks the quantized model of a run, and logs the verdict; None if there are no rules for the device.

    Args:
        device: the device.
        graph_def: the quantized model.
        outputs: its output operators.
        path: the path of its file.
        ranges: per quantized layer, the least and the greatest value of its input in calibration.
    """
    if not device.has_rules:
        return None
    check = check_graph(graph_def, outputs, ranges, path)
    for finding in check.errors:
        log_for("device").error("%s", _line(finding))
    for finding in check.of_level(Level.WARNING):
        log_for("device").warning("%s", _line(finding))
    log_for("device").info("%s, by public rules; nothing was tried with ATC.", verdict(check))
    return check
