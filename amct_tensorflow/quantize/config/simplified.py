"""The simplified configuration: a short text-format protobuf (.cfg) instead of config.json (spec section 3)."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from google.protobuf import text_format

from amct_tensorflow.errors import ConfigValueError
from amct_tensorflow.graph.names import LayerName, PreparedName
from amct_tensorflow.io.files import read_text
from amct_tensorflow.log import log_for
from amct_tensorflow.model.layers import LayerSpec
from amct_tensorflow.model.tables import Table, table_names
from amct_tensorflow.ops import OP_TYPES, has, op_types_with
from amct_tensorflow.ops.traits import Lookup
from amct_tensorflow.quantize.algorithms import ACTIVATION_ALGORITHMS, DEFAULT_ALGORITHM
from amct_tensorflow.quantize.algorithms.activation_algorithm import Parameter
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS
from amct_tensorflow.quantize.algorithms.dmq import DEFAULT_STRENGTH
from amct_tensorflow.quantize.config.defaults import check_layers, check_some_enabled, default_layer
from amct_tensorflow.quantize.config.schema import (
    FORCE_FP16_QUANT,
    SECOND_MOMENTS,
    WEIGHT_ROUNDINGS,
    ActivationConfig,
    LayerConfig,
    QuantConfig,
    TensorQuantize,
    WeightConfig,
)
from amct_tensorflow.quantize.config.simplified_message import (
    DATA_TYPES,
    algorithm_field,
    new_config,
    parameter_fields,
)
from amct_tensorflow.quantize.config.simplified_tables import TableChoices
from amct_tensorflow.quantize.config.validate import (
    check_algorithm,
    check_batch_num,
    check_bits,
    check_can_be_balanced,
    check_names,
    check_product_bits,
    check_strength,
    check_tensor,
)

_DEPRECATED = ("conv_calibration_config", "fc_calibration_config")
_NUQ = "asks for non-uniform quantization, which is not supported: weights become int8 in even steps. Delete it."


class _Chosen(NamedTuple):
    """The CalibrationConfig that applies to a layer, and where it stands."""

    message: Any
    where: str
    is_common: bool


def read_simplified(
    path: str | Path, layers: Sequence[LayerSpec], op_types: Mapping[str, str], tables: Sequence[Table] = ()
) -> QuantConfig:
    """Reads a simplified configuration and fills in the defaults of every layer.

    Args:
        path: text-format protobuf file.
        layers: quantizable layers of the graph.
        op_types: op type of every node, by name.
        tables: constants of the graph that are looked up.

    Raises:
        ConfigValueError: the file cannot be read, or names or holds something wrong.
    """
    text = read_text(path, str(path), ConfigValueError, "Give a simplified configuration (.cfg).")
    return parse_simplified(text, str(path), layers, op_types, tables)


def parse_simplified(
    text: str, source: str, layers: Sequence[LayerSpec], op_types: Mapping[str, str], tables: Sequence[Table] = ()
) -> QuantConfig:
    """Parses the text of a simplified configuration; ``source`` names the file in messages."""
    message = new_config()
    try:
        text_format.Parse(text, message)
    except (text_format.ParseError, ValueError, RecursionError) as error:
        raise ConfigValueError(f"{source} is malformed: {error}. Correct it.") from error
    if not message.IsInitialized():
        missing = ", ".join(message.FindInitializationErrors())
        raise ConfigValueError(f"{source} lacks {missing}. Add it.")
    check_layers(layers)
    return _Resolver(message, source, layers, op_types, tables).resolve()


class _Resolver:
    """Works out what a message means for each layer of a graph."""

    def __init__(
        self,
        message: Any,
        source: str,
        layers: Sequence[LayerSpec],
        op_types: Mapping[str, str],
        tables: Sequence[Table],
    ) -> None:
        self._message = message
        self._source = source
        self._layers = {layer.name: layer for layer in sorted(layers, key=lambda layer: layer.name)}
        self._op_types = op_types
        by_layer = self._overrides("override_layer_configs", "layer_name")
        by_type = self._overrides("override_layer_types", "layer_type")
        known = table_names(tables)
        self._tables = TableChoices(
            source,
            tables,
            message.common_config,
            {name: by_layer.pop(name) for name in [*by_layer] if name in known},
            {op: by_type.pop(op) for op in [*by_type] if has(op, Lookup)},
        )
        self._by_layer, self._by_type = by_layer, by_type

    def resolve(self) -> QuantConfig:
        """Returns the whole configuration."""
        message, source = self._message, self._source
        self._refuse_unsupported()
        self._check_all()
        skipped = self._names("skip_layers", message.skip_layers)
        skipped_types = self._types("skip_layer_types", message.skip_layer_types)
        by_layer = self._names("override_layer_configs", self._by_layer)
        self._by_layer = dict(zip(by_layer, self._by_layer.values(), strict=True))
        self._types("override_layer_types", self._by_type)
        force_fp16 = message.HasField("fakequant_precision_mode") and message.fakequant_precision_mode == 1
        config = QuantConfig(
            batch_num=check_batch_num(_given(message, "batch_num", 1), source),
            activation_offset=_given(message, "activation_offset", True),
            joint_quant=message.joint_quant,
            do_fusion=_given(message, "do_fusion", True),
            fakequant_precision_mode=FORCE_FP16_QUANT if force_fp16 else None,
            skip_fusion_layers=self._names("skip_fusion_layers", message.skip_fusion_layers),
            tensor_quantize=self._tensors(),
            bias_correction=_given(message, "bias_correction", True),
            weight_rounding=_rounding(message),
            range_refinement=_given(message, "range_refinement", not self._names_algorithm()),
            input_balancing=_given(message, "input_balancing", True),
            layers={
                name: self._layer(layer, name not in skipped and layer.op_type not in skipped_types)
                for name, layer in self._layers.items()
            },
            tables=self._tables.resolve(),
        )
        if not config.tensor_quantize:
            check_some_enabled(config)
        self._tell_what_has_no_effect()
        return config

    def _refuse_unsupported(self) -> None:
        if self._message.HasField("nuq_config"):
            raise ConfigValueError(f"{self._source}: nuq_config {_NUQ}")

    def _check_all(self) -> None:
        """Checks all messages of the file, also those that apply to no layer."""
        message = self._message
        overrides = [*self._by_layer.items(), *self._by_type.items()]
        said = [_Chosen(each, _override(self._source, name), False) for name, each in overrides]
        said += [
            _Chosen(getattr(message, field), f"{self._source}, {field}", True)
            for field in ("common_config", *self._deprecated())
            if message.HasField(field)
        ]
        for each in said:
            if each.message.HasField("nuq_quantize"):
                raise ConfigValueError(f"{each.where}: nuq_quantize {_NUQ}")
            self._activation(each)
            _given_strength(each)
            if each.message.weight_compress_only and each.message is not message.common_config:
                raise ConfigValueError(
                    f"{each.where}: weight_compress_only must be false for layers, whose weights and activations are "
                    f"quantized together; it is for tables, which {' and '.join(op_types_with(Lookup))} look up."
                )

    def _tell_what_has_no_effect(self) -> None:
        log, message = log_for("config"), self._message
        if message.joint_quant:
            log.warning("%s: joint_quant has no effect; layers are quantized one by one.", self._source)
        if message.skip_approximation_layers:
            log.warning(
                "%s: skip_approximation_layers has no effect, since no layer is approximated anyway.", self._source
            )
        for field in _DEPRECATED:
            if message.HasField(field) and field not in self._deprecated():
                log.warning(
                    "%s: %s has no effect beside common_config or override_layer_types. Delete it.",
                    self._source, field,
                )  # fmt: skip

    def _deprecated(self) -> tuple[str, ...]:
        """Returns the deprecated fields that count, which they do only if no newer field is given."""
        return () if self._by_type or self._message.HasField("common_config") else _DEPRECATED

    def _names_algorithm(self) -> bool:
        """Tells whether the file names an algorithm for activations; then ranges are not refined."""
        message = self._message
        common = [getattr(message, field) for field in ("common_config", *_DEPRECATED)]
        said = [*common, *self._by_layer.values(), *self._by_type.values(), *message.tensor_quantize]
        return any(map(_given_algorithms, said))

    def _overrides(self, field: str, key: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for override in getattr(self._message, field):
            name = getattr(override, key)
            if name in found:
                raise ConfigValueError(f"{self._source}: {field} names {name!r} twice. Delete the repeated item.")
            found[name] = override.calibration_config
        return found

    def _names(self, field: str, names: Collection[str]) -> tuple[LayerName, ...]:
        return check_names(names, self._layers.values(), self._op_types, f"{self._source}: {field}")

    def _types(self, field: str, types: Collection[str]) -> tuple[str, ...]:
        where = f"{self._source}: {field}"
        for name in types:
            if name not in OP_TYPES:
                raise ConfigValueError(f"{where} names {name!r}; use op types among {', '.join(OP_TYPES)}.")
        if len(set(types)) < len(types):
            raise ConfigValueError(f"{where} names a type twice. Delete the repeated item.")
        return tuple(types)

    def _layer(self, layer: LayerSpec, enabled: bool) -> LayerConfig:
        if layer.is_product:  # these are asked for, all together or one by one
            enabled = enabled and (self._message.quantize_products or layer.name in self._by_layer)
        chosen = self._choose(layer)
        if chosen is None:
            asymmetric = _given(self._message, "activation_offset", True)
            return default_layer(layer, enabled=enabled, asymmetric=asymmetric)
        return LayerConfig(
            enabled, self._layer_activation(chosen, layer), self._weights(chosen, layer), _strength(chosen, layer)
        )

    def _tensors(self) -> tuple[TensorQuantize, ...]:
        tensors: dict[str, TensorQuantize] = {}
        for message in self._message.tensor_quantize:
            where = f"{self._source}, tensor_quantize"
            if not (message.HasField("layer_name") and message.HasField("input_index")):
                raise ConfigValueError(f"{where}: layer_name or input_index is missing. Add it.")
            check_tensor(message.layer_name, message.input_index, self._op_types, where)
            activation = self._activation(_Chosen(message, where, False))
            tensor = TensorQuantize(PreparedName(message.layer_name), message.input_index, activation)
            if tensor.key in tensors:
                raise ConfigValueError(f"{where} names input {tensor.key!r} twice. Delete the repeated item.")
            tensors[tensor.key] = tensor
        return tuple(tensors.values())

    def _choose(self, layer: LayerSpec) -> _Chosen | None:
        """The most specific message applies as a whole; the deprecated two only where no newer one is given."""
        message = self._message
        # What is said of a type is said of its layers with weights and of its products of two computed operands.
        for key, overrides, is_common in (
            (layer.name, self._by_layer, False),
            (layer.op_type, self._by_type, layer.is_product),
        ):
            if key in overrides:
                return _Chosen(overrides[key], _override(self._source, key), is_common)
        if message.HasField("common_config"):
            return _Chosen(message.common_config, f"{self._source}, common_config", True)
        field = _DEPRECATED[0] if layer.op.weight_rank > 2 else _DEPRECATED[1]
        if field in self._deprecated() and layer.op.has_weights and message.HasField(field):
            return _Chosen(getattr(message, field), f"{self._source}, {field}", True)
        return None

    def _layer_activation(self, chosen: _Chosen, layer: LayerSpec) -> ActivationConfig:
        activation = self._activation(chosen)
        if layer.is_product and chosen.is_common:
            activation = replace(activation, num_bits=INT8_BITS)
        elif layer.is_product:
            check_product_bits(activation, chosen.where)
        if layer.op.zero_point or not activation.asymmetric:
            return activation
        # What holds for all layers alike is not said of a type that cannot.
        given = getattr(chosen.message, algorithm_field(activation.algorithm.name))
        if given.HasField("asymmetric") and not chosen.is_common:
            raise ConfigValueError(f"{chosen.where}: asymmetric must be false for {layer.op_type}.")
        return replace(activation, asymmetric=False)

    def _activation(self, chosen: _Chosen) -> ActivationConfig:
        given = _given_algorithms(chosen.message)
        if len(given) > 1:
            raise ConfigValueError(f"{chosen.where}: give either {' or '.join(map(algorithm_field, given))}, not both.")
        name = given[0] if given else DEFAULT_ALGORITHM.name
        field = algorithm_field(name)
        activation = getattr(chosen.message, field)
        parameters = {
            key: _parameter(activation, key, default, f"{chosen.where}: {field}")
            for key, default in ACTIVATION_ALGORITHMS[name].parameters().items()
        }
        algorithm = check_algorithm(ACTIVATION_ALGORITHMS[name](**parameters), chosen.where)
        num_bits = DATA_TYPES[activation.dst_type] if activation.HasField("dst_type") else INT8_BITS
        if activation.HasField("asymmetric"):
            config = ActivationConfig(algorithm, activation.asymmetric, num_bits)
            check_bits(config, chosen.where)
            return config
        return ActivationConfig(algorithm, self._fallback_asymmetric(name)).with_bits(num_bits)

    def _fallback_asymmetric(self, name: str) -> bool:
        """common_config decides for layers of its own algorithm, activation_offset for all others."""
        common, field = self._message.common_config, algorithm_field(name)
        uses_same = name in (_given_algorithms(common) or [DEFAULT_ALGORITHM.name])
        if self._message.HasField("common_config") and uses_same and getattr(common, field).HasField("asymmetric"):
            return bool(getattr(common, field).asymmetric)
        return bool(_given(self._message, "activation_offset", True))

    def _weights(self, chosen: _Chosen, layer: LayerSpec) -> WeightConfig:
        arq = chosen.message.arq_quantize
        if not arq.HasField("channel_wise"):
            return WeightConfig(layer.channel_wise)
        if arq.channel_wise and not layer.op.has_weights:
            if not chosen.is_common:
                raise ConfigValueError(f"{chosen.where}: channel_wise must be false for {layer.op_type}.")
            return WeightConfig(False)
        # What holds for all layers alike does not make a fully connected layer a regular convolution.
        return WeightConfig(arq.channel_wise and (layer.channel_wise or not chosen.is_common))


def _override(source: str, name: str) -> str:
    return f"{source}, override of {name!r}"


def _strength(chosen: _Chosen, layer: LayerSpec) -> float | None:
    if not chosen.message.HasField("dmq_balancer") or (chosen.is_common and not layer.op.has_weights):
        return None
    check_can_be_balanced(layer, f"{chosen.where}: dmq_balancer")
    return _given_strength(chosen)


def _given_strength(chosen: _Chosen) -> float:
    where = f"{chosen.where}: migration_strength of dmq_balancer"
    return check_strength(_number(chosen.message.dmq_balancer, "migration_strength", DEFAULT_STRENGTH, where), where)


def _given(message: Any, field: str, default: Any) -> Any:
    return getattr(message, field) if message.HasField(field) else default


def _given_algorithms(message: Any) -> list[str]:
    """Returns the algorithms for activations that a message names; more than one is an error."""
    return [name for name in ACTIVATION_ALGORITHMS if message.HasField(algorithm_field(name))]


def _rounding(message: Any) -> str:
    return WEIGHT_ROUNDINGS[message.weight_rounding] if message.HasField("weight_rounding") else SECOND_MOMENTS


def _parameter(message: Any, name: str, default: Parameter, where: str) -> Parameter:
    if isinstance(default, tuple):
        start, end = parameter_fields(name, default)
        return _number(message, start, default[0], where), _number(message, end, default[1], where)
    return _number(message, name, default, where)


def _number(message: Any, field: str, default: float, where: str) -> float:
    value: float = _given(message, field, default)
    if isinstance(value, int) or not message.HasField(field):
        return value
    if not math.isfinite(value):
        raise ConfigValueError(f"{where} holds a value that is not finite. Correct it.")
    return float(str(np.float32(value)))  # the shortest decimal that stands for the float32: 0.7, not 0.699999988
