"""One graph for every set of quantized layers: it must compute what the saved model of each set computes."""

from contextlib import closing

import numpy as np
import pytest
import tensorflow as tf
from graphs import SMALL_NET_LAYERS, batch_norm, build, build_v1, nchw_on_cpu, normal, run, small_net, tf1
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.calibration.calibrator import Calibrator
from amct_tensorflow.quantize.config.defaults import default_config
from amct_tensorflow.quantize.quantized.builder import quantize_graph
from amct_tensorflow.search.sensitivity import layer_scores
from amct_tensorflow.search.sensitivity.cuts import MOST_TENSORS, find_cuts
from amct_tensorflow.search.sensitivity.divergence import Divergence
from amct_tensorflow.search.sensitivity.layer_scores import LayerScores
from amct_tensorflow.search.sensitivity.measures import OutputDivergenceSensitivity
from amct_tensorflow.search.sensitivity.switchable_model import SwitchableModel

IMAGES = normal((6, 12, 12, 3), 50)


def residual_net():
    """Two outputs, a shortcut, a shared input, a pooling and a transposed convolution."""
    x = tf1.placeholder(tf.float32, [None, 12, 12, 3], name="input")
    stem = tf.nn.relu6(batch_norm(tf.nn.conv2d(x, normal((3, 3, 3, 6), 1, 0.4), 1, "SAME", name="stem"), 6, "bn"))
    left = tf.nn.conv2d(stem, normal((1, 1, 6, 6), 2, 0.4), 1, "SAME", name="left")
    right = tf.nn.conv2d(stem, normal((3, 3, 6, 6), 3, 0.2), 1, "SAME", name="right")
    joined = tf.nn.relu(tf.add(left, right, name="joined"), name="relu")
    pooled = tf.nn.avg_pool2d(joined, 2, 2, "VALID", name="pool")
    shape = tf.concat([tf.shape(pooled)[:1], [12, 12, 4]], 0)
    image = tf.nn.conv2d_transpose(pooled, normal((2, 2, 4, 6), 4, 0.3), shape, 2, "SAME", name="image")
    tf.identity(image, name="picture")
    flat = tf.reshape(pooled, [-1, 216])
    tf.nn.softmax(tf.matmul(flat, normal((216, 4), 5, 0.1), name="scores"), name="classes")


class Prepared:
    """A model, calibrated on batches of images for ``input``, or of values for several inputs."""

    def __init__(self, make, outputs, batches, calibrated_outputs=None, build=build, options=None):
        batches = [batch if isinstance(batch, dict) else {"input": batch} for batch in batches]
        self.outputs, self.feeds, self.options = outputs, batches[0], options
        self.graph_def = build(make)
        model = FloatModel.of_graph(import_graph(self.graph_def, "test"), outputs)
        config = default_config(model.layers, model.op_types, batch_num=len(batches))
        calibrator = Calibrator(model, config, lambda _: None, for_search=True)
        with tf1.Session(graph=model.graph, config=options) as session:
            for batch in batches:
                feeds = {f"{name}:0": value for name, value in batch.items()}
                session.run([f"{name}:0" for name in calibrated_outputs or outputs], feeds)
        self.calibration = calibrator.check_complete()
        self.plan = self.calibration.plan(calibrator.fused, outputs)
        self.switchable = SwitchableModel(model.outline, self.plan, self.calibration.batches)
        self.layers = list(self.plan.factors)

    def expected(self, quantized):
        """The divergence of the model that would be saved."""
        plan = self.plan.restrict({name: name in quantized for name in self.layers})
        graph_def = quantize_graph(plan).graph_def
        divergence = Divergence(len(self.outputs))
        reference = run(self.graph_def, self.outputs, self.feeds, self.options)
        divergence.add(reference, run(graph_def, self.outputs, self.feeds, self.options))
        return divergence.value

    def check_every_layer(self):
        for name in self.layers:
            assert self.switchable.divergences([{name}]) == [pytest.approx(self.expected({name}), rel=1e-3, abs=1e-8)]


@pytest.fixture(scope="module")
def chain():
    return Prepared(small_net, ["probabilities"], [IMAGES])


@pytest.fixture(scope="module")
def residual():
    return Prepared(residual_net, ["picture", "classes"], [IMAGES])


@settings(max_examples=20, deadline=None)
@given(quantized=st.sets(st.sampled_from(SMALL_NET_LAYERS)), base=st.sets(st.sampled_from(SMALL_NET_LAYERS)))
def test_every_set_of_a_chain_scores_like_its_saved_model(chain, quantized, base):
    (actual,) = chain.switchable.divergences([quantized], base)
    assert actual == pytest.approx(chain.expected(quantized), rel=1e-3, abs=1e-8)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_every_set_of_a_branched_model_scores_like_its_saved_model(residual, data):
    quantized = data.draw(st.sets(st.sampled_from(residual.layers)))
    base = data.draw(st.sets(st.sampled_from(residual.layers)))
    (actual,) = residual.switchable.divergences([quantized], base)
    assert actual == pytest.approx(residual.expected(quantized), rel=1e-3, abs=1e-8)


def test_nothing_quantized_moves_nothing(chain, residual):
    assert chain.switchable.divergences([()]) == [0.0]
    assert residual.switchable.divergences([()]) == [0.0]
    assert all(score > 0 for score in chain.switchable.divergences([{name} for name in SMALL_NET_LAYERS]))


def test_batches_of_any_size_count_by_their_images():
    whole = Prepared(small_net, ["probabilities"], [IMAGES])
    parts = Prepared(small_net, ["probabilities"], [IMAGES[:1], IMAGES[1:4], IMAGES[4:]])
    sets = [{name} for name in SMALL_NET_LAYERS]
    # Calibration itself sees the same values; only the corrections are means of means.
    assert parts.switchable.divergences(sets) == pytest.approx(whole.switchable.divergences(sets), rel=0.05)
    assert parts.calibration.images == whole.calibration.images == 6


def test_a_users_comparison_gets_whole_batches():
    class Correlation(OutputDivergenceSensitivity):
        def compare(self, data, other):
            assert len(data) == len(other) == 40
            return float(np.corrcoef(data.ravel(), other.ravel())[0, 1])

    prepared = Prepared(small_net, ["probabilities"], [normal((40, 12, 12, 3), 51)])
    (measure,) = prepared.switchable.compare([{prepared.layers[0]}], (), Correlation().output_measure)
    assert 0 < measure.similarity < 1


def test_layers_without_a_gate_and_unknown_names_change_nothing(chain):
    assert chain.switchable.divergences([{"no such layer"}]) == [0.0]


def test_outputs_that_calibration_did_not_reach_are_left_out():
    def make():
        small_net()
        extra = tf1.placeholder(tf.float32, [None, 5], name="second_input")
        tf.add(tf1.get_default_graph().get_tensor_by_name("probabilities:0"), extra, name="other")

    prepared = Prepared(make, ["probabilities", "other"], [IMAGES], calibrated_outputs=["probabilities"])
    assert prepared.switchable.outputs == ("probabilities",)
    assert prepared.switchable.divergences([set(SMALL_NET_LAYERS)])[0] > 0


def single_tensors(flow):
    """The tensors that alone determine all outputs."""
    return [cut.tensors[0] for cut in flow.cuts if len(cut.tensors) == 1]


def test_cuts_of_a_branched_model():
    flow = find_cuts(GraphView(build(residual_net)), {"input"}, ["picture", "classes"])
    single = single_tensors(flow)
    # The shared input of the branches, what joins them, and the last before the two outputs part.
    assert {"stem", "joined", "relu", "pool"} < set(single)
    assert not {"left", "right", "image", "picture", "classes", "input"} & set(single)
    assert single == [name for name in flow.order if name in single]
    # Between them, both branches.
    assert {"left", "right"} in [set(cut.tensors) for cut in flow.cuts]
    assert [cut.position for cut in flow.cuts] == sorted({cut.position for cut in flow.cuts})


def test_an_early_output_is_in_use_to_the_end():
    flow = find_cuts(GraphView(build(residual_net)), {"input"}, ["joined", "classes"])
    single = single_tensors(flow)
    assert "stem" in single and "relu" not in single
    assert ("joined", "relu") in [cut.tensors for cut in flow.cuts]


def pyramid():
    """Shortcuts from each of three levels to the end, as a U-Net has; no single tensor determines the output."""
    x = tf1.placeholder(tf.float32, [None, 12, 12, 3], name="input")
    levels = []
    for index in range(3):
        weights = normal((3, 3, 3 if index == 0 else 4, 4), index, 0.3)
        y = tf.nn.conv2d(x, weights, 1 if index == 0 else 2, "SAME", name=f"down{index}")
        x = tf.nn.relu(tf.nn.bias_add(y, normal((4,), index + 5)), name=f"level{index}")
        levels.append(x)
    for index in (1, 0):
        size = [12 // 2**index] * 2
        large = tf1.image.resize_nearest_neighbor(x, size, name=f"large{index}")
        joined = tf.concat([levels[index], large], -1)
        x = tf.nn.conv2d(joined, normal((1, 1, 8, 4), index + 10, 0.4), 1, "SAME", name=f"up{index}")
    tf.identity(x, name="out")
    tf.reduce_mean(levels[2], [1, 2], name="early")


@pytest.mark.parametrize("outputs", [["out"], ["early", "out"]])
def test_a_model_with_shortcuts_is_entered_with_several_tensors(outputs):
    prepared = Prepared(pyramid, outputs, [IMAGES])
    prepared.check_every_layer()
    last = prepared.switchable.layers_to_run({"up0"})
    assert "up0" in last and len(last) < len(prepared.layers) - 1
    lowest = set(prepared.layers)
    for name in prepared.layers:  # from a base set, whose values are fed
        (found,) = prepared.switchable.divergences([lowest - {name}], lowest)
        assert found == pytest.approx(prepared.expected(lowest - {name}), rel=1e-3, abs=1e-8)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=3), min_size=3, max_size=12), st.data())
def test_the_tensors_of_a_cut_are_all_that_is_read_behind_it(reads, data):
    """Of any graph: what stands behind a cut reads its tensors, or what stands behind it, too."""

    def make():
        values = [tf1.placeholder(tf.float32, [None, 3], name="input")]
        for index, sources in enumerate(reads):
            values.append(tf.add_n([values[each % len(values)] for each in sources], name=f"n{index}"))

    view = GraphView(build(make))
    outputs = data.draw(
        st.lists(st.sampled_from([f"n{index}" for index in range(len(reads))]), min_size=1, unique=True)
    )
    flow = find_cuts(view, {"input"}, outputs)
    for cut in flow.cuts:
        behind = set(flow.order[cut.position + 1 :])
        read = {text for name in behind for text in view.nodes[name].input}
        assert set(cut.tensors) == (read | set(outputs)) - behind
        assert 1 <= len(cut.tensors) <= MOST_TENSORS and behind


def test_no_cut_determines_the_outputs_before_every_input_is_known():
    def make():
        x, other = (tf1.placeholder(tf.float32, [None, 3], name=name) for name in ("input", "other"))
        joined = tf.add(tf.sin(tf.sin(x, name="a"), name="b"), tf.cos(other, name="c"), name="joined")
        tf.sin(joined, name="out")

    flow = find_cuts(GraphView(build(make)), {"input", "other"}, ["out"])
    assert single_tensors(flow) == ["joined"]
    assert ("b", "c") in [tuple(sorted(cut.tensors)) for cut in flow.cuts]


def test_what_a_loop_yields_is_data_wherever_it_comes_from():
    def make():
        x = tf1.placeholder(tf.float32, [3], name="input")
        y = tf.sin(x, name="a")
        _, z = tf1.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, v + y), [0, tf.zeros([3])])
        tf.cos(tf.exp(z, name="b"), name="out")

    view = GraphView(build_v1(make))
    flow = find_cuts(view, {"input"}, ["out"])
    assert {"while/Exit_1", "b", "out"} < set(flow.order)
    assert not {name for cut in flow.cuts for name in cut.tensors} & view.loop_nodes
    assert single_tensors(flow)[-2:] == ["while/Exit_1", "b"]


def test_what_is_waited_for_behind_a_cut_belongs_to_it():
    def make():
        x = tf1.placeholder(tf.float32, [None, 3], name="input")
        first = tf.identity(tf.identity(x, name="a"), name="b")
        with tf1.get_default_graph().control_dependencies([first.op.inputs[0]]):
            tf.identity(first, name="c")

    assert [cut.tensors for cut in find_cuts(GraphView(build(make)), {"input"}, ["c"]).cuts] == [("a",), ("a", "b")]


def test_unknown_shapes_and_inputs_that_are_no_images():
    def make():
        x = tf1.placeholder(tf.float32, name="input")
        factor = tf1.placeholder_with_default(np.float32(0.5), [], name="factor")
        y = tf.nn.relu(tf.nn.conv2d(x, normal((3, 3, 3, 4), 1), 1, "SAME", name="a"), name="b")
        y = tf.nn.conv2d(y * factor, normal((1, 1, 4, 4), 2), 1, "SAME", name="c")
        tf.nn.conv2d(y, normal((1, 1, 4, 2), 3), 1, "SAME", name="out")

    prepared = Prepared(make, ["out"], [IMAGES])
    for quantized in ({"a"}, {"c"}, {"out"}, {"a", "out"}):
        assert prepared.switchable.divergences([quantized]) == [pytest.approx(prepared.expected(quantized), rel=1e-3)]
    (early,) = prepared.switchable.divergences([{"a", "c"}], base={"a"})
    assert early == pytest.approx(prepared.expected({"a", "c"}), rel=1e-3)


def test_several_inputs():
    def make():
        x = tf1.placeholder(tf.float32, [None, 12, 12, 3], name="input")
        other = tf1.placeholder(tf.float32, [None, 5], name="numbers")
        y = tf.nn.conv2d(x, normal((3, 3, 3, 4), 1), 1, "SAME", name="a")
        y = tf.nn.relu(tf.nn.conv2d(tf.nn.relu(y), normal((3, 3, 4, 4), 2), 1, "SAME", name="b"))
        y = tf.reduce_mean(y, [1, 2]) + tf.nn.sigmoid(tf.matmul(other, normal((5, 4), 3), name="c"))
        tf.matmul(tf.nn.relu(y), normal((4, 3), 4), name="out")

    Prepared(make, ["out"], [{"input": IMAGES, "numbers": normal((6, 5), 5)}]).check_every_layer()


def test_layers_right_behind_each_other():
    """A separable convolution: what the first moves goes through the second."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 12, 12, 3], name="input")
        y = tf.nn.depthwise_conv2d(x, normal((3, 3, 3, 2), 1), [1, 1, 1, 1], "SAME", name="a")
        tf.nn.relu(tf.nn.conv2d(y, normal((1, 1, 6, 4), 2), 1, "SAME", name="b"), name="out")

    Prepared(make, ["out"], [IMAGES]).check_every_layer()


def test_biases_that_fusion_put_before_a_reshape():
    """Conv1D: no node of the float model has the value of the bias."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 12, 3], name="input")
        for index, channels in enumerate((3, 4, 4)):
            x = tf.nn.conv1d(x, normal((3, channels, 4), index), 1, "SAME", name=f"conv{index}")
            x = tf.nn.relu(tf.nn.bias_add(x, normal((4,), index + 5)))
        tf.identity(x, name="out")

    Prepared(make, ["out"], [normal((6, 12, 3), 9)]).check_every_layer()


def test_a_loop_between_layers():
    def make():
        x = tf1.placeholder(tf.float32, [6, 5], name="input")
        y = tf.matmul(x, normal((5, 5), 1), name="a")
        _, z = tf1.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, tf.tanh(v + y)), [0, tf.zeros([6, 5])])
        tf.identity(tf.matmul(z, normal((5, 3), 2), name="b"), name="out")

    Prepared(make, ["out"], [normal((6, 5), 3)], build=build_v1).check_every_layer()


def test_channels_first_on_a_cpu():
    def make():
        x = tf1.placeholder(tf.float32, [None, 3, 12, 12], name="input")
        y = tf.nn.conv2d(x, normal((3, 3, 3, 4), 1), 1, "SAME", "NCHW", name="a")
        y = tf.nn.relu(tf.nn.bias_add(y, normal((4,), 2), "NCHW"))
        y = tf.nn.avg_pool2d(y, 2, 2, "VALID", "NCHW", name="b")
        tf.nn.max_pool2d(y, 2, 2, "VALID", "NCHW", name="pooled")
        tf.identity(tf1.get_default_graph().get_tensor_by_name("pooled:0"), name="out")

    images = [IMAGES.transpose(0, 3, 1, 2)]
    for outputs in (["out"], ["pooled", "b"]):
        Prepared(make, outputs, images, ["out"], options=nchw_on_cpu()).check_every_layer()


def test_layers_behind_which_calibration_has_seen_what_it_cannot_compute_again():
    """What their quantization moves would be taken for nothing."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 5], name="input")
        flag = tf1.placeholder(tf.bool, [], name="flag")
        y = tf.matmul(x, normal((5, 5), 1), name="a")
        y = tf1.cond(flag, lambda: tf.nn.dropout(y, 0.5), lambda: y)
        tf.identity(tf.matmul(y, normal((5, 3), 2), name="b"), name="out")

    with pytest.raises(ModelError, match="What layer 'a' computes goes through a branch or loop with data of its own"):
        Prepared(make, ["out"], [{"input": normal((6, 5), 3), "flag": False}], build=build_v1)


def test_large_outputs_are_not_kept(monkeypatch, chain):
    monkeypatch.setattr("amct_tensorflow.search.sensitivity.switchable_model._LARGEST_REFERENCE", 0)
    again = Prepared(small_net, ["probabilities"], [IMAGES])
    sets = [{name} for name in SMALL_NET_LAYERS]
    assert again.switchable.divergences(sets) == chain.switchable.divergences(sets)
    assert not again.switchable._references


def test_control_edges_around_layers():
    def make():
        x = tf1.placeholder(tf.float32, [None, 12, 12, 3], name="input")
        graph = tf1.get_default_graph()
        first = tf.nn.conv2d(x, normal((3, 3, 3, 4), 1), 1, "SAME", name="first")
        shifted = tf.nn.bias_add(first, normal((4,), 2), name="shifted")
        with graph.control_dependencies([shifted]):
            second = tf.nn.conv2d(tf.nn.relu(shifted), normal((1, 1, 4, 4), 3), 1, "SAME", name="second")
        with graph.control_dependencies([second]):
            tf.nn.conv2d(tf.nn.relu(second), normal((1, 1, 4, 2), 4), 1, "SAME", name="out")

    prepared = Prepared(make, ["out"], [IMAGES])
    for quantized in ({"first"}, {"second"}, {"first", "second"}, {"first", "second", "out"}):
        assert prepared.switchable.divergences([quantized]) == [pytest.approx(prepared.expected(quantized), rel=1e-3)]


def test_what_tensorflow_cannot_run_is_done_without(chain, monkeypatch, messages):
    """Evaluations may have taken hours by then. A fault of our own is not taken for TensorFlow's."""
    graph = import_graph(chain.graph_def, "test")

    def refuse(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "no memory\nleft")

    with closing(LayerScores(graph, chain.plan, chain.calibration)) as scores:
        with monkeypatch.context() as patch:
            patch.setattr(tf1.Session, "run", refuse)
            assert np.isnan(scores.divergences([{"conv/Conv2D"}, set()])).all()
        assert any("cannot be measured" in line and "no memory left" in line for line in messages)
        monkeypatch.setattr(Divergence, "add", lambda self, reference, values: {}[0])
        with pytest.raises(KeyError):
            scores.divergences([{"conv/Conv2D"}])


def test_a_graph_that_tensorflow_does_not_take(chain, monkeypatch, messages):
    graph = import_graph(chain.graph_def, "test")

    def refuse(*_, **__):
        raise ValueError("NodeDef mentions an attribute that is not in the op")

    monkeypatch.setattr(tf, "import_graph_def", refuse)
    with closing(LayerScores(graph, chain.plan, chain.calibration)) as scores:
        assert scores.ranking(OutputDivergenceSensitivity()) == scores.local_similarities()
    assert any("cannot be measured" in line for line in messages)


@pytest.mark.parametrize(("limit", "images"), [(1e12, 6), (1, 4)])
def test_sets_are_scored_on_as_many_images_as_cost_little(chain, monkeypatch, limit, images):
    """However many images calibrated, and however large they are; on a few in any case."""
    monkeypatch.setattr(layer_scores, "_PRODUCTS_PER_SET", limit)
    sets = [set(SMALL_NET_LAYERS), {SMALL_NET_LAYERS[0]}]
    with closing(LayerScores(import_graph(chain.graph_def, "test"), chain.plan, chain.calibration)) as scores:
        assert scores.images == images
        assert scores.divergences(sets) == chain.switchable.divergences(sets, images=images)


@pytest.mark.parametrize(("limit", "images"), [(1e12, 6), (1, 1)])
def test_layers_alone_are_scored_on_as_many_images_as_cost_little(chain, monkeypatch, limit, images):
    monkeypatch.setattr(layer_scores, "_PASSES", 100)
    monkeypatch.setattr(layer_scores, "_PRODUCTS_ALONE", limit)
    alone = [{name} for name in SMALL_NET_LAYERS]
    with closing(LayerScores(import_graph(chain.graph_def, "test"), chain.plan, chain.calibration)) as scores:
        assert scores.sampled_divergences(alone) == chain.switchable.divergences(alone, images=images)
