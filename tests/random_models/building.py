"""From a recipe to graphs."""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from random_models.kinds import KINDS
from random_models.writings import Program

INPUT = "x"


@dataclass(frozen=True)
class Model:
    """A model as a program writes it; ``outputs`` are the names of its output operators."""

    graph_def: Any
    outputs: list[str]


def write_step(step, values, index, how):
    """Adds what a step computes to the graph that is being built."""
    how.step = index
    inputs = [values[number] for number in step.inputs]
    kind = KINDS[step.kind]
    with tf.name_scope(f"step{index + 1}"):
        return kind.write(how, inputs if kind.reads_two else inputs[0], **step.settings)


def write(recipe, x, how):
    """Adds all steps; returns all values."""
    values = [x]
    for index, step in enumerate(recipe.steps):
        values.append(write_step(step, values, index, how))
    return values


def placeholder(data):
    """Adds the input of a model."""
    count = data.batches[0] * data.rows if data.fixed else None
    return tf.compat.v1.placeholder(tf.float32, [count, *data.shape], name=INPUT)


def build(recipe):
    """Returns the model of a recipe.

    Raises whatever TensorFlow raises of a recipe whose shapes do not fit.
    """
    with tf.Graph().as_default() as graph:
        values = write(recipe, placeholder(recipe.data), Program())
        outputs = [_name(values[number], index, recipe.named) for index, number in enumerate(recipe.outputs)]
    return Model(graph.as_graph_def(), outputs)


def _name(value, index, named):
    """Returns the name of an output's operator, which is added if it shall have one of its own."""
    if named or value.value_index or value.op.type == "Placeholder":
        return tf.identity(value, name=f"out{index}").op.name
    return value.op.name


def step_of(layer):
    """Returns the index of the step that wrote a layer."""
    return int(layer.split("/")[0].removeprefix("step")) - 1
