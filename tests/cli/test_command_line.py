"""What all commands have in common: help, completion, and how soon they answer."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from reports import make_report

from amct_tensorflow import __version__
from amct_tensorflow.cli import COMMANDS
from amct_tensorflow.results.report.report_json import dump_report

NAMES = [command.name for command in COMMANDS]


def help_of(main, capsys, *names):
    with pytest.raises(SystemExit) as stopped:
        main([*names, "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


def test_the_help_lists_the_commands(main, capsys):
    shown = help_of(main, capsys)
    assert all(command.name in shown and command.summary in " ".join(shown.split()) for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_the_help_of_a_command_ends_with_examples_that_can_be_typed(main, capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "120")
    shown = help_of(main, capsys, command.name)
    examples = shown.split("examples:\n")[1].split("\n\n")[0].splitlines()
    assert len(examples) > 1 and "exit codes: 0 done;" in shown
    for example in examples:
        program, name, *arguments = shlex.split(example)
        assert (program, name) == ("amct_tensorflow", command.name)
        monkeypatch.setattr("amct_tensorflow.__main__.run_as_command", lambda work, interrupted: 0)
        assert main([name, *arguments]) == 0  # they are parsed, and belong together


def without_tensorflow(*commands):
    """Returns what commands print, one after the other, in a process that must not have imported TensorFlow by then."""
    code = "import sys\nfrom amct_tensorflow.__main__ import main\nfor command in sys.argv[1:]:\n try:\n"
    code += "  main(command.split())\n except SystemExit:\n  pass\n"
    code += " assert not {'tensorflow', 'keras'} & {*sys.modules}, command"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.check_output([sys.executable, "-c", code, *commands], text=True, env=environment)


def test_no_help_waits_for_tensorflow(workdir):
    told = without_tensorflow("--help", *(f"{name} --help" for name in NAMES), "--version")
    assert [name for name in NAMES if f"usage: amct_tensorflow {name} " not in told] == []
    assert told.endswith(f"{__version__}\n")


def test_reports_are_made_again_and_compared_without_tensorflow(workdir):
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "report.json").write_text(dump_report(make_report()))
    told = without_tensorflow("report a", "report a b --output differences.html")
    assert told.startswith("a/report.html\n") and "0 layers differ" in told
    assert Path("a/report.html").is_file() and Path("differences.html").is_file()


RAW = "--data_dir d --input_shape x:1 --data_types float32"


def test_what_is_wrong_shows_without_tensorflow(workdir):
    """What does not exist, and shapes that are none."""
    Path("empty").mkdir()
    told = without_tensorflow(
        "inspect none.pb", "inspect empty", "inspect none.pb --input_shape x:1,y",
        "inspect none.keras --input_shape x:1,2", "auto-calibrate none.pb --data x.npy --snr 20",
        "compare none.pb none.pb", "compare none.pb none.pb --input_shape x", "check none.pb",
        f"calibration --model none.pb --outputs y --save_path s {RAW}",
        "convert --model none.pb --outputs y --save_path s --record_file r", "export none --to onnx --data x.npy",
    )  # fmt: skip
    assert told == ""


def test_what_does_not_exist_is_an_input_that_cannot_be_used(main, capsys, workdir):
    assert main(["inspect", "none.pb"]) == 1
    assert "Model none.pb does not exist. Give the path of a frozen model (.pb)" in capsys.readouterr().err


def complete(typed):
    """Returns what the tab key offers, without TensorFlow."""
    code = "import sys; sys.modules['tensorflow'] = None; from amct_tensorflow.__main__ import main; main()"
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": "offered",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1", "COMP_LINE": typed, "COMP_POINT": str(len(typed)), "_ARGCOMPLETE_IFS": "\n",
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    return Path("offered").read_text().split("\n")


def test_completion(workdir):
    pytest.importorskip("argcomplete", reason="argcomplete is not installed")
    assert [each.strip() for each in complete("amct_tensorflow co")] == ["compare", "convert"]
    assert complete("amct_tensorflow auto-calibrate net.pb --strategy ") == ["BinarySearch", "PredictiveSearch"]
    assert "--sensitivity" in complete("amct_tensorflow auto-calibrate net.pb --sens")[0]


def test_completion_without_the_library_is_no_error(main, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    assert "usage: amct_tensorflow" in help_of(main, capsys)


def test_what_the_readme_has_typed_into_a_shell(workdir):
    """The library writes the function that completes, in the words of the shell."""
    script = Path(sys.executable).with_name("register-python-argcomplete")
    if not script.exists():
        pytest.skip("argcomplete is not installed beside this Python")
    written = subprocess.check_output([script, "amct_tensorflow"], text=True)
    assert subprocess.run(["bash", "-n"], input=written, text=True, check=False).returncode == 0
    assert "complete -o nospace" in written and "amct_tensorflow" in written
