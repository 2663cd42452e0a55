"""A configuration says on which rung each layer stands; a set of layers says the same of those that are quantized."""

from collections.abc import Mapping

from amct_tensorflow.devices.rungs import Rung
from amct_tensorflow.graph.names import LayerName

# Per layer, the rung on which it stands.
Configuration = Mapping[str, Rung]


def in_16_bits(layer: str) -> str:
    """Returns what stands in a set of quantized layers for a layer that reads 16 bits; no node is called so."""
    return f"{layer} in 16 bits"


def quantized_layers(configuration: Configuration) -> frozenset[str]:
    """Returns the layers that a configuration quantizes, those that read 16 bits as ``in_16_bits`` calls them.

    Configurations with the same ones are equal.
    """
    quantized = {name: rung for name, rung in configuration.items() if not rung.is_float}
    return frozenset(in_16_bits(name) if rung.is_wide else name for name, rung in quantized.items())


def layers_in_float(configuration: Configuration) -> list[LayerName]:
    """Returns the layers that a configuration leaves in float."""
    return [LayerName(name) for name, rung in configuration.items() if rung.is_float]


def layers_in_16_bits(configuration: Configuration) -> list[LayerName]:
    """Returns the layers that read activations of 16 bits."""
    return [LayerName(name) for name, rung in configuration.items() if rung.is_wide]


def decisions(configuration: Configuration) -> dict[str, bool]:
    """Returns a configuration as the original writes it: per layer, True if it is quantized."""
    return {name: not rung.is_float for name, rung in configuration.items()}


def rung_names(configuration: Configuration) -> dict[str, str]:
    """Returns per layer the name of its rung."""
    return {name: rung.name for name, rung in configuration.items()}
