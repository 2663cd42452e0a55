"""What other libraries say in Python goes to the log file."""

import subprocess
import sys

from conftest import ROOT

from amct_tensorflow.log import LOG_FILE

PROGRAM = """
import logging, sys, warnings
from amct_tensorflow.io.quiet import output_to_log_file

def speak(when):
    print("printed", when)
    print("to stderr", when, file=sys.stderr)
    warnings.warn("warned " + when)
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).warning("logged by %s %s", name, when)

logging.basicConfig()
try:
    with output_to_log_file("library"):
        speak("meanwhile")
        raise KeyError
except KeyError:
    speak("afterwards")
"""
SAID = ["printed", "to stderr", "warned", "logged by tensorflow", "logged by absl"]


def test_it_goes_to_the_log_file_even_if_the_work_fails(workdir):
    """And everybody speaks again afterwards."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    log = (workdir / LOG_FILE).read_text()
    assert [what for what in SAID if f"{what} meanwhile" not in log] == []
    assert log.count("INFO - [AMCT]:[library]: ") == log.count("\n") and "afterwards" not in log
    console = done.stdout + done.stderr
    assert [what for what in SAID if f"{what} afterwards" not in console] == []
    assert "meanwhile" not in console
