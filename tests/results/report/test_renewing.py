"""A report is made again with what was exported since, and exports that say nothing are left out."""

import json
from pathlib import Path

import pytest
from reports import make_report

from amct_tensorflow.errors import OutputError, ReportNotFoundError
from amct_tensorflow.io.publishing import exclusive
from amct_tensorflow.quantize.quantized.model_files import prefix_of
from amct_tensorflow.results.report.document import Export, SaturatedExport
from amct_tensorflow.results.report.report_files import read_exports, renew
from amct_tensorflow.results.report.report_json import dump_report, read_report

EXPORT = {
    "version": 1, "format": "tflite", "file": "net.tflite", "file_bytes": 123_456, "images": 500,
    "simulation": {"top1": 92.5}, "exported": {"top1": None}, "kl": 0.0125, "agreement": 0.998,
    "layers": [{"name": "a", "int8": True, "reason": None, "snr_db": 31.5}, {"name": "b", "int8": False,
                "reason": "its kernel knows no int8", "snr_db": None}], "more": "to come",
}  # fmt: skip


@pytest.fixture
def folder(workdir):
    (workdir / "report.json").write_text(dump_report(make_report()))
    return workdir


def write(folder, name, content):
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def test_exports_are_shown(folder):
    write(folder, "net_export_tflite.json", EXPORT)
    page = renew(folder)
    assert page == folder / "report.html"
    (export,) = read_report(folder).exports
    assert (export.format, export.file_bytes, export.agreement) == ("tflite", 123_456, 0.998)
    text = page.read_text()
    for said in ("net.tflite", "123.5 kB", "top1 92.5", "0.0125", "99.80 %", "1 of 2", "its kernel knows no int8"):
        assert said in text
    (folder / "net_export_tflite.json").unlink()
    renew(folder)
    assert read_report(folder) == make_report()


def test_what_a_processor_that_saturates_makes_of_a_file_is_shown(folder):
    found = {"kl": 0.1125, "agreement": 0.75, "top1": None, "metric": 4.0}
    write(folder, "net_export_onnx.json", {**EXPORT, "weight_bits": 8, "this_processor": found})
    text = renew(folder).read_text()
    (export,) = read_report(folder).exports
    assert export.this_processor == SaturatedExport(0.1125, 0.75, None) and export.weight_bits == 8
    for said in ("saturates products of bytes", "0.1125", "75.00 %", "--weight_bits 7"):
        assert said in text


def test_an_export_may_say_little(folder):
    write(folder, "net_export_onnx.json", {})
    renew(folder)
    assert read_report(folder).exports == (Export(),)


def test_exports_of_a_model_without_a_prefix_are_found(folder):
    name = f"{prefix_of(folder / 'quantized.pb').name}_export_onnx.json"  # as export calls it
    write(folder, name, EXPORT)
    assert [each.format for each in read_exports(folder, "quantized.pb")] == ["tflite"]


def test_exports_of_other_models_are_left_out(folder):
    write(folder, "other_export_tflite.json", EXPORT)
    renew(folder)
    assert read_report(folder).exports == ()


@pytest.mark.parametrize("damage", ["", "[]", '{"kl": NaN}', '{"layers": 3}'])
def test_an_export_that_is_damaged_is_named(folder, messages, damage):
    write(folder, "net_export_tflite.json", damage)
    renew(folder)
    assert read_report(folder).exports == ()
    assert any("net_export_tflite.json is left out" in line for line in messages)


def test_a_run_that_is_writing_there_is_not_disturbed(folder):
    before = (folder / "report.json").read_bytes()
    with exclusive([folder]), pytest.raises(OutputError):
        renew(folder)
    assert (folder / "report.json").read_bytes() == before and not (folder / "report.html").exists()


def test_there_must_be_a_report():
    with pytest.raises(ReportNotFoundError):
        renew(Path())
