"""The record file: spec section 4, the superset that readers accept."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format

from amct_tensorflow.errors import RecordError
from amct_tensorflow.graph.names import LayerName, RecordKey
from amct_tensorflow.io.files import read_text, write_atomically
from amct_tensorflow.io.text_messages import message_class
from amct_tensorflow.model.tables import Table, table_names
from amct_tensorflow.ops import Quantizable
from amct_tensorflow.quantize.algorithms.activation_factors import ACTIVATION_BITS, INT8_BITS, type_name
from amct_tensorflow.quantize.algorithms.scales import LARGEST_SCALE, SMALLEST_SCALE
from amct_tensorflow.quantize.record.factors import LayerFactors

_RECORD = {
    "ScaleOffsetRecord": {"record": (1, "repeated MapFiledEntry")},
    "MapFiledEntry": {"key": (1, "optional string"), "value": (2, "optional SingleLayerRecord")},
    "SingleLayerRecord": {
        "scale_d": (1, "optional float"),
        "offset_d": (2, "optional int32"),
        "scale_w": (3, "repeated float"),
        "offset_w": (4, "repeated int32"),
        "shift_bit": (5, "repeated uint32"),
        "cluster": (6, "repeated int32"),
        "skip_fusion": (9, "optional bool"),
        "dst_type": (10, "optional string"),
        "prune_producer": (11, "repeated string"),
        "prune_consumer": (12, "repeated string"),
        "tensor_balance_factor": (13, "repeated float"),
        "act_type": (14, "optional string"),
        "wts_type": (15, "optional string"),
    },
}

ScaleOffsetRecord = message_class("AMCTTensorflow", _RECORD, {}, "ScaleOffsetRecord")


SMALLEST_BALANCE = float(np.finfo(np.float32).eps)
LARGEST_BALANCE = 1 / SMALLEST_BALANCE


def read_record(path: str | Path) -> dict[RecordKey, LayerFactors]:
    """Reads the factors of a record file; ``read_balance`` reads how the model was balanced.

    Raises:
        RecordError: it is missing, empty, malformed, or holds a value out of range.
    """
    return parse_record(_text(path), str(path))


def read_balance(path: str | Path) -> dict[RecordKey, tuple[float, ...]]:
    """Reads how the model of a record file was balanced.

    Raises:
        RecordError: it is missing, malformed, or holds a value out of range.
    """
    return parse_balance(_text(path), str(path))


def read_tables(path: str | Path) -> list[RecordKey]:
    """Reads the names of the tables that a record has in int8.

    Raises:
        RecordError: it is missing or malformed.
    """
    return parse_tables(_text(path), str(path))


def is_pending(path: str | Path) -> bool:
    """Tells whether a record says how a model is to be balanced, and no more: what ``quantize_preprocess`` leaves."""
    if not Path(path).is_file():
        return False
    try:
        entries = _parse(_text(path), str(path)).record
    except RecordError:
        return False
    return bool(entries) and all(_only_balances(entry.value) for entry in entries)


def _text(path: str | Path) -> str:
    return read_text(path, f"Record {path}", RecordError, "Give the file that calibration wrote.")


def parse_record(text: str, source: str) -> dict[RecordKey, LayerFactors]:
    """Parses the factors in the text of a record; where a key or an optional field stands twice, the last one counts.

    Args:
        text: text-format protobuf.
        source: name of the file, for messages.

    Raises:
        RecordError: the text is empty, malformed, or holds a value out of range.
    """
    whole = _parse(text, source).record
    entries = [entry for entry in whole if not (_only_balances(entry.value) or _only_compresses(entry.value))]
    if not entries:
        raise RecordError(
            f"Record {source} holds no layer: the calibration has not run to its end. Run batch_num batches through "
            "the model after quantize_model."
        )
    return {RecordKey(entry.key): _layer_factors(entry, source) for entry in entries}


def parse_balance(text: str, source: str) -> dict[RecordKey, tuple[float, ...]]:
    """Parses how the model of a record was balanced.

    Args:
        text: text-format protobuf.
        source: name of the file, for messages.

    Returns:
        Per layer whose input was divided by factors, those factors, [Cin]; layers that stay in float, too.

    Raises:
        RecordError: the text is malformed, or holds a factor out of range.
    """
    factors = {entry.key: tuple(entry.value.tensor_balance_factor) for entry in _parse(text, source).record}
    for key, values in factors.items():
        _check_range(source, key, "tensor_balance_factor", values, SMALLEST_BALANCE, LARGEST_BALANCE)
    return {key: values for key, values in factors.items() if values}


def parse_tables(text: str, source: str) -> list[RecordKey]:
    """Parses the names of the tables that a record has in int8; their integers follow from the float model.

    Raises:
        RecordError: the text is malformed.
    """
    return [RecordKey(entry.key) for entry in _parse(text, source).record if _only_compresses(entry.value)]


@lru_cache(maxsize=1)  # factors and balance of one record are asked for one after the other, and parsing is slow
def _parse(text: str, source: str) -> Any:
    message = ScaleOffsetRecord()
    try:
        # Merge, not Parse: of an optional field given twice, the last one counts.
        text_format.Merge(text, message)
    except (text_format.ParseError, ValueError, RecursionError) as error:
        raise RecordError(f"Record {source} is malformed: {error}. Calibrate again.") from error
    return message


def _only_balances(value: Any) -> bool:
    """Tells whether an entry is that of a layer which stays in float, but whose input was divided by factors."""
    return bool(value.tensor_balance_factor) and not (
        value.HasField("scale_d") or value.HasField("offset_d") or value.scale_w
    )


def _only_compresses(value: Any) -> bool:
    """Tells whether an entry is that of a table: it has the type of its weights, and no factors."""
    return bool(value.wts_type == "INT8") and {field.name for field, _ in value.ListFields()} == {"wts_type"}


def dump_record(
    factors: Mapping[LayerName, LayerFactors],
    balance: Mapping[LayerName, tuple[float, ...]] | None = None,
    tables: Iterable[LayerName] = (),
) -> str:
    """Returns a record as text.

    Args:
        factors: per layer, its factors; layers stand in this order.
        balance: per layer whose input was divided by factors, those factors; layers without others stand at the end.
        tables: the tables that are stored in int8; they stand behind all layers.
    """
    balanced = balance or {}
    entries = [
        _dump_entry(key, _dump_factors(layer), balanced.get(key, ()), layer.num_bits) for key, layer in factors.items()
    ]
    entries += [_dump_entry(key, [], values) for key, values in balanced.items() if key not in factors]
    entries += [_dump_entry(key, ['wts_type: "INT8"'], ()) for key in tables]
    return "".join(entries)


def _dump_factors(layer: LayerFactors) -> list[str]:
    (scale_d,) = _format_scales([layer.scale_d])
    scales = [f"scale_w: {scale}" for scale in _format_scales(layer.scale_w)]
    offsets = ["offset_w: 0"] * len(layer.scale_w)
    skip = ["skip_fusion: true"] if layer.skip_fusion else []
    return [f"scale_d: {scale_d}", f"offset_d: {layer.offset_d}", *scales, *offsets, *skip]


def _dump_entry(key: str, fields: Sequence[str], balance: Sequence[float], num_bits: int = INT8_BITS) -> str:
    """Returns the entry of a layer as ``text_format`` does, which takes seconds for the scales of a transformer."""
    quoted = text_format.MessageToString(ScaleOffsetRecord(record=[{"key": key}])).removesuffix("}\n")
    divisors = [f"tensor_balance_factor: {factor}" for factor in _format_scales(balance)]
    lines = [*fields, *divisors, *([] if num_bits == INT8_BITS else [f'act_type: "{type_name(num_bits)}"'])]
    return "\n".join([f"{quoted}  value {{", *(f"    {line}" for line in lines), "  }", "}", ""])


def _format_scales(scales: Sequence[float]) -> list[str]:
    """Writes scales like protobuf for C++: with six digits if they tell the value, else with nine."""
    values = np.array(scales, np.float32)
    short = [f"{value:.6g}" for value in values.tolist()]
    tells = np.array([float(text) for text in short], np.float32) == values
    pairs = zip(values.tolist(), short, tells.tolist(), strict=True)
    return [text if enough else f"{value:.9g}" for value, text, enough in pairs]


def write_record(
    path: str | Path,
    factors: Mapping[LayerName, LayerFactors],
    balance: Mapping[LayerName, tuple[float, ...]] | None = None,
    tables: Iterable[LayerName] = (),
    *,
    announce: bool = True,
) -> None:
    """Writes a record file; see ``dump_record``.

    Raises:
        OutputError: it cannot be written.
    """
    write_atomically(path, dump_record(factors, balance, tables), announce=announce)


def check_record(
    factors: Mapping[LayerName, LayerFactors],
    layers: Mapping[LayerName, tuple[Quantizable, int]],
    op_types: Mapping[str, str],
    source: str,
) -> None:
    """Checks that a record belongs to a model.

    Args:
        factors: the record.
        layers: per quantizable layer what is known of its op type, and its number of output channels.
        op_types: op type of every node of the model, by name.
        source: name of the record file, for messages.

    Raises:
        RecordError: a key is no quantizable layer of the model, or its scales do not fit the layer.
    """
    for key, layer in factors.items():
        name, _, index = key.rpartition(":")
        if key not in layers and name in op_types and index.isdecimal() and not layer.scale_w:
            continue  # an input of an op that is no layer (tensor_quantize)
        if key not in layers:
            reason = "cannot be quantized" if key in op_types else "is not in the model"
            raise RecordError(f"Record {source}: {key!r} {reason}. Use the record that was made for this model.")
        op_type, channels = layers[key]
        count = len(layer.scale_w)
        if op_type.second_input is not None:
            if layer.offset_d or count != 1 or layer.num_bits != INT8_BITS:
                needs = "it needs offset_d 0, and one scale_w, that of the second, in INT8"
                raise _error(source, key, f"both operands of this product are computed: {needs}")
            continue
        if layer.offset_d and not op_type.zero_point:
            raise _error(source, key, f"offset_d is {layer.offset_d}; it must be 0 for {op_type.name}")
        if not op_type.has_weights:
            if count:
                raise _error(source, key, f"scale_w is undesirable for {op_type.name}, which has no weights. Remove it")
        elif count not in (1, channels):
            raise _error(source, key, f"scale_w has {count} values; the layer needs 1 or {channels}")


def check_tables(names: Iterable[str], tables: Sequence[Table], source: str) -> dict[str, Table]:
    """Returns the tables that a record names, by the names that it uses.

    Args:
        names: their names, each that of a node that looks the table up.
        tables: the constants of the model that are looked up.
        source: name of the record file, for messages.

    Raises:
        RecordError: one is not in the model, or cannot be stored in int8.
    """
    known = table_names(tables)
    found: dict[str, Table] = {}
    for name in names:
        table = known.get(name)
        if table is None or table.reason is not None:
            reason = "looks no table up in the model" if table is None else f"cannot be stored in int8: {table.reason}"
            raise RecordError(f"Record {source}: {name!r} {reason}. Use the record that was made for this model.")
        found[name] = table
    return found


def _layer_factors(entry: Any, source: str) -> LayerFactors:
    key, value = entry.key, entry.value
    if not key:
        raise RecordError(f"Record {source}: an entry has no key. Give it the name of its layer.")
    for field in ("scale_d", "offset_d"):
        if not value.HasField(field):
            raise _error(source, key, f"{field} is missing. Calibrate again")
    _check_scales(source, key, "scale_d", [value.scale_d])
    _check_scales(source, key, "scale_w", value.scale_w)
    if not -128 <= value.offset_d <= 127:
        raise _error(source, key, f"offset_d is {value.offset_d}; it must lie in [-128, 127]")
    if len(value.offset_w) != len(value.scale_w) or any(value.offset_w):
        raise _error(source, key, "offset_w must hold one 0 for each scale_w")
    if any(value.shift_bit):
        raise _error(source, key, "shift_bit is not supported; remove it, or set it to 0")
    if value.cluster:
        raise _error(source, key, "cluster is not supported; calibrate without NUQ")
    for field in ("dst_type", "wts_type"):
        if value.HasField(field) and getattr(value, field) != type_name(INT8_BITS):
            raise _error(source, key, f"{field} is {getattr(value, field)!r}; only INT8 is supported")
    num_bits = _num_bits(source, key, value)
    if num_bits != INT8_BITS and value.offset_d:
        raise _error(source, key, f"offset_d is {value.offset_d}; it must be 0 for act_type {value.act_type!r}")
    return LayerFactors(value.scale_d, value.offset_d, tuple(value.scale_w), value.skip_fusion, num_bits)


def _num_bits(source: str, key: str, value: Any) -> int:
    """Returns the bits of the input of a layer, which ``act_type`` tells."""
    types = {type_name(bits): bits for bits in ACTIVATION_BITS}
    if not value.HasField("act_type"):
        return INT8_BITS
    if value.act_type not in types:
        raise _error(source, key, f"act_type is {value.act_type!r}; use {' or '.join(types)}")
    return types[value.act_type]


def _check_scales(source: str, key: str, field: str, scales: Iterable[float]) -> None:
    _check_range(source, key, field, scales, SMALLEST_SCALE, LARGEST_SCALE)


def _check_range(source: str, key: str, field: str, values: Iterable[float], lowest: float, highest: float) -> None:
    for value in values:
        if not (math.isfinite(value) and lowest <= value <= highest):
            raise _error(source, key, f"{field} is {value:g}; it must lie in [{lowest:g}, {highest:g}]")


def _error(source: str, key: str, problem: str) -> RecordError:
    return RecordError(f"Record {source}, layer {key!r}: {problem}.")
