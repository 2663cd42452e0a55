"""The configuration that quantizes everything with the default algorithms."""

from collections.abc import Mapping, Sequence

from amct_tensorflow.errors import ConfigValueError
from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.model.layers import LayerSpec
from amct_tensorflow.model.tables import Table
from amct_tensorflow.ops import OP_TYPES
from amct_tensorflow.quantize.config.schema import GLOBAL_KEYS, ActivationConfig, LayerConfig, QuantConfig, WeightConfig
from amct_tensorflow.quantize.config.validate import check_names


def default_layer(layer: LayerSpec, *, enabled: bool, asymmetric: bool) -> LayerConfig:
    """Returns the default configuration of a layer; it is asymmetric only if its op type can be."""
    activation = ActivationConfig(asymmetric=asymmetric and layer.op.zero_point)
    return LayerConfig(enabled, activation, WeightConfig(layer.channel_wise))


def default_config(
    layers: Sequence[LayerSpec],
    op_types: Mapping[str, str],
    *,
    skip_layers: Sequence[str] = (),
    batch_num: int = 1,
    activation_offset: bool = True,
    tables: Sequence[Table] = (),
    compress: bool = False,
) -> QuantConfig:
    """Returns the default configuration of a graph: that of all layers but products of two computed operands.

    Those are left in float, since they lose more than they gain: the other layers of a transformer hold nearly all of
    its weights (docs/algorithms.md has the measurements). They are listed, so that ``quant_enable`` can be set.

    Args:
        layers: its quantizable layers.
        op_types: op type of every node, by name.
        skip_layers: layers to keep in float; they stay listed.
        batch_num: number of calibration batches.
        activation_offset: whether activations get a zero point.
        tables: its constants that are looked up.
        compress: whether those that can be are stored in int8.

    Raises:
        ConfigValueError: a name in ``skip_layers`` is wrong, or no layer is left to quantize.
    """
    check_layers(layers)
    skipped = check_names(skip_layers, layers, op_types, "skip_layers")
    config = QuantConfig(
        layers={
            layer.name: default_layer(
                layer, enabled=layer.name not in skipped and not layer.is_product, asymmetric=activation_offset
            )
            for layer in sorted(layers, key=lambda layer: layer.name)
        },
        batch_num=batch_num,
        activation_offset=activation_offset,
        tables=default_tables(tables, compressed=compress),
    )
    check_some_enabled(config)
    return config


def default_tables(tables: Sequence[Table], *, compressed: bool = False) -> dict[LayerName, bool]:
    """Returns the tables that can be stored in int8, sorted by name; one named like a key of config.json cannot."""
    names = sorted(table.name for table in tables if table.fits and table.name not in GLOBAL_KEYS)
    return dict.fromkeys(names, compressed)


def check_layers(layers: Sequence[LayerSpec]) -> None:
    """Raises ConfigValueError if a graph has nothing to quantize, or a layer named like a key of config.json."""
    if not layers:
        raise ConfigValueError(
            f"The graph has no layer that can be quantized: no {', '.join(OP_TYPES)} that computes float32 outside "
            "of loops and branches, with constant weights if it has any. Freeze the model for inference, if it is not; "
            "'python -m amct_tensorflow inspect' shows what keeps each layer in float."
        )
    for layer in layers:
        if layer.name in GLOBAL_KEYS:
            raise ConfigValueError(
                f"The layer named {layer.name!r} cannot be told from the key of that name. Rename the node."
            )


def check_some_enabled(config: QuantConfig) -> None:
    """Raises ConfigValueError if every layer is skipped."""
    if not config.enabled_layers():
        raise ConfigValueError(
            "Every quantizable layer is skipped. Leave at least one to quantize; products of two computed operands are "
            "skipped unless quant_enable, or quantize_products of a simplified configuration, asks for them."
        )
