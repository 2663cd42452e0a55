"""The record file, and writing files whole."""

import json
from dataclasses import replace

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.errors import OutputError, RecordError
from amct_tensorflow.io.contents import dump_arrays
from amct_tensorflow.io.files import check_writable, write_atomically
from amct_tensorflow.model.fusion import FusedLayer
from amct_tensorflow.ops import OP_TYPES
from amct_tensorflow.quantize.record import corrections
from amct_tensorflow.quantize.record.corrections import (
    corrections_path,
    read_corrections,
    remove_corrections,
    weights_path,
    write_corrections,
)
from amct_tensorflow.quantize.record.factors import LayerCorrection, LayerFactors
from amct_tensorflow.quantize.record.record_file import (
    ScaleOffsetRecord,
    check_record,
    dump_record,
    is_pending,
    parse_balance,
    parse_record,
    read_balance,
    read_record,
    write_record,
)

FACTORS = {
    "MobilenetV2/Conv/Conv2D": LayerFactors(0.0078125, 0, (0.009563312865793705, 0.027026804164052010)),
    "MobilenetV2/Logits/AvgPool": LayerFactors(0.023529412224888802, -128),
}
# The example of spec section 4.
TEXT = """record {
  key: "MobilenetV2/Conv/Conv2D"
  value {
    scale_d: 0.0078125
    offset_d: 0
    scale_w: 0.00956331287
    scale_w: 0.0270268042
    offset_w: 0
    offset_w: 0
  }
}
record {
  key: "MobilenetV2/Logits/AvgPool"
  value {
    scale_d: 0.0235294122
    offset_d: -128
  }
}
"""
LAYERS = {
    "MobilenetV2/Conv/Conv2D": (OP_TYPES["Conv2D"], 2),
    "MobilenetV2/Logits/AvgPool": (OP_TYPES["AvgPool"], 1),
    "product": (OP_TYPES["BatchMatMulV2"].with_operands(computed=True), 1),
}


def test_example_of_the_specification():
    assert dump_record(FACTORS) == TEXT
    parsed = parse_record(TEXT, "record.txt")
    assert dump_record(parsed) == TEXT
    assert list(parsed) == list(FACTORS)


def test_the_real_record_survives_reading_and_writing(shared):
    path = shared / "records" / "mobilenet_v2_record.txt"
    factors = read_record(path)
    assert len(factors) == 54
    assert dump_record(factors) == path.read_text()


BALANCE = {"MobilenetV2/Conv/Conv2D": (0.5, 3.0517578125e-05, 0.1 + 2**-30), "float": (2.0,)}
BALANCE = {name: tuple(np.float32(values).tolist()) for name, values in BALANCE.items()}


def test_balance_factors_survive_and_layers_in_float_have_no_others(tmp_path):
    text = dump_record(FACTORS, BALANCE)
    assert text.startswith(TEXT[: TEXT.index("  }")] + "    tensor_balance_factor: 0.5\n")
    assert (parse_record(text, "record.txt"), parse_balance(text, "record.txt")) == (FACTORS, BALANCE)
    assert parse_balance(TEXT, "record.txt") == {}
    path = tmp_path / "record.txt"
    assert not is_pending(path)
    for factors, balance, pending in [
        ({}, BALANCE, True),
        (FACTORS, BALANCE, False),
        (FACTORS, {}, False),
        ({}, {}, False),
    ]:
        write_record(path, factors, balance)
        assert (is_pending(path), read_balance(path)) == (pending, balance)
    path.write_text("nonsense")
    assert not is_pending(path)


def test_a_record_that_only_balances_is_not_calibrated():
    with pytest.raises(RecordError, match="not run to its end"):
        parse_record(dump_record({}, BALANCE), "record.txt")


@pytest.mark.parametrize("value", ["0", "-1", "1e-8", "1e8", "nan", "inf"])
def test_balance_factors_out_of_range(value):
    text = f'record {{ key: "a" value {{ tensor_balance_factor: 1 tensor_balance_factor: {value} }} }}'
    with pytest.raises(RecordError, match=r"'a'.*tensor_balance_factor"):
        parse_balance(text, "record.txt")


float32s = st.floats(2**-33, 2**33, width=32)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20),
        st.builds(
            LayerFactors, float32s, st.integers(-128, 127), st.lists(float32s, max_size=4).map(tuple), st.booleans()
        ),
        min_size=1,
        max_size=4,
    )
)
def test_round_trip(factors):
    assert parse_record(dump_record(factors), "record.txt") == factors


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=30), st.integers(0, len(TEXT)))
def test_damaged_text_gives_only_our_error(noise, position):
    text = TEXT[:position] + noise.decode("latin-1") + TEXT[position + len(noise) :]
    try:
        parse_record(text, "record.txt")
    except RecordError:
        pass


def test_a_key_given_twice_counts_last():
    again = 'record { key: "MobilenetV2/Logits/AvgPool" value { scale_d: 0.5 offset_d: 3 } }'
    assert parse_record(TEXT + again, "r")["MobilenetV2/Logits/AvgPool"] == LayerFactors(0.5, 3)


def test_an_optional_field_given_twice_counts_last():
    text = 'record { key: "x" value { scale_d: 1 offset_d: 1 scale_d: 2 offset_d: 3 } }'
    assert parse_record(text, "r") == {"x": LayerFactors(2.0, 3)}


def test_an_entry_without_key():
    with pytest.raises(RecordError, match="no key"):
        parse_record("record { value { scale_d: 1 offset_d: 0 } }", "r")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("offset_d: 0", "scale_d is missing"),
        ("scale_d: 1", "offset_d is missing"),
        ("scale_d: 0 offset_d: 0", "scale_d"),
        ("scale_d: -1 offset_d: 0", "scale_d"),
        ("scale_d: nan offset_d: 0", "scale_d"),
        ("scale_d: inf offset_d: 0", "scale_d"),
        ("scale_d: 1e-39 offset_d: 0", "scale_d"),
        ("scale_d: 1 offset_d: 128", "offset_d"),
        ("scale_d: 1 offset_d: -129", "offset_d"),
        ("scale_d: 1 offset_d: 0 scale_w: nan offset_w: 0", "scale_w"),
        ("scale_d: 1 offset_d: 0 scale_w: 1 offset_w: 1", "offset_w"),
        ("scale_d: 1 offset_d: 0 scale_w: 1", "offset_w"),
        ("scale_d: 1 offset_d: 0 scale_w: 1 offset_w: 0 shift_bit: 3", "shift_bit"),
        ("scale_d: 1 offset_d: 0 scale_w: 1 offset_w: 0 cluster: 3", "cluster"),
        ("scale_d: 1 offset_d: 0 dst_type: 'INT4'", "dst_type"),
        ("scale_d: 1 offset_d: 0 dst_type: 'INT16'", "dst_type is 'INT16'; only INT8"),
        ("scale_d: 1 offset_d: 0 wts_type: 'INT16'", "wts_type is 'INT16'; only INT8"),
        ("scale_d: 1 offset_d: 0 act_type: 'INT4'", "act_type is 'INT4'; use INT8 or INT16"),
        ("scale_d: 1 offset_d: -1 act_type: 'INT16'", "it must be 0 for act_type 'INT16'"),
        ("scale_d: 1 offset_d: 0 unknown: 3", "malformed"),
    ],
)
def test_values_out_of_range(value, words):
    with pytest.raises(RecordError, match=words) as caught:
        parse_record(f'record {{ key: "the/layer" value {{ {value} }} }}', "some/record.txt")
    assert "some/record.txt" in str(caught.value)


def test_fields_of_newer_versions_are_read():
    text = 'record { key: "x" value { scale_d: 1 offset_d: 0 skip_fusion: true act_type: "INT8" wts_type: "INT8" } }'
    assert parse_record(text, "r") == {"x": LayerFactors(1.0, 0, (), True)}


def test_16_bits_in_a_record():
    """``act_type`` is the last field but one, and what reads 8 bits has none."""
    factors = {"a": LayerFactors(1.5, 0, (0.5,), num_bits=16), "b": LayerFactors(1.5, -3)}
    text = dump_record(factors, {"a": (2.5,)})
    assert parse_record(text, "r") == factors
    assert parse_record('record { key: "a" value { scale_d: 1 offset_d: 0 act_type: "INT8" } }', "r") == {
        "a": LayerFactors(1.0, 0)
    }
    message = ScaleOffsetRecord()
    text_format.Merge(text, message)
    assert text_format.MessageToString(message).split() == text.split()
    assert text.count("act_type") == 1


def test_missing_empty_and_binary_files(tmp_path):
    with pytest.raises(RecordError, match="cannot be read"):
        read_record(tmp_path / "none.txt")
    (tmp_path / "record.txt").write_text("")
    with pytest.raises(RecordError, match="not run to its end"):
        read_record(tmp_path / "record.txt")
    (tmp_path / "record.txt").write_bytes(b"\xff\x00")
    with pytest.raises(RecordError, match="not text"):
        read_record(tmp_path / "record.txt")


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ({"nowhere": LayerFactors(1.0, 0)}, "is not in the model"),
        ({"relu": LayerFactors(1.0, 0)}, "cannot be quantized"),
        ({"MobilenetV2/Conv/Conv2D": LayerFactors(1.0, 0, (1.0, 1.0, 1.0))}, "needs 1 or 2"),
        ({"MobilenetV2/Conv/Conv2D": LayerFactors(1.0, 0)}, "needs 1 or 2"),
        ({"MobilenetV2/Logits/AvgPool": LayerFactors(1.0, 0, (1.0,))}, "undesirable"),
        ({"product": LayerFactors(1.0, 0)}, "needs offset_d 0, and one scale_w"),
        ({"product": LayerFactors(1.0, 0, (1.0, 1.0))}, "needs offset_d 0, and one scale_w"),
        ({"product": LayerFactors(1.0, 5, (1.0,))}, "needs offset_d 0, and one scale_w"),
    ],
)
def test_a_record_of_another_model(factors, words):
    with pytest.raises(RecordError, match=words):
        check_record(factors, LAYERS, {**dict.fromkeys(LAYERS, "Conv2D"), "relu": "Relu"}, "record.txt")


def test_a_zero_point_where_the_type_has_none():
    layers = {"volume": (OP_TYPES["Conv3D"], 1)}
    check_record({"volume": LayerFactors(1.0, 0, (1.0,))}, layers, {"volume": "Conv3D"}, "record.txt")
    with pytest.raises(RecordError, match="must be 0 for Conv3D"):
        check_record({"volume": LayerFactors(1.0, -128, (1.0,))}, layers, {"volume": "Conv3D"}, "record.txt")


def test_a_record_that_fits():
    check_record(
        {**FACTORS, "product": LayerFactors(1.0, 0, (2.0,))}, LAYERS, dict.fromkeys(LAYERS, "Conv2D"), "record.txt"
    )


def layer_of(name):
    weights = np.arange(54, dtype=np.float32).reshape(3, 3, 3, 2)
    return FusedLayer(name, "Conv2D", weights, None, "NHWC", (), False)


def test_corrections_belong_to_their_factors(tmp_path):
    record = tmp_path / "record.txt"
    name = "MobilenetV2/Conv/Conv2D"
    measured = {name: LayerCorrection(np.array([0.125, -3.5e-7]))}
    layers = {name: layer_of(name)}
    write_corrections(record, FACTORS, measured, layers)
    assert corrections_path(record).name == "record_bias_correction.json"
    read = read_corrections(record, FACTORS, layers)
    assert set(read[name].parts()) == {"bias"}
    np.testing.assert_array_equal(read[name].bias, measured[name].bias)
    edited = {**FACTORS, name: LayerFactors(0.5, 0, (0.1, 0.2))}
    assert read_corrections(record, edited, layers) == {}
    other = {name: replace(layer, bias=np.ones(2, np.float32)) for name, layer in layers.items()}
    with pytest.raises(RecordError, match="another bias when it was calibrated"):
        read_corrections(record, FACTORS, other)
    remove_corrections(record)
    assert not corrections_path(record).exists() and not weights_path(record).exists()
    assert read_corrections(record, FACTORS, layers) == {}


def test_the_file_of_corrections_keeps_its_form(tmp_path):
    record, name = tmp_path / "record.txt", "MobilenetV2/Conv/Conv2D"
    layer = layer_of(name)
    write_corrections(record, FACTORS, {name: LayerCorrection(np.array([0.125, -3.5e-7]))}, {name: layer})
    factors = json.loads(corrections_path(record).read_text())[name]["factors"]
    assert corrections_path(record).read_text() == (
        f'{{\n    "{name}":{{\n        "factors":"{factors}",\n        "weights":"{layer.digest}",\n'
        '        "bias_correction":[\n            0.125,\n            -3.5e-07\n        ]\n    }\n}'
    )
    integers = np.zeros((3, 3, 3, 2), np.int8)
    write_corrections(record, FACTORS, {name: LayerCorrection(weights=integers)}, {name: layer})
    assert list(json.loads(corrections_path(record).read_text())[name]) == ["factors", "weights", "integers"]


@pytest.mark.parametrize("damage", ["missing", "other integers", "another shape", "another layer's"])
def test_corrections_belong_to_their_integers(tmp_path, messages, damage):
    record, name = tmp_path / "record.txt", "MobilenetV2/Conv/Conv2D"
    integers = np.arange(-27, 27, dtype=np.int8).reshape(3, 3, 3, 2)
    measured = {name: LayerCorrection(np.array([0.125, -3.5e-7]), integers)}
    layers = {name: layer_of(name)}
    write_corrections(record, FACTORS, measured, layers)
    np.testing.assert_array_equal(read_corrections(record, FACTORS, layers)[name].weights, integers)
    assert not messages
    if damage == "missing":
        weights_path(record).unlink()
    else:
        others = {"other integers": {name: integers + 1}, "another shape": {name: integers.reshape(3, 3, 6)}}
        weights_path(record).write_bytes(dump_arrays(others.get(damage, {"another": integers})))
    assert read_corrections(record, FACTORS, layers) == {}
    (warning,) = messages
    assert "record_weights.npz does not hold the integers of 1 layer:" in warning and "calibrate again" in warning


@pytest.mark.parametrize("content", [b"", b"PK", b"nonsense" * 50])
def test_damaged_integers(tmp_path, content):
    record, name = tmp_path / "record.txt", "MobilenetV2/Conv/Conv2D"
    integers = LayerCorrection(weights=np.zeros((3, 3, 3, 2), np.int8))
    write_corrections(record, FACTORS, {name: integers}, {name: layer_of(name)})
    weights_path(record).write_bytes(content)
    with pytest.raises(RecordError, match=r"record_weights\.npz cannot be read.*calibrate again"):
        read_corrections(record, FACTORS, {name: layer_of(name)})


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"MobilenetV2/Conv/Conv2D": 3}', '{"MobilenetV2/Conv/Conv2D": {"factors": 1}}', "\xff"]
)
def test_damaged_corrections(tmp_path, text):
    record = tmp_path / "record.txt"
    corrections_path(record).write_bytes(text.encode("latin-1"))
    try:
        assert read_corrections(record, FACTORS, {}) == {}
    except RecordError as error:
        assert "record_bias_correction.json" in str(error)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "truncated"),
        ("\xff", "malformed"),
        ('{"\xff": 1}', "utf-8"),
        ('{"MobilenetV2/Conv/Conv2D": ' + "[" * 100_000, "recursion"),
        ("[]", "Expected `object`, got `array`"),
        ('{"MobilenetV2/Conv/Conv2D": 3}', "layer 'MobilenetV2/Conv/Conv2D': Expected `object`, got `int`"),
        (
            '{"MobilenetV2/Conv/Conv2D": {"factors": 1}}',
            "layer 'MobilenetV2/Conv/Conv2D': Expected `str`, got `int` - at",
        ),
        ('{"MobilenetV2/Conv/Conv2D": {"factors": "a"}}', "missing required field `weights`"),
        *(
            (
                f'{{"MobilenetV2/Conv/Conv2D": {{"factors": "a", "weights": "b", "bias_correction": {values}}}}}',
                "layer 'MobilenetV2/Conv/Conv2D': ",
            )
            for values in ("{}", "[[1.0]]", '["1.0"]', "[true]", "[1e400]", f"[1{'0' * 400}]")
        ),
        ('{"MobilenetV2/Conv/Conv2D": {"bias_correction": [NaN]}}', "malformed"),
        ('{"MobilenetV2/Conv/Conv2D": {"bias_correction": [-Infinity]}}', "malformed"),
    ],
)
def test_what_is_wrong_with_corrections_is_named(tmp_path, text, words):
    record = tmp_path / "record.txt"
    corrections_path(record).write_bytes(text.encode("latin-1"))
    with pytest.raises(RecordError, match="Delete it, or calibrate again") as caught:
        read_corrections(record, FACTORS, {})
    assert words in str(caught.value) and str(corrections_path(record)) in str(caught.value)


def test_a_fault_of_our_own_does_not_pass_for_damage(tmp_path, monkeypatch):
    record = tmp_path / "record.txt"
    layers = {name: layer_of(name) for name in FACTORS}
    write_corrections(record, FACTORS, {}, layers)
    monkeypatch.setattr(corrections, "_digest", lambda name, factors: factors.no_such_attribute)
    with pytest.raises(AttributeError):
        read_corrections(record, FACTORS, layers)


def test_files_are_written_whole_with_their_modes(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    write_atomically(path, "text")
    assert path.read_text() == "text"
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.parent.stat().st_mode & 0o027 == 0
    write_atomically(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    assert [item.name for item in path.parent.iterdir()] == ["file.txt"]


def test_every_folder_made_gets_its_mode(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "f", "x")
    assert [(tmp_path / name).stat().st_mode & 0o027 for name in ("a", "a/b")] == [0, 0]


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(OutputError):
        write_atomically(tmp_path / ("a" * 300), "x")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    write_atomically(path, "old")

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OutputError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".file")] == []


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    for call in (lambda: write_record(tmp_path / "file" / "r.txt", FACTORS), lambda: check_writable(tmp_path / "file")):
        with pytest.raises(OutputError, match="cannot be written"):
            call()
