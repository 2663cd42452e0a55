"""Whether integers may run at all is asked of TensorFlow, and tried on the processor."""

import numpy as np
import pytest
import tensorflow as tf

from amct_tensorflow.search.integers import obstacle
from amct_tensorflow.search.integers.kernel_layer import CONVOLUTION, has_kernel

EXACT = 32 * 255 * 127
SATURATED = 16 * 32767  # of each pair 32,767 are left


@pytest.fixture(autouse=True)
def afresh():
    obstacle.obstacle_to_integers.cache_clear()
    yield
    obstacle.obstacle_to_integers.cache_clear()


@pytest.fixture
def sums(monkeypatch):
    """Makes the convolution yield some sums."""

    def yields(values):
        monkeypatch.setattr(obstacle, "_greatest_sums", lambda: np.array(values))

    monkeypatch.setattr(obstacle._pywrap_util_port, "IsMklEnabled", lambda: True)
    monkeypatch.setattr(obstacle, "has_kernel", lambda op: True)
    yields([EXACT])
    return yields


def test_exact_products(sums):
    assert obstacle.obstacle_to_integers() is None


def test_products_that_saturate(sums):
    sums([EXACT, SATURATED])
    assert "VNNI" in obstacle.obstacle_to_integers()


def test_a_kernel_that_fails(sums, monkeypatch):
    def fail():
        raise tf.errors.UnimplementedError(None, None, "not for these types")

    monkeypatch.setattr(obstacle, "_greatest_sums", fail)
    assert "VNNI" in obstacle.obstacle_to_integers()


def test_the_convolution_is_one_of_the_greatest_numbers():
    """On any processor, where oneDNN runs at all: all sums are the same, exact or saturated."""
    if obstacle.obstacle_to_integers() not in (None, "this processor has no exact products of bytes (VNNI)"):
        pytest.skip(obstacle.obstacle_to_integers())
    found = obstacle._greatest_sums()
    assert found.shape == (1, 4, 4, 32) and found.dtype == np.int32
    assert np.all(found == EXACT) == (obstacle.obstacle_to_integers() is None)
    assert np.all(found == EXACT) or np.all(found < EXACT)


def test_another_tensorflow(sums, monkeypatch):
    monkeypatch.setattr(obstacle, "has_kernel", lambda op: op != CONVOLUTION)
    assert obstacle.obstacle_to_integers() == "this TensorFlow has no _FusedQuantizedConv2D"


def test_kernels_that_are_switched_off(sums, monkeypatch):
    monkeypatch.setattr(obstacle._pywrap_util_port, "IsMklEnabled", lambda: False)
    assert "oneDNN is switched off" in obstacle.obstacle_to_integers()


def test_a_gpu(sums, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert "GPU" in obstacle.obstacle_to_integers()


def test_an_op_that_does_not_exist():
    assert not has_kernel("NoSuchOp")
