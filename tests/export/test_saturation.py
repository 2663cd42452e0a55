"""Products of bytes that saturate in pairs: files that are right all the same, and what the check tells of it."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, tf1
from test_every_format import OneBatch

from amct_tensorflow.errors import ExportError
from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_model import export_model
from amct_tensorflow.export.export_plan import plan_export
from amct_tensorflow.export.narrow_weights import with_narrow_weights
from amct_tensorflow.export.onnx import onnx_target
from amct_tensorflow.export.openvino import openvino_target
from amct_tensorflow.export.saturation import SEVEN_BITS, can_saturate, saturates
from amct_tensorflow.export.target import Saturating
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
pytest.importorskip("openvino", reason="the extra openvino is not installed")

MODULES = {"onnx": onnx_target, "openvino": openvino_target}
MODEL = Path("results/net_quantized.pb")


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([64, 64, 1], False),  # 255 * 128 = 32,640
        ([-64, -64], False),  # -32,640
        ([65, 64], True),  # 255 * 129 = 32,895, and int16 ends at 32,767
        ([-128, 0, 1], True),
        ([127, 1, -1], False),
        ([-128], False),
        (None, False),
    ],
)
def test_which_weights_can_saturate(weights, expected):
    pool = SimpleNamespace(weights=None, is_product=False)
    layer = SimpleNamespace(weights=None if weights is None else np.array(weights, np.int8), is_product=False)
    assert can_saturate([pool, layer]) == expected


def test_a_second_operand_can_saturate():
    assert can_saturate([SimpleNamespace(weights=None, is_product=True)])


@pytest.mark.parametrize(
    ("add", "expected"),
    [
        (lambda products: products.sum(), False),
        (lambda products: 1024 * (products.sum() // 1024), False),  # as bfloat16 rounds
        (lambda products: np.minimum(products.reshape(-1, 2).sum(axis=1), 32767).sum(), True),
    ],
)
def test_a_runtime_that_saturates_is_found_out(add, expected):
    def run(model, inputs):
        constants = {
            each.name: onnx.numpy_helper.to_array(each) for each in onnx.load_from_string(model).graph.initializer
        }
        assert not constants["zero"] and constants["step"] == 1 and np.all(constants["weight_steps"] == 1)
        row = inputs["x"][0].astype(int)
        return np.array([[add(row * column) for column in constants["weights"].T.astype(int)]], np.float32)

    assert saturates(run) == expected


def make_bright_images():
    """Quantizes a model whose bytes and weights are so large that pairs of their products exceed 16 bits."""

    def make():
        y = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
        y = tf.nn.relu6(tf.nn.conv2d(y, 1 + 0.3 * normal((3, 3, 3, 16), 1), 1, "SAME"))
        y = tf.nn.relu(tf.nn.conv2d(y, (1 + 0.3 * normal((3, 3, 16, 16), 2)) / 144, 1, "SAME"))
        tf.nn.softmax(tf.matmul(tf.reduce_mean(y, [1, 2]), 0.05 * normal((16, 4), 3)), name="out")

    x = np.random.default_rng(4).uniform(0.2, 1, (16, 8, 8, 3)).astype(np.float32)
    calibrate_and_save(build(make), x)
    return x


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("bright")
        patch.chdir(folder)
        x = make_bright_images()
    return folder / MODEL, CheckedEvaluator(OneBatch(x))


def export(bright, target, **options):
    model, evaluator = bright
    return export_model(model, [], TARGETS[target], evaluator, Path("net").absolute(), 0.01, **options)


def test_weights_in_7_bits_stay_close(bright):
    plan = plan_export(bright[0], [], bright[1])
    narrow = with_narrow_weights(plan, bright[1], SEVEN_BITS)
    for name, layer in plan.layers.items():
        found = narrow.layers[name]
        assert found.weights.min() >= -64 and found.weights.max() <= 63
        axis = tuple(range(layer.weights.ndim - 1))
        limits = np.maximum(layer.weights.max(axis) / 63, layer.weights.min(axis) / -64)
        wider = np.maximum(limits if layer.deq_scale.size > 1 else limits.max(), 1)
        np.testing.assert_allclose(found.deq_scale / layer.deq_scale, wider, rtol=1e-6)
        difference = found.float_weights - layer.float_weights
        assert np.sqrt(np.mean(difference**2)) < 0.7 * found.weight_scale.max()
    assert can_saturate(plan.layers.values()) and not can_saturate(narrow.layers.values())


def test_a_plan_in_7_bits_is_left_as_it_is(bright):
    narrow = with_narrow_weights(plan_export(bright[0], [], bright[1]), bright[1], SEVEN_BITS)
    assert with_narrow_weights(narrow, bright[1], SEVEN_BITS) is narrow


@pytest.mark.parametrize("target", MODULES)
def test_a_file_with_weights_in_7_bits_is_right_everywhere(bright, target, workdir):
    document = export(bright, target, weight_bits=7)
    assert document["kl"] < 1e-3 and document["within_limit"]
    assert document["weight_bits"] == 7 and document["this_processor"] is None
    assert any("7 bits" in note for note in document["notes"])


def test_the_onnx_file_holds_them(bright, workdir):
    export(bright, "onnx", weight_bits=7)
    initializers = onnx.load("net.onnx").graph.initializer
    weights = [onnx.numpy_helper.to_array(each) for each in initializers if each.name.endswith("/int8_weights")]
    assert len(weights) == 3
    assert all(each.min() >= -64 and each.max() <= 63 for each in weights)


@pytest.mark.parametrize("target", MODULES)
def test_the_full_range_is_checked_with_exact_kernels(bright, target, workdir, messages):
    """On a processor where it matters the other figure is far off."""
    saturated = MODULES[target]._saturates()
    document = export(bright, target)
    assert document["kl"] < 1e-4 and document["within_limit"] and document["weight_bits"] == 8
    assert [layer["int8"] for layer in document["layers"]] == [True] * 3
    assert (document["this_processor"] is not None) == saturated
    if saturated:
        assert document["this_processor"]["kl"] > 1e-3
    assert any("without VNNI" in message for message in messages) == saturated


@pytest.mark.parametrize("target", MODULES)
def test_what_is_at_fault_is_said_with_the_remedy(bright, target, workdir, messages, monkeypatch):
    monkeypatch.setattr(MODULES[target], "_saturates", lambda: True)
    document = export(bright, target)
    assert document["kl"] < 1e-3
    assert document["this_processor"].keys() == {"top1", "metric", "kl", "agreement"}
    (said,) = [message for message in messages if "without VNNI" in message]
    assert "--weight_bits 7" in said and f"{document['this_processor']['kl']:.5f}" in said
    assert ("session.x64quantprecision" in said) == (target == "onnx")


def test_tensorflow_lite_needs_none(bright, workdir):
    with pytest.raises(ExportError, match=r"--weight_bits 7 gains nothing in tflite: .* in 32 bits"):
        export(bright, "tflite", weight_bits=7)


class Shifted:
    """A runtime that computes what another does, and something more."""

    def __init__(self, runtime, by):
        self._runtime, self._by = runtime, by

    def run(self, inputs):
        return [value + self._by for value in self._runtime.run(inputs)]

    def layers(self, inputs):
        return {}


class Fails(Shifted):
    def run(self, inputs):
        raise ExportError("It cannot.")


@pytest.mark.parametrize("runtime", [lambda exact: Shifted(exact, 1.0), lambda exact: Fails(exact, 0.0)])
def test_exact_kernels_that_err_do_not_condemn_a_file(runtime, messages):
    """On some processors the kernels that saturate are right where those in float are not."""
    target = TARGETS["tflite"]

    def export(plan, evaluator):
        exported = target.export(plan, evaluator)
        right = exported.runtime
        return replace(exported, runtime=runtime(right), saturating=Saturating(right, "A runtime", None))

    x = normal((8, 12), 3)
    calibrate_and_save(build(dense), x)
    document = export_model(
        Path("results/net_quantized.pb"), [], replace(target, export=export), CheckedEvaluator(OneBatch(x)),
        Path("results/net"), 0.01,
    )  # fmt: skip
    assert document["within_limit"] and document["file"] == "net.tflite" and document["this_processor"] is None
    assert not [message for message in messages if "saturate" in message]


def dense():
    x = tf1.placeholder(tf.float32, [None, 12], name="x")
    tf.matmul(x, normal((12, 5), 4, 0.3), name="out")
