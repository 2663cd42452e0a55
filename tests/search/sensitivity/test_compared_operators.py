"""Where outputs follow from decisions, the effect of quantization is measured in front of them."""

from contextlib import closing

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal
from tensorflow import compat

from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.calibration.calibrator import Calibrator
from amct_tensorflow.quantize.config.defaults import default_config
from amct_tensorflow.search.sensitivity import layer_scores
from amct_tensorflow.search.sensitivity.compared_operators import compared_operators
from amct_tensorflow.search.sensitivity.layer_scores import LayerScores
from amct_tensorflow.search.sensitivity.measures import OutputDivergenceSensitivity

tf1 = compat.v1


def head(x, name, seed):
    y = tf.nn.conv2d(x, normal((1, 1, 4, 3), seed, 0.4), 1, "SAME", name=name)
    return tf.nn.bias_add(y, normal((3,), seed + 1), name=f"{name}/shifted")


def backbone():
    x = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="input")
    return tf.nn.relu(tf.nn.conv2d(x, normal((3, 3, 3, 4), 1, 0.3), 1, "SAME", name="first"), name="features")


def peaks():
    """Heat maps, and the position of the maximum of each, behind a sigmoid."""
    maps = tf.sigmoid(head(backbone(), "heat", 2), name="maps")
    flat = tf.reshape(maps, [-1, 64, 3])
    tf.cast(tf.argmax(flat, axis=1), tf.float32, name="peaks")


def detections():
    """Offsets where scores are highest: both heads decide, and only one value is a choice of the other's."""
    features = backbone()
    scores = tf.reshape(tf.sigmoid(head(features, "scores", 2)), [-1, 192])
    offsets = tf.reshape(head(features, "offsets", 4), [-1, 192])
    _, best = tf.nn.top_k(scores, 5)
    tf.gather(offsets, best, batch_dims=1, name="best")


def plain():
    """No decision: shapes are integers that do not depend on values."""
    y = head(backbone(), "heat", 2)
    tf.nn.softmax(tf.reshape(y, [tf.shape(y)[0], -1]), name="classes")


def early():
    """A decision in front of the last layer does not count."""
    features = backbone()
    mask = tf.cast(features > 0.1, tf.float32)
    tf.identity(head(features * mask, "heat", 2), name="out")


class Scored:
    def __init__(self, make, outputs, images):
        model = FloatModel.of_graph(import_graph(build(make), "test"), outputs)
        calibrator = Calibrator(model, default_config(model.layers, model.op_types), lambda _: None, for_search=True)
        with tf1.Session(graph=model.graph) as session:
            session.run([f"{name}:0" for name in outputs], {"input:0": images})
        self.calibration = calibrator.check_complete()
        self.plan = self.calibration.plan(calibrator.fused, outputs)
        self.outline = model.outline
        self.scores = LayerScores(self.outline, self.plan, self.calibration)

    def compared(self):
        return compared_operators(self.outline, self.plan)


@pytest.mark.parametrize(
    ("make", "outputs", "expected"),
    [(peaks, ["peaks"], ("heat/shifted",)),
     (peaks, ["maps", "peaks"], ("maps", "heat/shifted")),
     (detections, ["best"], ("offsets/shifted", "scores/shifted")),
     (plain, ["classes"], ("classes",)),
     (early, ["out"], ("out",))],
)  # fmt: skip
def test_where_it_is_measured(make, outputs, expected):
    assert Scored(make, outputs, normal((4, 8, 8, 3), 9)).compared() == expected


def test_in_front_of_decisions_the_damage_of_layers_adds_up(messages):
    scored = Scored(peaks, ["peaks"], normal((16, 8, 8, 3), 9))
    with closing(scored.scores) as scores:
        first, heat, both = scores.divergences([{"first"}, {"heat"}, {"first", "heat"}])
    assert first > 0 and heat > 0
    assert both == pytest.approx(first + heat, rel=0.3)
    assert any("peaks follows from decisions" in line and "heat/shifted" in line for line in messages)


def test_each_layer_alone_runs_on_a_few_images_and_is_measured_once(monkeypatch):
    monkeypatch.setattr(layer_scores, "_PASSES", 0.5)
    images = normal((32, 8, 8, 3), 9)
    scored = Scored(plain, ["classes"], images)
    runs = []
    original = layer_scores.SwitchableModel.compare

    def compare(self, candidates, base, new_measure, images=None):
        runs.append((len(candidates), images))
        return original(self, candidates, base, new_measure, images)

    monkeypatch.setattr(layer_scores.SwitchableModel, "compare", compare)
    with closing(scored.scores) as scores:
        ranking = scores.ranking(OutputDivergenceSensitivity())
        alone = scores.sampled_divergences([{"first"}, {"heat"}])
        whole = scores.divergences([{"first"}, {"heat"}])
    assert [ranking[name] for name in ("first", "heat")] == [pytest.approx(np.exp(-value)) for value in alone]
    # One runs all of the 120 products per position, the other its own 12: half a pass of 32 images is 14 of both.
    assert runs == [(2, 14), (2, None)]
    first_images = Scored(plain, ["classes"], images)
    with closing(first_images.scores) as scores:
        scores.sampled_divergences([{"first"}])
    assert alone != whole and alone == pytest.approx(whole, rel=1)


def test_a_model_that_does_not_take_a_part_of_a_batch_runs_it_whole(monkeypatch):
    """A Reshape to a fixed number of images."""
    monkeypatch.setattr(layer_scores, "_PASSES", 0.5)

    def make():
        y = head(backbone(), "heat", 2)
        tf.nn.softmax(tf.reshape(y, [16, 192]), name="classes")

    scored = Scored(make, ["classes"], normal((16, 8, 8, 3), 9))
    with closing(scored.scores) as scores:
        assert scores.sampled_divergences([{"first"}]) == scores.divergences([{"first"}])
