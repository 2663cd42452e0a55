"""Whether integers may run at all is asked of TensorFlow, and tried on the processor."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import tensorflow as tf

from amct_tensorflow.search.integers import availability
from amct_tensorflow.search.integers.kernel_layer import CONVOLUTION, has_kernel

EXACT = 32 * 255 * 127
SATURATED = 16 * 32767  # of each pair 32,767 are left


@pytest.fixture(autouse=True)
def afresh():
    asked = availability.why_no_integer_kernels, availability.why_no_lite_kernels
    for function in asked:
        function.cache_clear()
    yield
    for function in asked:
        function.cache_clear()


@pytest.fixture
def sums(monkeypatch):
    """Makes the convolution yield some sums."""

    def yields(values):
        monkeypatch.setattr(availability, "_greatest_sums", lambda: np.array(values))

    monkeypatch.setattr(availability, "onednn_is_on", lambda: True)
    monkeypatch.setattr(availability, "has_kernel", lambda op: True)
    yields([EXACT])
    return yields


def test_exact_products(sums):
    assert availability.why_no_integer_kernels() is None


def test_products_that_saturate(sums):
    sums([EXACT, SATURATED])
    assert "VNNI" in availability.why_no_integer_kernels()


def test_a_kernel_that_fails(sums, monkeypatch):
    def fail():
        raise tf.errors.UnimplementedError(None, None, "not for these types")

    monkeypatch.setattr(availability, "_greatest_sums", fail)
    assert "VNNI" in availability.why_no_integer_kernels()


def test_the_convolution_is_one_of_the_greatest_numbers():
    """On any processor, where oneDNN runs at all: all sums are the same, exact or saturated."""
    if availability.why_no_integer_kernels() not in (None, "this processor has no exact products of bytes (VNNI)"):
        pytest.skip(availability.why_no_integer_kernels())
    found = availability._greatest_sums()
    assert found.shape == (1, 4, 4, 32) and found.dtype == np.int32
    assert np.all(found == EXACT) == (availability.why_no_integer_kernels() is None)
    assert np.all(found == EXACT) or np.all(found < EXACT)


def test_another_tensorflow(sums, monkeypatch):
    monkeypatch.setattr(availability, "has_kernel", lambda op: op != CONVOLUTION)
    assert availability.why_no_integer_kernels() == "this TensorFlow has no _FusedQuantizedConv2D"


def test_kernels_that_are_switched_off(sums, monkeypatch):
    monkeypatch.setattr(availability, "onednn_is_on", lambda: False)
    assert "oneDNN is switched off" in availability.why_no_integer_kernels()


def test_a_gpu(sums, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert "GPU" in availability.why_no_integer_kernels()


def test_an_op_that_does_not_exist():
    assert not has_kernel("NoSuchOp")


LITE = "tensorflow.lite.python.schema_py_generated"


def test_tensorflow_lite_runs_where_it_is():
    missing = find_spec(LITE) is None or bool(tf.config.list_physical_devices("GPU"))
    assert (availability.why_no_lite_kernels() is None) == (not missing)


def test_tensorflow_lite_beside_a_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert "GPU" in availability.why_no_lite_kernels()


def test_a_tensorflow_without_what_writes_its_files(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setitem(sys.modules, LITE, None)
    assert availability.why_no_lite_kernels() == "this TensorFlow comes without TensorFlow Lite"


def test_a_tensorflow_without_what_runs_them(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(tf, "lite", object())
    assert availability.why_no_lite_kernels() == "this TensorFlow comes without TensorFlow Lite"
