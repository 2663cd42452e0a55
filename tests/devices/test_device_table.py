"""Devices: their ladders, and those of users."""

import json
from pathlib import Path

import pytest
from amct_tensorflow.common.auto_calibration import A16W8, FLOAT, FP16, INT8, Device, Rung

from amct_tensorflow.devices.device_file import read_device
from amct_tensorflow.devices.device_table import ASCEND, GENERIC, UNNAMED, choose_device
from amct_tensorflow.errors import ArgumentValueError


def test_what_layers_cost_on_the_known_ones():
    assert [(rung.name, rung.cost) for rung in GENERIC.rungs] == [("int8", 1), ("a16w8", 2), ("float", 4)]
    assert [(rung.name, rung.num_bits) for rung in ASCEND.rungs] == [("int8", 8), ("fp16", None)]
    assert UNNAMED.rungs == (INT8, FLOAT) and choose_device("run", None) is UNNAMED
    assert choose_device("run", "generic") is GENERIC


def test_a_device_of_the_users():
    npu = Device("npu", rungs=(INT8, A16W8.at(1.5), FLOAT.at(6)))
    assert choose_device("run", npu) is npu
    assert npu.described == "npu (int8 1, a16w8 1.5, float 6)"


@pytest.mark.parametrize(
    "rungs",
    [(), (INT8,), (FLOAT,), (A16W8, FLOAT), (INT8, FLOAT, A16W8), (FLOAT, INT8), (INT8, FP16, FLOAT),
     (INT8.at(2), A16W8, FLOAT), (INT8.at(0), FLOAT), (INT8.at(5e-324), FLOAT.at(1e-323)),
     (INT8, FLOAT.at(float("inf"))), (INT8, FLOAT.at(float("nan")))],
)  # fmt: skip
def test_what_is_no_ladder(rungs):
    with pytest.raises(ArgumentValueError, match="rungs of device 'npu'"):
        Device("npu", rungs=rungs)


def test_a_file(workdir):
    Path("npu.json").write_text('{"name": "npu", "rungs": {"float": 8, "int8": 1, "a16w8": 1.25}}')
    device = read_device("npu.json")
    assert (device.name, device.has_rules) == ("npu", False)
    assert device.rungs == (INT8, Rung("a16w8", 16, 1.25), Rung("float", None, 8))
    assert read_device("ascend") is ASCEND


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"name": "npu"}, "holds no device"),
        ({"name": "npu", "rungs": {"int8": "1"}}, "holds no device"),
        ({"name": "npu", "rungs": {"int8": 1, "float": 4}, "more": 1}, "more"),
        ({"name": "npu", "rungs": {"int8": 1, "int4": 0.5, "float": 4}}, "rung 'int4'; those known are int8, a16w8"),
        ({"name": "npu", "rungs": {"int8": 1}}, "float or fp16 last"),
        ({"name": "npu", "rungs": {"int8": 5, "float": 4}}, "float, int8, by what they cost; int8 has to be first"),
        (3, "holds no device"),
    ],
)
def test_files_that_hold_none(workdir, document, words):
    Path("npu.json").write_text(json.dumps(document))
    with pytest.raises(ArgumentValueError, match=words):
        read_device("npu.json")


def test_a_file_that_says_two_things_of_a_rung(workdir):
    Path("npu.json").write_text('{"name": "npu", "rungs": {"int8": 1, "int8": 2, "float": 4}}')
    with pytest.raises(ArgumentValueError, match="it names 'int8' more than once"):
        read_device("npu.json")


@pytest.mark.parametrize(
    ("text", "words"), [("npu", "no device 'npu'; use"), ("none.json", "none.json cannot be read")]
)
def test_names_of_none(workdir, text, words):
    with pytest.raises(ArgumentValueError, match=words):
        read_device(text)
