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
