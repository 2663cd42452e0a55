"""The command is one that people can type, and says nothing of where programs lie."""

from pathlib import Path

import pytest

from amct_tensorflow.results.report.reproduction import command_line

PROGRAMS = Path("/home/somebody/.venv/bin")


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ([f"{PROGRAMS}/python", "src/sample.py", "--dataset", "my data"], "python src/sample.py --dataset 'my data'"),
        (["python3", "-m", "amct_tensorflow", "inspect"], "python3 -m amct_tensorflow inspect"),
        ([f"{PROGRAMS}/python", f"{PROGRAMS}/amct_tensorflow", "auto-calibrate"], "amct_tensorflow auto-calibrate"),
        (["python", "sample.py", "--resume"], "python sample.py"),
        (
            ["python", "s.py", "--num_workers", "2", "--model", "x", "--ray=auto", "--exact"],
            "python s.py --model x --exact",
        ),
        (["python"], "python"),
    ],
)
def test_command(arguments, command):
    assert command_line(arguments, PROGRAMS) == command
