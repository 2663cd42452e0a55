"""Reads and writes config.json; every key is optional, every mistake is named (spec section 2)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from amct_tensorflow.errors import ConfigEmptyError, ConfigValueError
from amct_tensorflow.graph.names import LayerName, PreparedName
from amct_tensorflow.io.files import read_text, write_atomically
from amct_tensorflow.log import log_for
from amct_tensorflow.model.layers import LayerSpec
from amct_tensorflow.model.tables import Table, table_names
from amct_tensorflow.quantize.algorithms import ACTIVATION_ALGORITHMS, DEFAULT_ALGORITHM
from amct_tensorflow.quantize.algorithms.activation_algorithm import ActivationAlgorithm
from amct_tensorflow.quantize.algorithms.activation_factors import ACTIVATION_BITS, INT8_BITS
from amct_tensorflow.quantize.config.defaults import check_layers, default_layer, default_tables
from amct_tensorflow.quantize.config.schema import (
    COMPRESS_ONLY,
    FORCE_FP16_QUANT,
    GLOBAL_KEYS,
    SECOND_MOMENTS,
    WEIGHT_ROUNDINGS,
    ActivationConfig,
    LayerConfig,
    QuantConfig,
    TensorQuantize,
    WeightConfig,
)
from amct_tensorflow.quantize.config.section import Section
from amct_tensorflow.quantize.config.validate import (
    check_algorithm,
    check_batch_num,
    check_bits,
    check_can_be_balanced,
    check_can_be_compressed,
    check_names,
    check_product_bits,
    check_strength,
    check_tensor,
)

_STRENGTH = "dmq_balancer_param"


def read_config(
    path: str | Path, layers: Sequence[LayerSpec], op_types: Mapping[str, str], tables: Sequence[Table] = ()
) -> QuantConfig:
    """Reads a configuration and checks it against a graph.

    Args:
        path: JSON file.
        layers: quantizable layers of the graph.
        op_types: op type of every node, by name.
        tables: constants of the graph that are looked up.

    Raises:
        ConfigValueError: the file cannot be read, or names or holds something wrong.
        ConfigTypeError: a value has the wrong type.
        ConfigEmptyError: no layer is enabled.
    """
    text = read_text(path, f"Configuration {path}", ConfigValueError, "Write one with create_quant_config.")
    return parse_config(text, str(path), layers, op_types, tables)


def parse_config(
    text: str, source: str, layers: Sequence[LayerSpec], op_types: Mapping[str, str], tables: Sequence[Table] = ()
) -> QuantConfig:
    """Parses the text of a configuration; ``source`` names the file in messages. See ``read_config``."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise ConfigValueError(f"{source}: key {key!r} stands there twice. Delete the repeated item.")
            result[key] = value
        return result

    try:
        content = json.loads(text, object_pairs_hook=unique)
    except ConfigValueError:
        raise
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigValueError(f"{source} is not valid JSON: {error}. Correct it, or write a new one.") from error
    except ValueError as error:
        raise ConfigValueError(f"{source} holds a number that cannot be read: {error}. Correct it.") from error
    check_layers(layers)
    return _whole(Section(content, source), {layer.name: layer for layer in layers}, op_types, tables)


def _whole(
    section: Section, layers: dict[LayerName, LayerSpec], op_types: Mapping[str, str], tables: Sequence[Table]
) -> QuantConfig:
    version = section.integer("version", 1)
    if version != 1:
        raise ConfigValueError(f"{section.where}: version is {version}; only 1 is supported.")
    activation_offset = section.boolean("activation_offset", True)
    mode = section.string("fakequant_precision_mode", "DEFAULT")
    if mode not in ("DEFAULT", FORCE_FP16_QUANT):
        raise ConfigValueError(f"{section.where}: fakequant_precision_mode is {mode!r}; use {FORCE_FP16_QUANT!r}.")
    rounding = section.string("weight_rounding", SECOND_MOMENTS)
    if rounding not in WEIGHT_ROUNDINGS:
        known = " or ".join(map(repr, WEIGHT_ROUNDINGS))
        raise ConfigValueError(f"{section.where}: weight_rounding is {rounding!r}; use {known}.")
    skip_fusion_layers = section.strings("skip_fusion_layers")
    config = QuantConfig(
        batch_num=check_batch_num(section.integer("batch_num", 1), section.where),
        activation_offset=activation_offset,
        joint_quant=section.boolean("joint_quant", False),
        do_fusion=section.boolean("do_fusion", True),
        fakequant_precision_mode=None if mode == "DEFAULT" else mode,
        skip_fusion_layers=check_names(
            skip_fusion_layers, layers.values(), op_types, f"{section.where}: skip_fusion_layers"
        ),
        tensor_quantize=_tensors(section, op_types, activation_offset),
        bias_correction=section.boolean("bias_correction", True),
        weight_rounding=rounding,
        range_refinement=section.boolean("range_refinement", True),
        input_balancing=section.boolean("input_balancing", True),
        layers={name: _layer_or_default(section, layers[name], activation_offset) for name in sorted(layers)},
        tables=_tables(section, tables),
    )
    for key in section.unused():
        reason = (
            "is a node that cannot be quantized" if key in op_types else "is neither a key nor a layer of the graph"
        )
        raise ConfigValueError(f"{section.where}: {key!r} {reason}. Delete it.")
    if not config.enabled_layers() and not config.tensor_quantize:
        raise ConfigEmptyError(f"{section.where} enables no layer. Set quant_enable of at least one layer to true.")
    if config.joint_quant:
        log_for("config").warning("%s: joint_quant has no effect; layers are quantized one by one.", section.where)
    return config


def _tables(section: Section, tables: Sequence[Table]) -> dict[LayerName, bool]:
    """Reads the entries of tables, each under any of its names; a table without an entry stays in float."""
    found = default_tables(tables)
    said: dict[str, str] = {}
    for name, table in table_names(tables).items():
        if name in GLOBAL_KEYS or not section.has(name):
            continue
        entry = section.section(name)
        found[table.name] = entry.boolean(COMPRESS_ONLY, False)
        entry.refuse_unused()
        if found[table.name]:
            check_can_be_compressed(table, name, section.where)
        if table.name in said:
            raise ConfigValueError(
                f"{section.where}: {said[table.name]!r} and {name!r} look up the same table. Delete one of them."
            )
        said[table.name] = name
    return {name: found[name] for name in sorted(found) if name in default_tables(tables)}


def _tensors(section: Section, op_types: Mapping[str, str], activation_offset: bool) -> tuple[TensorQuantize, ...]:
    tensors: dict[str, TensorQuantize] = {}
    for item in section.items("tensor_quantize"):
        entry = Section(item, f"{section.where}, 'tensor_quantize'")
        for key in ("layer_name", "input_index"):
            if not entry.has(key):
                raise ConfigValueError(f"{entry.where}: {key} is missing. Add it.")
        name, index = entry.string("layer_name", ""), entry.integer("input_index", 0)
        check_tensor(name, index, op_types, entry.where)
        tensor = TensorQuantize(
            PreparedName(name), index, _activation(entry.section("activation_quant_params"), activation_offset)
        )
        entry.refuse_unused()
        if tensor.key in tensors:
            raise ConfigValueError(f"{entry.where} names input {tensor.key!r} twice. Delete the repeated item.")
        tensors[tensor.key] = tensor
    return tuple(tensors.values())


def _layer_or_default(section: Section, layer: LayerSpec, activation_offset: bool) -> LayerConfig:
    """Reads the entry of a layer, under either of its names; a layer without an entry is disabled."""
    for name in (layer.name, layer.written_as):
        if name is not None and name not in GLOBAL_KEYS and section.has(name):
            return _layer(section.section(name), layer, activation_offset)
    return default_layer(layer, enabled=False, asymmetric=activation_offset)


def _layer(section: Section, layer: LayerSpec, activation_offset: bool) -> LayerConfig:
    strength = None
    if section.has(_STRENGTH):
        strength = check_strength(section.number(_STRENGTH, 0), f"{section.where}: {_STRENGTH}")
        check_can_be_balanced(layer, f"{section.where}: {_STRENGTH}")
    config = LayerConfig(
        section.boolean("quant_enable", True),
        _layer_activation(section.section("activation_quant_params"), layer, activation_offset),
        _weights(section.section("weight_quant_params"), layer),
        strength,
    )
    section.refuse_unused()
    return config


def _layer_activation(section: Section, layer: LayerSpec, activation_offset: bool) -> ActivationConfig:
    config = _activation(section, activation_offset and layer.op.zero_point)
    if config.asymmetric and not layer.op.zero_point:
        raise ConfigValueError(f"{section.where}: asymmetric must be false for {layer.op_type}.")
    if layer.is_product:
        check_product_bits(config, section.where)
    return config


def _bits(section: Section, choices: Sequence[int]) -> int:
    bits = section.integer("num_bits", INT8_BITS)
    if bits not in choices:
        known = f"only {choices[0]} is supported" if len(choices) == 1 else f"use {' or '.join(map(str, choices))}"
        raise ConfigValueError(f"{section.where}: num_bits is {bits}; {known}.")
    return bits


def _activation(section: Section, activation_offset: bool) -> ActivationConfig:
    num_bits = _bits(section, ACTIVATION_BITS)
    name = section.string("act_algo", DEFAULT_ALGORITHM.name)
    if name not in ACTIVATION_ALGORITHMS:
        known = " or ".join(map(repr, ACTIVATION_ALGORITHMS))
        raise ConfigValueError(f"{section.where}: act_algo is {name!r}; use {known}.")
    algorithm = ACTIVATION_ALGORITHMS[name]
    _refuse_parameters_of_others(section, algorithm)
    parameters = {key: section.parameter(key, default) for key, default in algorithm.parameters().items()}
    asymmetric = section.boolean("asymmetric", activation_offset and num_bits == INT8_BITS)
    config = ActivationConfig(check_algorithm(algorithm(**parameters), section.where), asymmetric, num_bits)
    check_bits(config, section.where)
    section.refuse_unused()
    return config


def _refuse_parameters_of_others(section: Section, algorithm: type[ActivationAlgorithm]) -> None:
    for other in ACTIVATION_ALGORITHMS.values():
        foreign = [key for key in other.parameters() if section.has(key) and key not in algorithm.parameters()]
        if foreign:
            belong, them = ("belongs", "it") if len(foreign) == 1 else ("belong", "them")
            raise ConfigValueError(
                f"{section.where}: {', '.join(foreign)} {belong} to act_algo {other.name}. Delete {them}, or set "
                "act_algo."
            )


def _weights(section: Section, layer: LayerSpec) -> WeightConfig:
    _bits(section, (INT8_BITS,))
    algorithm = section.string("wts_algo", "arq_quantize")
    if algorithm != "arq_quantize":
        raise ConfigValueError(f"{section.where}: wts_algo is {algorithm!r}; only 'arq_quantize' is supported.")
    channel_wise = section.boolean("channel_wise", layer.channel_wise)
    if channel_wise and not layer.op.has_weights:
        raise ConfigValueError(f"{section.where}: channel_wise must be false for {layer.op_type}.")
    section.refuse_unused()
    return WeightConfig(channel_wise)


def dump_config(config: QuantConfig) -> str:
    """Returns a configuration as JSON in the style of the original."""
    content: dict[str, Any] = {
        "version": config.version,
        "batch_num": config.batch_num,
        "activation_offset": config.activation_offset,
        "joint_quant": config.joint_quant,
        "do_fusion": config.do_fusion,
        "fakequant_precision_mode": config.fakequant_precision_mode,
        "skip_fusion_layers": list(config.skip_fusion_layers),
        "tensor_quantize": [
            {
                "layer_name": tensor.layer_name,
                "input_index": tensor.input_index,
                "activation_quant_params": _activation_content(tensor.activation),
            }
            for tensor in config.tensor_quantize
        ],
        "bias_correction": config.bias_correction,
        "weight_rounding": config.weight_rounding,
        "range_refinement": config.range_refinement,
        "input_balancing": config.input_balancing,
    }
    if config.fakequant_precision_mode is None:
        del content["fakequant_precision_mode"]
    entries: dict[str, Any] = {name: _layer_content(layer) for name, layer in config.layers.items()}
    entries.update({name: {COMPRESS_ONLY: compressed} for name, compressed in config.tables.items()})
    content.update({name: entries[name] for name in sorted(entries)})
    return json.dumps(content, indent=4, separators=(",", ":"), allow_nan=False)


def _activation_content(activation: ActivationConfig) -> dict[str, Any]:
    return {"num_bits": activation.num_bits, **activation.algorithm.content(), "asymmetric": activation.asymmetric}


def _layer_content(layer: LayerConfig) -> dict[str, Any]:
    return {
        "quant_enable": layer.quant_enable,
        **({} if layer.dmq_strength is None else {_STRENGTH: layer.dmq_strength}),
        "activation_quant_params": _activation_content(layer.activation),
        "weight_quant_params": {
            "num_bits": INT8_BITS,
            "wts_algo": "arq_quantize",
            "channel_wise": layer.weights.channel_wise,
        },
    }


def write_config(path: str | Path, config: QuantConfig) -> None:
    """Writes a configuration.

    Raises:
        OutputError: the file cannot be written.
    """
    write_atomically(path, dump_config(config))
