"""Range rules shared by config.json and the simplified configuration (spec section 2.1)."""

from collections.abc import Iterable, Mapping

from amct_tensorflow.errors import ConfigValueError
from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.model.layers import LayerSpec, layer_names
from amct_tensorflow.model.tables import Table
from amct_tensorflow.ops import op_types_with, trait
from amct_tensorflow.ops.traits import QuantizableInputs
from amct_tensorflow.quantize.algorithms.activation_algorithm import ActivationAlgorithm
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS
from amct_tensorflow.quantize.algorithms.dmq import STRENGTHS
from amct_tensorflow.quantize.config.schema import ActivationConfig


def check_tensor(layer_name: str, input_index: int, op_types: Mapping[str, str], where: str) -> None:
    """Checks that an input named by tensor_quantize can be quantized.

    Raises:
        ConfigValueError: it cannot, or is not there.
    """
    if layer_name not in op_types:
        raise ConfigValueError(f"{where} names {layer_name!r}, which is not in the graph. Correct or delete it.")
    inputs = trait(op_types[layer_name], QuantizableInputs)
    if inputs is None:
        kinds = ", ".join(op_types_with(QuantizableInputs))
        raise ConfigValueError(f"{where}: {layer_name!r} is no {kinds}; inputs of no other op can be quantized.")
    if not 0 <= input_index < inputs.count:
        raise ConfigValueError(
            f"{where}: input_index of {layer_name!r} is {input_index}; it must be below {inputs.count}."
        )


def check_algorithm(algorithm: ActivationAlgorithm, where: str) -> ActivationAlgorithm:
    """Returns ``algorithm`` if every parameter is in range; ``where`` names file and layer in messages.

    Raises:
        ConfigValueError: one is not.
    """
    fault = algorithm.fault()
    if fault is not None:
        raise ConfigValueError(f"{where}: {fault}")
    return algorithm


def check_bits(activation: ActivationConfig, where: str) -> None:
    """Checks that an activation in 16 bits has no zero point.

    Raises:
        ConfigValueError: it has one.
    """
    if activation.asymmetric and activation.num_bits != INT8_BITS:
        raise ConfigValueError(
            f"{where}: asymmetric must be false for {activation.num_bits} bits, which are symmetric around 0."
        )


def check_product_bits(activation: ActivationConfig, where: str) -> None:
    """Checks that the operands of a product of two computed ones have 8 bits.

    Raises:
        ConfigValueError: they have more.
    """
    if activation.num_bits != INT8_BITS:
        raise ConfigValueError(f"{where}: a product of two computed operands has 8 bits, not {activation.num_bits}.")


def check_batch_num(batch_num: int, where: str) -> int:
    """Returns ``batch_num`` if it is above 0.

    Raises:
        ConfigValueError: it is not.
    """
    if batch_num <= 0:
        raise ConfigValueError(f"{where}: batch_num is {batch_num}; it must be above 0.")
    return batch_num


def check_strength(strength: float, where: str) -> float:
    """Returns a migration strength if it is in range.

    Raises:
        ConfigValueError: it is not.
    """
    lowest, highest = STRENGTHS
    if not lowest <= strength <= highest:
        raise ConfigValueError(f"{where} is {strength:g}; it must lie in [{lowest}, {highest}].")
    return strength


def check_can_be_balanced(layer: LayerSpec, where: str) -> None:
    """Checks that a layer which is to be balanced has weights to migrate to.

    Raises:
        ConfigValueError: it has none.
    """
    if not layer.op.has_weights:
        raise ConfigValueError(f"{where}: {layer.op_type} cannot be balanced, since it has no weights. Delete it.")


def check_can_be_compressed(table: Table, name: str, where: str) -> None:
    """Checks that a table can be stored in int8.

    Raises:
        ConfigValueError: it cannot.
    """
    if table.reason is not None:
        raise ConfigValueError(
            f"{where}: the table that {name!r} looks up cannot be stored in int8: {table.reason}. Delete "
            "weight_compress_only."
        )


def check_names(
    names: Iterable[str], layers: Iterable[LayerSpec], op_types: Mapping[str, str], where: str
) -> tuple[LayerName, ...]:
    """Returns the layers with some names, if each is quantizable and named once.

    Raises:
        ConfigValueError: one is repeated, unknown, or cannot be quantized.
    """
    known = layer_names(layers)
    seen: dict[LayerName, None] = {}
    for name in names:
        if known.get(name) in seen:
            raise ConfigValueError(f"{where} names {name!r} twice. Delete the repeated item.")
        if name not in op_types:
            raise ConfigValueError(f"{where} names {name!r}, which is not in the graph. Correct or delete it.")
        if name not in known:
            raise ConfigValueError(f"{where} names {name!r}, which cannot be quantized. Delete it.")
        seen[known[name]] = None
    return tuple(seen)
