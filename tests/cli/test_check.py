"""The command that tells what the compiler of a device will make of a model, and the function behind it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from devices.broken_graphs import put_before, whole
from devices.test_rules import behind_another
from graphs import build, quantize_small_net, save, small_net
from programs import run_program
from reports import activation, layer, make_report

import amct_tensorflow as amct
from amct_tensorflow.devices.device_table import DEVICES, choose_device
from amct_tensorflow.errors import (
    ArgumentTypeError,
    ArgumentValueError,
    ModelError,
    ModelNotFoundError,
    ReportError,
)
from amct_tensorflow.results.report import document as d
from amct_tensorflow.results.report.report_json import dump_report


def write_report(largest, model="net_quantized.pb", folder="."):
    """Writes a report in which ``layer_1`` read values up to ``largest``."""
    seen = replace(activation(), observed=d.Histogram(-1.0, largest, (1.0, 2.0)))
    made = replace(make_report(), model=model, layers=(replace(layer(0, "layer_1"), activation=seen),))
    (Path(folder) / "report.json").write_text(dump_report(made))


def test_json_alone_is_on_stdout(workdir):
    model = save(whole(), workdir / "net_quantized.pb")
    done = run_program("-m", "amct_tensorflow", "check", model, "--device", "ascend", "--json", PYTHONPATH=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["summary"] == {
        "errors": 0, "warnings": 0, "notes": 0, "chains": 1, "matched": 1, "int8_share": 1.0, "in_fp16": [],
    }  # fmt: skip
    assert document["findings"] == [] and document["is_quantized"]
    assert [path.name for path in workdir.iterdir()] == ["net_quantized.pb"]


def test_errors_make_the_exit_code(main, capsys, workdir):
    model = save(put_before(whole(), "dequant", 0, "Relu"), workdir / "net.pb")
    assert main(["check", model]) == 3
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "error: Between a layer and its AscendDequant stands nothing but a BiasAdd. [behind-layer; read in old" in shown
    )
    assert "between: Relu stands behind layer 'layer' before 'dequant'." in shown
    assert "1 error, 0 warnings, 0 notes; 0 of 1 chains matched; in int8 on the NPU: 0.0 %" in shown
    assert "nothing was tried with ATC" in shown


def keys(document):
    """Returns the keys of a JSON document, however deep."""
    if isinstance(document, list):
        return {key for each in document for key in keys(each)}
    return set(document).union(*map(keys, document.values())) if isinstance(document, dict) else set()


def test_json_is_as_the_page_says(main, capsys, workdir):
    assert main(["check", save(whole(channels=3), workdir / "net.pb"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    page = (ROOT / "docs" / "file_formats.md").read_text().split("## check --json\n")[1].split("\n## ")[0]
    described = set(re.findall(r"(?m)^\| `(\w+)` \|", page)) | {"source", "year", "certainty"}
    assert keys(document) == described and document["version"] == 1
    (note,) = document["findings"]
    assert (note["level"], note["rule"], note["node"], note["share"]) == ("note", "few-channels", "layer", 1.0)
    assert note["evidence"][0]["year"] == 2022


def test_a_result_of_this_package_has_no_error(workdir):
    _, quantized = quantize_small_net()
    told = amct.check(quantized, ["probabilities"])
    assert isinstance(told, amct.DeviceCheck) and told.errors == ()
    assert (told.chains, told.matched) == (4, 4)  # AvgPool has no weights
    assert {finding.rule for finding in told.findings} == {"few-channels", "unfit-pooling"}
    assert 'input_shape="input:1,12,12,3"' in told.command


def test_shapes_of_inputs(main, capsys, workdir):
    def make():
        import tensorflow as tf  # noqa: PLC0415

        x = tf.compat.v1.placeholder("float32", [None, None, None, 32], name="x")
        tf.nn.conv2d(x, np.ones([3, 3, 32, 4], np.float32), 1, "SAME", name="out")

    model = save(build(make), workdir / "net.pb")
    assert main(["check", model, "--input_shape", "x:2,8,8,32"]) == 0
    assert '--input_shape="x:2,8,8,32"' in capsys.readouterr().out
    assert 'input_shape="x:1,?,?,32"' in amct.check(model).command
    assert amct.check(model, input_shapes={"x": (4, 9, 9, 32)}).command.count("x:4,9,9,32") == 1


@pytest.mark.parametrize(
    ("largest", "model", "rules"),
    [(7e4, "net_quantized.pb", ["float16-range"]), (6e4, "net_quantized.pb", []), (7e4, "other_quantized.pb", [])],
)
def test_the_report_beside_the_model_tells_the_ranges(workdir, largest, model, rules):
    quantized = save(behind_another(largest), workdir / "net_quantized.pb")
    write_report(largest, model)
    assert [finding.rule for finding in amct.check(quantized).findings] == rules


def test_a_report_that_is_elsewhere(main, workdir):
    quantized = save(behind_another(7e4), workdir / "net_quantized.pb")
    (workdir / "run").mkdir()
    write_report(7e4, folder="run")
    assert [finding.rule for finding in amct.check(quantized, report="run").findings] == ["float16-range"]
    assert main(["check", quantized, "--report", "nowhere"]) == 1


def test_a_damaged_report_is_left_out_with_a_warning(workdir, messages):
    quantized = save(behind_another(7e4), workdir / "net_quantized.pb")
    (workdir / "report.json").write_text("{}")
    assert amct.check(quantized).findings == ()
    assert any("is left out, and with it the ranges of calibration" in line for line in messages)
    with pytest.raises(ReportError):
        amct.check(quantized, report="report.json")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"device": "generic"}, ArgumentValueError, "no rules for 'generic'"),
        ({"device": "other"}, ArgumentValueError, "use 'generic' or 'ascend'"),
        ({"outputs": "out"}, ArgumentTypeError, "outputs must be list"),
        ({"outputs": ["nothing"]}, ModelError, "'nothing' is not a node"),
        ({"input_shapes": {"x": (1, 8, 8, 5)}}, ArgumentValueError, "does not fit"),
        ({"model_file": "nowhere.pb"}, ModelNotFoundError, "does not exist"),
    ],
)
def test_wrong_arguments(workdir, arguments, error, words):
    model = save(whole(), workdir / "net.pb")
    with pytest.raises(error, match=words):
        amct.check(**{"model_file": model, **arguments})


def test_the_devices():
    assert list(DEVICES) == ["generic", "ascend"] and choose_device("run", "ascend").has_rules
    for name in ("", "Ascend", 1):
        with pytest.raises(ArgumentValueError, match="use 'generic' or 'ascend'"):
            choose_device("run", name)


def test_a_float_model(main, capsys, workdir):
    assert main(["check", save(build(small_net), workdir / "net.pb")]) == 0
    assert "nothing is quantized; " in " ".join(capsys.readouterr().out.split())
