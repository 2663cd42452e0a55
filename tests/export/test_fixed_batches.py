"""Models that take a fixed number of images at a time, wherever their graphs say so."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, tf1
from grids import grid
from test_every_format import OneBatch

from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.batch_sizes import fixed_batch, in_batches_of
from amct_tensorflow.export.export_plan import plan_export
from amct_tensorflow.export.verification import check_export
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
pytest.importorskip("openvino", reason="the extra openvino is not installed")

BATCH = 12
X = normal((BATCH, 6, 6, 3), 9)


def conv(x, number=1):
    return tf.nn.relu(tf.nn.conv2d(x, normal((3, 3, int(x.shape[-1]), 4), number, 0.3), 1, "SAME"))


def finish(y):
    """Ends a model in a dense layer; ``y`` has 144 values per image."""
    tf.nn.softmax(tf.matmul(y, normal((144, 3), 5, 0.1)), name="out")


def images(first=None):
    return tf1.placeholder(tf.float32, [first, 6, 6, 3], name="x")


def transposed(x):
    return tf.nn.conv2d_transpose(x, normal((2, 2, 1, 4), 3, 0.3), [BATCH, 12, 12, 1], 2, "SAME")


FIXED = {
    "a placeholder": lambda: finish(tf.reshape(conv(images(BATCH)), [-1, 144])),
    "a placeholder and a Reshape": lambda: finish(tf.reshape(conv(images(BATCH)), [BATCH, 144])),
    "a Reshape": lambda: finish(tf.reshape(conv(images()), [BATCH, 144])),
    "a Reshape of what is left": lambda: finish(tf.reshape(conv(images()), [BATCH, -1])),
    "a transposed convolution": lambda: finish(tf.reshape(transposed(conv(images())), [-1, 144])),
}


def checks(make, x, names=TARGETS):
    """Quantizes a model, and returns per format how its export compares with the simulation, and the plan."""
    calibrate_and_save(build(make), x)
    checked = CheckedEvaluator(OneBatch(x))
    plan = plan_export(Path("results/net_quantized.pb"), [], checked)
    return plan, {name: check_export(plan, TARGETS[name].export(plan, checked), checked) for name in names}


@grid(1, where=FIXED, name=TARGETS)
def test_all_formats_take_a_batch_that_the_graph_fixes(where, name):
    plan, found = checks(FIXED[where], X, [name])
    assert fixed_batch(plan.view) == BATCH
    assert plan.shapes == {"x": (BATCH, 6, 6, 3)}
    check = found[name]
    assert check.exported.divergence < 1e-3 and check.exported.images == BATCH, check


def test_any_number_is_one_at_a_time():
    plan, found = checks(lambda: finish(tf.reshape(conv(images()), [-1, 144])), X)
    assert fixed_batch(plan.view) is None and plan.shapes == {"x": (1, 6, 6, 3)}
    assert len(plan.images["x"]) == 8
    assert all(check.exported.divergence < 1e-3 for check in found.values())


def test_rows_that_belong_together_stay_together():
    def make():
        y = tf.nn.relu(tf.matmul(tf1.placeholder(tf.float32, [None, 8], name="x"), normal((8, 6), 1)))
        tf.nn.softmax(tf.matmul(tf.cumsum(y, axis=0), normal((6, 4), 2, 0.02)), name="out")

    plan, found = checks(make, normal((20, 8), 9))
    assert plan.shapes == {"x": (20, 8)}
    assert all(check.exported.divergence < 1e-3 for check in found.values())


@pytest.mark.parametrize(
    ("files", "target"), [([5, 12, 3], "tflite"), ([7], "tflite"), ([30], "onnx"), ([12], "openvino")]
)
def test_the_command_deals_images_out_as_the_model_takes_them(main, capsys, files, target):
    calibrate_and_save(build(FIXED["a Reshape"]), X)
    total = sum(files)
    values = np.resize(X, (total, 6, 6, 3))
    names = []
    for number, part in enumerate(np.split(values, np.cumsum(files)[:-1])):
        names.append(f"{number}.npy")
        np.save(names[-1], part)
    np.save("labels.npy", np.zeros(total, np.int64))
    capsys.readouterr()
    arguments = ["export", "results", "--to", target, "--data", *names, "--labels", "labels.npy", "--json"]
    assert main(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kl"] < 1e-3
    assert document["images"] == -(-total // BATCH) * BATCH
    assert document["exported"]["top1"] is not None


def test_images_are_dealt_out_anew():
    batches = [{"x": np.arange(5), "size": np.array([7, 7])}, {"x": np.arange(5, 11), "size": np.array([7, 7])}]
    found = list(in_batches_of(4, iter(batches), ["x"]))
    assert [(list(batch["x"]), images) for batch, images in found] == [
        ([0, 1, 2, 3], 4),
        ([4, 5, 6, 7], 4),
        ([8, 9, 10, 8], 3),
    ]
    assert all(list(batch["size"]) == [7, 7] for batch, _ in found)
