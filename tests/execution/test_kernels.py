"""Whether integers may run at all is asked of TensorFlow and of the processor."""

import pytest
import tensorflow as tf

from amct_tensorflow.execution import kernels


@pytest.fixture(autouse=True)
def afresh():
    kernels.obstacle_to_integers.cache_clear()
    yield
    kernels.obstacle_to_integers.cache_clear()


@pytest.fixture
def processor(tmp_path, monkeypatch):
    def features(text):
        file = tmp_path / "cpuinfo"
        file.write_text(f"processor\t: 0\nmodel name\t: any\nflags\t\t: fpu sse {text}\n")
        monkeypatch.setattr(kernels, "_PROCESSOR", file)

    monkeypatch.setattr(kernels._pywrap_util_port, "IsMklEnabled", lambda: True)
    monkeypatch.setattr(kernels, "_has_kernel", lambda op: True)
    return features


@pytest.mark.parametrize("feature", ["avx512_vnni", "avx_vnni", "amx_int8"])
def test_processors_with_exact_products(processor, feature):
    processor(f"avx2 {feature}")
    assert kernels.obstacle_to_integers() is None


@pytest.mark.parametrize("features", ["", "avx2 avx512f"])
def test_processors_without(processor, features):
    processor(features)
    assert "VNNI" in kernels.obstacle_to_integers()


def test_a_system_that_does_not_tell(processor, monkeypatch, tmp_path):
    processor("avx512_vnni")
    monkeypatch.setattr(kernels, "_PROCESSOR", tmp_path / "none")
    assert "VNNI" in kernels.obstacle_to_integers()


def test_another_tensorflow(processor, monkeypatch):
    processor("avx512_vnni")
    monkeypatch.setattr(kernels, "_has_kernel", lambda op: op != kernels.CONVOLUTION)
    assert kernels.obstacle_to_integers() == "this TensorFlow has no _FusedQuantizedConv2D"


def test_kernels_that_are_switched_off(processor, monkeypatch):
    processor("avx512_vnni")
    monkeypatch.setattr(kernels._pywrap_util_port, "IsMklEnabled", lambda: False)
    assert "oneDNN is switched off" in kernels.obstacle_to_integers()


def test_a_gpu(processor, monkeypatch):
    processor("avx512_vnni")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert "GPU" in kernels.obstacle_to_integers()


def test_an_op_that_does_not_exist():
    assert not kernels._has_kernel("NoSuchOp")
