"""Observers of a replay, which its model waits for."""

import threading
from contextlib import closing

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal, tf1

from amct_tensorflow.graph.graph_runner import Look
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.calibration.replay import Replay
from amct_tensorflow.quantize.config.defaults import default_config

IMAGES = normal((2, 8, 8, 4), 61)
DEPTH = 9


def deep_net():
    """Convolutions one behind the other, each of which is added to the one before."""
    y = tf1.placeholder(tf.float32, [None, 8, 8, 4], name="input")
    for index in range(DEPTH):
        y = y + tf.nn.relu(tf.nn.conv2d(y, normal((3, 3, 4, 4), index, 0.2), 1, "SAME", name=f"conv{index}"))
    tf.identity(y, name="out")


@pytest.fixture
def replay():
    model = FloatModel.of_graph(import_graph(build(deep_net), "test"), ["out"])
    fused = model.fuse(default_config(model.layers, model.op_types).unfused_layers())
    with closing(Replay(fused, ["out"], {"input:0": model.graph.get_tensor_by_name("input:0")})) as replay:
        yield replay


def convolution(replay, index):
    return replay.tensor(f"conv{index}:0")


@pytest.mark.parametrize("chains", [1, 2])
def test_observers_are_called_in_topological_order_whatever_order_they_are_given_in(replay, chains):
    seen = []
    looks = [
        Look(convolution(replay, index), lambda _, at=index: seen.append(at), index % chains) for index in range(DEPTH)
    ]
    replay.run(replay.look(looks[::-1]), {"input:0": IMAGES})
    for chain in range(chains):
        in_chain = [index for index in seen if index % chains == chain]
        assert in_chain == sorted(in_chain)
    assert sorted(seen) == list(range(DEPTH))


def test_a_tensor_may_be_looked_at_twice_in_one_chain_or_two(replay):
    seen = []
    looks = [
        Look(convolution(replay, index), lambda _, at=(index, chain): seen.append(at), chain)
        for chain in (0, 1)
        for index in (4, 1, 4, 7)
    ]
    replay.run(replay.look(looks), {"input:0": IMAGES})
    assert sorted(seen) == sorted((index, chain) for chain in (0, 1) for index in (4, 1, 4, 7))


def test_the_model_does_not_run_far_ahead_of_its_observers(replay):
    """While the first observer looks, what is computed for the others stays within three layers."""
    computed, go_on = [], threading.Event()

    def first(_):
        go_on.wait(0.5)  # time enough for all layers
        computed.append(len(far))

    far = []
    looks = [Look(convolution(replay, 0), first)]
    looks += [Look(convolution(replay, index), lambda _, at=index: far.append(at), index) for index in range(1, DEPTH)]
    replay.run(replay.look(looks), {"input:0": IMAGES})
    assert sorted(far) == list(range(1, DEPTH)) and computed[0] <= 3


def test_a_later_stage_calls_no_observers_of_an_earlier_one_and_finds_the_model_unchanged(replay):
    edges = {node.name: {each.name for each in node.control_inputs} for node in replay.graph.get_operations()}
    first, second = [], []
    replay.run(
        replay.look([Look(convolution(replay, at), lambda _: first.append(1)) for at in range(DEPTH)]),
        {"input:0": IMAGES},
    )
    assert len(first) == DEPTH
    operations = replay.look([Look(convolution(replay, DEPTH - 1), lambda value: second.append(value.copy()))])
    replay.run(operations, {"input:0": IMAGES})
    replay.look_no_more()
    values = replay.run(convolution(replay, DEPTH - 1), {"input:0": IMAGES})
    assert len(first) == DEPTH and len(second) == 1
    np.testing.assert_array_equal(values, second[0])
    assert edges == {name: {e.name for e in replay.graph.get_operation_by_name(name).control_inputs} for name in edges}
