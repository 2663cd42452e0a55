"""The public steps: configure, balance, quantize (calibrate), save; and convert."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import tensorflow as tf

from amct_tensorflow.errors import ConfigEmptyError, ConfigValueError, ModelError
from amct_tensorflow.graph.names import LayerName, RecordKey
from amct_tensorflow.graph.view import GraphView, upstream
from amct_tensorflow.io.arguments import require_graph, require_names, require_path, require_positive, require_type
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.fusion import FusedGraph
from amct_tensorflow.model.inspection import inspect_model
from amct_tensorflow.model.layers import layer_names
from amct_tensorflow.model.loading.load import load_frozen
from amct_tensorflow.model.model_file import check_not_quantized, check_outputs
from amct_tensorflow.quantize.calibration.balancing import Balancer
from amct_tensorflow.quantize.calibration.calibrator import CalibrationResult, Calibrator
from amct_tensorflow.quantize.config.defaults import default_config
from amct_tensorflow.quantize.config.json_file import read_config, write_config
from amct_tensorflow.quantize.config.schema import QuantConfig
from amct_tensorflow.quantize.config.simplified import read_simplified
from amct_tensorflow.quantize.qat.conversion import FakeQuantizedModel, read_fake_quantized
from amct_tensorflow.quantize.quantized.builder import quantize_graph
from amct_tensorflow.quantize.quantized.model_files import ModelPaths, write_quantized_model
from amct_tensorflow.quantize.quantized.node_map import dump_node_map
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.quantize.record.adapted_factors import adapt_factors
from amct_tensorflow.quantize.record.corrections import read_corrections, remove_corrections, write_corrections
from amct_tensorflow.quantize.record.factors import LayerCorrection, LayerFactors, unfused_layers, wide_layers
from amct_tensorflow.quantize.record.record_file import (
    check_record,
    check_tables,
    is_pending,
    read_balance,
    read_record,
    read_tables,
    write_record,
)
from amct_tensorflow.quantize.record.scale_fit import fuse_as_scales_fit
from amct_tensorflow.results.coverage import log_coverage
from amct_tensorflow.results.file_size import log_file_size

_Recorded = TypeVar("_Recorded")


def create_quant_config(
    config_file: str,
    graph: tf.Graph,
    skip_layers: list[str] | None = None,
    batch_num: int = 1,
    activation_offset: bool = True,
    config_defination: str | None = None,
    *,
    weight_compress_only: bool = False,
) -> None:
    """Writes the quantization configuration of a graph, with every quantizable layer and every default.

    Args:
        config_file: JSON file to write; an existing one is overwritten.
        graph: float graph in inference form.
        skip_layers: names of layers to keep in float.
        batch_num: number of calibration batches.
        activation_offset: whether activations are quantized with a zero point (asymmetric).
        config_defination: simplified configuration (.cfg) to take everything from; the other arguments about layers and
            tables then have no effect.
        weight_compress_only: whether tables, constants whose rows are looked up as those of an embedding, are stored in
            int8 with a scale per row.

    Raises:
        ArgumentTypeError: an argument has the wrong type.
        ConfigValueError: a name or value is wrong, or nothing is left to quantize.
        ModelError: the graph is quantized already.
    """
    name = "create_quant_config"
    require_path(name, "config_file", config_file)
    require_graph(name, graph)
    model = FloatModel.of_graph(graph)
    config = _make_config(
        name, model, skip_layers, batch_num, activation_offset, config_defination, weight_compress_only
    )
    write_config(config_file, config)
    model.keep_prepared()
    log_for(name).debug("The configuration of %d layers is saved in %s", len(config.layers), config_file)


def make_quant_config(
    model: FloatModel,
    skip_layers: list[str] | None = None,
    batch_num: int = 1,
    activation_offset: bool = True,
    config_defination: str | None = None,
    *,
    weight_compress_only: bool = False,
) -> QuantConfig:
    """Returns the configuration of a loaded model, restricted to the layers on which its outputs depend.

    Args:
        model: the float model.
        skip_layers: as for ``create_quant_config``.
        batch_num: as for ``create_quant_config``.
        activation_offset: as for ``create_quant_config``.
        config_defination: as for ``create_quant_config``.
        weight_compress_only: as for ``create_quant_config``.

    Raises:
        ArgumentTypeError: an argument has the wrong type.
        ConfigValueError: a name or value is wrong, or nothing is left to quantize.
    """
    name = "make_quant_config"
    require_type(name, "model", model, FloatModel)
    config = _make_config(
        name, model, skip_layers, batch_num, activation_offset, config_defination, weight_compress_only
    )
    return _leave_out_unused(config, model.view, model.outputs) if model.outputs else config


def _make_config(
    name: str,
    model: FloatModel,
    skip_layers: list[str] | None,
    batch_num: int,
    activation_offset: bool,
    config_defination: str | None,
    weight_compress_only: bool,
) -> QuantConfig:
    """Checks the arguments of the public function ``name``, and makes the configuration."""
    if skip_layers is not None:
        require_names(name, "skip_layers", skip_layers, may_be_empty=True)
    require_positive(name, "batch_num", batch_num)
    require_type(name, "activation_offset", activation_offset, bool)
    require_type(name, "weight_compress_only", weight_compress_only, bool)
    layers, op_types = model.layers, model.op_types
    if config_defination is not None:
        require_path(name, "config_defination", config_defination)
        return read_simplified(config_defination, layers, op_types, model.tables)
    config = default_config(
        layers,
        op_types,
        skip_layers=skip_layers or (),
        batch_num=batch_num,
        activation_offset=activation_offset,
        tables=model.tables,
        compress=weight_compress_only,
    )
    if weight_compress_only and not config.tables:
        reasons = "; ".join(f"{table.name!r}: {table.reason}" for table in model.tables) or "nothing is looked up"
        log_for(name).warning("weight_compress_only has no effect: no table can be stored in int8 (%s).", reasons)
    return config


def quantize_model(
    graph: tf.Graph, config_file: str, record_file: str, calib_outputs: list[str] | None = None
) -> list[tf.Variable]:
    """Prepares a graph for calibration, in place; open the session afterwards.

    Run the graph's outputs on ``batch_num`` batches afterwards, in any session on ``graph``; the record is written
    when the last batch has gone through every layer. The graph's values do not change.

    Args:
        graph: float graph in inference form; it gets calibration nodes.
        config_file: configuration written by ``create_quant_config``.
        record_file: file for the factors; it is emptied now, but for what ``quantize_preprocess`` has just left there:
            the model is balanced so.
        calib_outputs: names of the output operators; they are the same afterwards, since no node is replaced. Give
            them where one is read by a BatchNorm or a bias, which must not be folded into it then: what is calibrated
            has to be what ``save_model`` quantizes, and it refuses anything else.

    Returns:
        The variables that were inserted: none, so that checkpoints and initializers need no special care.

    Raises:
        ArgumentTypeError: an argument has the wrong type.
        ConfigValueError: the configuration does not fit the graph.
        ModelError: the graph is quantized already, or lacks an output.
        CalibrationError: weights hold NaN or Inf.
    """
    name = "quantize_model"
    model, config = _begin(name, graph, config_file, record_file, calib_outputs=calib_outputs)

    def write(result: CalibrationResult) -> None:
        write_corrections(record_file, result.factors, result.corrections, calibrator.fused.layers)
        write_record(record_file, result.factors, result.balance, result.tables, announce=False)

    inspection = inspect_model(model, config.unfused_layers())
    log_coverage(inspection, config.enabled_layers(), config.wide_layers(), config.compressed_tables())
    balance = _by_layer(model, _pending_balance(record_file))
    if config.asks_for_balancing() and not balance:
        log_for(name).warning(
            "dmq_balancer_param has no effect: no layer is balanced in %s. Call quantize_preprocess before.",
            record_file,
        )
    calibrator = Calibrator(model, config, write, balance=balance)
    write_record(record_file, {}, balance, announce=not balance)
    remove_corrections(record_file)
    return []


def _begin(
    name: str, graph: tf.Graph, config_file: str, record_file: str, **outputs: list[str] | None
) -> tuple[FloatModel, QuantConfig]:
    """Checks the arguments of the public function ``name``, its outputs as it calls them; returns model and config."""
    require_graph(name, graph)
    require_path(name, "config_file", config_file)
    require_path(name, "record_file", record_file)
    ((argument, names),) = outputs.items()
    if names is not None:
        require_names(name, argument, names)
    model = FloatModel.of_graph(graph, names or ())
    return model, read_config_for(model, config_file)


def save_model(pb_model: str, outputs: list[str], record_file: str, save_path: str) -> None:
    """Writes the quantized model of a calibrated one.

    Args:
        pb_model: the original float model, not the calibrated graph: a frozen one (.pb), the directory of a SavedModel,
            a Keras model (.keras, .h5), or a TensorFlow.js model (.json, or the directory of a model.json). What is
            not frozen is, and the result is written, too.
        outputs: output operators of the frozen graph, without ``:0``.
        record_file: record that the calibration wrote; its bias corrections are taken from the file beside it.
        save_path: folder and prefix: ``out/net`` gives ``out/net_quantized.pb`` and ``out/net_quant.json``.

    Raises:
        ArgumentTypeError: an argument has the wrong type.
        ModelError: the model cannot be read, or lacks an output.
        RecordError: the record is incomplete or does not belong to the model.
        OutputError: a file cannot be written.
    """
    _check_save_arguments("save_model", pb_model, outputs, record_file, save_path)
    _save("save_model", pb_model, outputs, record_file, save_path, corrected=True)


def convert_model(pb_model: str, outputs: list[str], record_file: str, save_path: str) -> None:
    """Writes the quantized model for factors that the user computed.

    Arguments and errors are those of ``save_model``; biases are not corrected. If the weight scales of a layer fit its
    weights only with the BatchNorm folded in, or only without, the layer is fused accordingly, whatever the record's
    ``skip_fusion`` says. A warning names such layers, and those that fit neither way. Scales that cannot serve a layer
    are replaced or widened, and a line of the log says so; see ``record.adapted_factors``.
    """
    _check_save_arguments("convert_model", pb_model, outputs, record_file, save_path)
    _save("convert_model", pb_model, outputs, record_file, save_path, corrected=False)


def _pending_balance(record_file: str) -> dict[RecordKey, tuple[float, ...]]:
    """Returns the balance factors that ``quantize_preprocess`` left in a record; empty if it was not called before."""
    balance = read_balance(record_file) if is_pending(record_file) else {}
    if balance:
        log_for("quantize_model").info(
            "The inputs of %s are balanced, as quantize_preprocess left it in %s.",
            plural(len(balance), "layer"),
            record_file,
        )
    return balance


def read_config_for(model: FloatModel, config_file: str) -> QuantConfig:
    """Reads the configuration of a model, and disables the layers on which no output depends.

    Such layers, an auxiliary head's for instance, never see data.

    Raises:
        ConfigEmptyError: no layer is left.
        ConfigValueError: the configuration does not fit the model, or no output depends on a tensor of tensor_quantize,
            which was asked for by name.
    """
    config = read_config(config_file, model.layers, model.op_types, model.tables)
    return _leave_out_unused(config, model.view, model.outputs) if model.outputs else config


def _leave_out_unused(config: QuantConfig, view: GraphView, outputs: Sequence[str]) -> QuantConfig:
    needed = upstream(view.nodes, outputs)
    for tensor in config.tensor_quantize:
        if tensor.layer_name not in needed:
            raise ConfigValueError(
                f"tensor_quantize names {tensor.layer_name!r}, which {', '.join(outputs)} does not depend on; no data "
                "would ever reach it. Delete it from tensor_quantize, or check the output names."
            )
    tables = {name: compressed and name in needed for name, compressed in config.tables.items()}
    config = replace(config, tables=tables)
    unused = [name for name in config.enabled_layers() if name not in needed]
    if not unused:
        return config
    log_for("config").warning(
        "%s in float, on which the outputs do not depend: %s",
        plural(len(unused), "layer", "stays", "stay"),
        ", ".join(unused),
    )
    restricted = config.with_enabled(dict.fromkeys(unused, False))
    if not restricted.enabled_layers() and not restricted.tensor_quantize:
        raise ConfigEmptyError(f"No layer that is enabled contributes to {', '.join(outputs)}. Check the output names.")
    return restricted


def _check_save_arguments(
    function: str, pb_model: str, outputs: Sequence[str], record_file: str, save_path: str
) -> None:
    require_path(function, "pb_model", pb_model)
    require_names(function, "outputs", outputs)
    require_path(function, "record_file", record_file)
    require_path(function, "save_path", save_path, may_be_empty=True)


def _save(
    function: str, pb_model: str, outputs: list[str], record_file: str, save_path: str, *, corrected: bool
) -> None:
    model = FloatModel.load(pb_model, outputs)
    factors, fused = _load_factors(model, record_file)
    corrections = _load_corrections(model, record_file, fused) if corrected else {}
    tables = [table.name for table in check_tables(read_tables(record_file), model.tables, record_file).values()]
    fused = fuse_as_scales_fit(model, factors, fused)
    if not corrected:
        factors = adapt_factors(factors, fused, record_file)
        kept = [name for name, layer in fused.layers.items() if layer.batch_norm_kept]
        log_coverage(inspect_model(model, kept), factors.keys(), wide_layers(factors), tables)
    paths = ModelPaths.of(save_path)
    plan = QuantizationPlan(fused, factors, corrections, outputs, tables)
    quantized = quantize_graph(plan)
    write_quantized_model(paths, quantized.model, dump_node_map(quantized), model.frozen)
    log_file_size(model.original_bytes, quantized, model.tables, tables)
    log_for(function).info("The model is saved in %s", paths.model)


def _load_factors(model: FloatModel, record_file: str) -> tuple[dict[LayerName, LayerFactors], FusedGraph]:
    """Reads a record, fuses the model as the record says, and checks that the two fit.

    Raises:
        RecordError: it is incomplete or does not belong to the model.
    """
    factors = _by_layer(model, read_record(record_file))
    fused = model.fuse(unfused_layers(factors), _by_layer(model, read_balance(record_file)))
    shapes = {name: (layer.op, layer.channels) for name, layer in fused.layers.items()}
    check_record(factors, shapes, model.op_types, str(record_file))
    return factors, fused


def _load_corrections(model: FloatModel, record_file: str, fused: FusedGraph) -> dict[LayerName, LayerCorrection]:
    """Reads the corrections beside a checked record. Raises RecordError if they belong to another model."""
    factors = read_record(record_file)
    names = _by_layer(model, {key: key for key in factors})
    layers = {key: fused.layers[name] for name, key in names.items() if name in fused.layers}
    return _by_layer(model, read_corrections(record_file, factors, layers))


def _by_layer(model: FloatModel, recorded: Mapping[RecordKey, _Recorded]) -> dict[LayerName, _Recorded]:
    """Returns the entries of a record by the names that the model's layers have with its outputs."""
    names = layer_names(model.layers)
    return {names.get(key, LayerName(key)): value for key, value in recorded.items()}


def quantize_preprocess(graph: tf.Graph, config_file: str, record_file: str, outputs: list[str] | None = None) -> None:
    """Prepares a graph for balancing, in place; open the session afterwards.

    Run the graph's outputs on ``batch_num`` batches afterwards, in any session on ``graph``; the record then says by
    what the inputs of layers are divided. The graph's values do not change. Call ``quantize_model`` next, on a fresh
    graph, with the same record.

    Tensors are balanced where weights and other constants of the model take the factors in, so that it computes the
    same and has no node more. ``dmq_balancer_param`` of the configuration says which layers ask for it, and with which
    strength; if none does, all quantized layers are balanced with 0.5. A dense layer that asks for it and reads another
    tensor, as the output of a LayerNorm that a residual sum reads too, gets a product with a constant in front of it. A
    warning names each layer that asks in vain.

    Args:
        graph: float graph in inference form; it gets nodes that observe.
        config_file: configuration written by ``create_quant_config``.
        record_file: file for the factors; it is emptied now.
        outputs: names of the output operators; needed if another node reads one, since its values must not change.

    Raises:
        ArgumentTypeError: an argument has the wrong type.
        ConfigValueError: the configuration does not fit the graph.
        ModelError: the graph is quantized already, or lacks an output.
    """
    name = "quantize_preprocess"
    model, config = _begin(name, graph, config_file, record_file, outputs=outputs)

    def write(balance: Mapping[LayerName, tuple[float, ...]]) -> None:
        write_record(record_file, {}, balance, announce=False)

    Balancer(model, config, write)
    write_record(record_file, {})
    remove_corrections(record_file)


quantized_preprocess = quantize_preprocess  # so it stands in the examples of the original's documentation


def convert_qat_model(pb_model: str, outputs: list[str], save_path: str, record_file: str | None = None) -> list[str]:
    """Writes the quantized model of one whose training faked quantization.

    A layer is quantized if both its input and its weights come from ``FakeQuantWithMinMaxVars``,
    ``FakeQuantWithMinMaxArgs`` or, for weights, ``FakeQuantWithMinMaxVarsPerChannel``, and int8 has their values; an
    AvgPool, if its input does. Its integers are those that the fake quantizers imply; only biases are rounded anew.
    What stands in front of other ops becomes a pair of AscendQuant and AscendAntiQuant. A warning names each layer
    that stays in float although there are fake quantizers around it, and why.

    Args:
        pb_model: the frozen model (.pb) with its fake quantizers, or the directory of a SavedModel.
        outputs: output operators of the frozen graph, without ``:0``.
        save_path: folder and prefix: ``out/net`` gives ``out/net_quantized.pb`` and ``out/net_quant.json``.
        record_file: file for the factors of the layers; ``convert_model`` takes it, with the float model.

    Returns:
        The output operators of the quantized model; they have the names that they had.

    Raises:
        ArgumentTypeError: an argument has the wrong type.
        ModelError: the model cannot be read, lacks an output, or has no layer that can be converted.
        RecordError: a bias does not fit 32 bits.
        OutputError: a file cannot be written.
    """
    name = "convert_qat_model"
    require_path(name, "pb_model", pb_model)
    require_names(name, "outputs", outputs)
    require_path(name, "save_path", save_path, may_be_empty=True)
    if record_file is not None:
        require_path(name, "record_file", record_file)
    frozen = load_frozen(pb_model)
    view = GraphView(frozen.graph_def)
    check_not_quantized(view, pb_model)
    check_outputs(view, outputs, pb_model, frozen.outputs)
    model = read_fake_quantized(view, outputs, pb_model)
    _tell(model, pb_model)
    paths = ModelPaths.of(save_path)
    quantized, original = quantize_graph(model.plan), frozen.data if frozen.frozen_now else None
    write_quantized_model(paths, quantized.model, dump_node_map(quantized), original)
    if record_file is not None:
        remove_corrections(record_file)
        write_record(record_file, model.layers)
    log_for(name).info("The model is saved in %s", paths.model)
    return list(outputs)


def _tell(model: FakeQuantizedModel, pb_model: str) -> None:
    """Logs which layers are quantized, and why others are not.

    Raises:
        ModelError: nothing is.
    """
    log = log_for("convert_qat_model")
    for name, reason in model.unquantizable.items():
        log.warning("Layer %s stays in float: %s.", name, reason)
    if model.unasked:
        log.warning(
            "%s in float, which no fake quantizers surround: %s",
            plural(len(model.unasked), "layer", "stays", "stay"), ", ".join(model.unasked),
        )  # fmt: skip
    if model.kept:
        log.warning(
            "%s unchanged (int8 does not have the values, or only a run tells them): %s",
            plural(len(model.kept), "fake quantizer", "stays", "stay"), ", ".join(model.kept),
        )  # fmt: skip
    if not model.layers:
        raise ModelError(
            f"No layer of {pb_model} has fake quantizers of int8 around it. Give a model that was trained with them, "
            "and frozen as it is; a float model is quantized by accuracy_based_auto_calibration."
        )
    log.info("%s will be in int8.", plural(len(model.layers), "layer"))
