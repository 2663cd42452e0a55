"""Importing the package is cheap, and gives the same names whatever was imported before."""

import subprocess
import sys

import pytest
from conftest import ROOT
from programs import run_program

import amct_tensorflow as amct


def python(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["amct_tensorflow", "amct_tensorflow.console", "amct_tensorflow.errors"])
def test_it_leaves_tensorflow_for_later(module):
    assert python(f"import {module}, sys; print('tensorflow' in sys.modules)") == "False\n"


HELPED = ["amct_tensorflow", *sorted(str(each.relative_to(ROOT)) for each in (ROOT / "src").glob("*.py"))]


@pytest.mark.parametrize("arguments", [["--help"], ["--nonsense"]], ids=" ".join)
@pytest.mark.parametrize("program", HELPED)
def test_who_only_reads_the_arguments_does_not_wait_for_tensorflow(program, arguments):
    code = f"""
import runpy, sys
sys.argv = ["program", *{arguments}]
try:
    runpy.run_{"path" if program.endswith(".py") else "module"}({program!r}, run_name="__main__")
except SystemExit as end:
    print(end.code, "tensorflow" in sys.modules)
"""
    code_of_exit = {"--help": 0, "--nonsense": 2}[arguments[0]]
    assert python(code).splitlines()[-1] == f"{code_of_exit} False"


def test_every_public_name_is_there():
    done = run_program("-c", "from amct_tensorflow import *; create_quant_config, save_model", PYTHONPATH=ROOT)
    assert done.returncode == 0, done.stderr
    assert set(amct.__all__) <= set(dir(amct))
    assert all(getattr(amct, name) for name in amct.__all__)
    assert amct.errors.AmctError is amct.AmctError
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = amct.nothing
    with pytest.raises(ImportError):
        from amct_tensorflow import nothing  # noqa: F401, PLC0415


@pytest.mark.parametrize("first", ["amct_tensorflow", "amct_tensorflow.accuracy_based_auto_calibration"])
def test_the_function_that_shares_its_name_with_a_module_is_the_function(first):
    """Existing clients use both ways."""
    function = "accuracy_based_auto_calibration"
    code = f"""
import {first}
import amct_tensorflow as amct
from amct_tensorflow.{function} import {function}
assert amct.{function} is {function}
assert callable({function})
"""
    done = run_program("-c", code, PYTHONPATH=ROOT)
    assert done.returncode == 0, done.stderr
