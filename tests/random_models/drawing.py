"""Draws recipes."""

import math
from dataclasses import replace

import tensorflow as tf

from random_models.activations import ACTIVATIONS
from random_models.affine import AFFINE
from random_models.building import placeholder, write_step
from random_models.chance import Chance
from random_models.joins import JOINS
from random_models.layers import LAYERS
from random_models.loops import LOOPS
from random_models.moves import MOVES
from random_models.recipe import Data, Recipe, Step
from random_models.writings import Program

# How often a step is of which kind; what follows a layer is more often affine or an activation.
_FAMILIES = {"layer": LAYERS, "affine": AFFINE, "activation": ACTIVATIONS, "move": MOVES, "join": JOINS, "loop": LOOPS}
_ANYWHERE = {"layer": 4, "affine": 2, "activation": 1, "move": 3, "join": 1.5, "loop": 0.3}
_BEHIND_A_LAYER = {"layer": 1.5, "affine": 4, "activation": 3, "move": 1.5, "join": 1, "loop": 0.2}
_MOST_VALUES = 1500
_MOST_STEPS = 12


def draw_recipe(seed):
    """Returns the recipe of a seed."""
    chance = Chance(seed)
    chance.wild = chance.maybe(0.35)
    data = _draw_data(chance)
    steps, outputs = _draw_outputs(chance, _draw_steps(chance, data))
    layers = [index for index, step in enumerate(steps) if step.kind in LAYERS]
    config = _draw_config(chance, len(data.batches), layers, any(step.kind == "attention" for step in steps))
    return Recipe(data, steps, outputs, chance.maybe(0.6), config)


def _draw_data(chance):
    rank = chance.weighted({2: 2, 3: 3, 4: 6, 5: 0.7})
    side = [chance.whole(3, 9) for _ in range(2)] if chance.maybe(0.3) else [chance.pick(4, 6, 8)] * 2
    channels = chance.whole(1, 6)
    shapes = {
        2: [chance.whole(3, 16)],
        3: [chance.whole(3, 7), channels * 2],
        4: [*side, channels],
        5: [3, 4, 3, channels],
    }
    shape = shapes[rank]
    if rank == 4 and chance.maybe(0.15):
        chance.channels_first = True
        shape = [shape[2], *shape[:2]]
    if rank == 2 and chance.maybe(0.4):
        chance.rows = chance.whole(3, 6)
    fixed = chance.maybe(0.12)
    count = chance.weighted({8: 5, 1: 1, 7: 1, 16: 2, 20: 1.5, 33: 1})
    batches = [count, count if fixed else chance.pick(1, 3, 8)] if chance.maybe(0.25) else [count]
    values = chance.pick("normal", "positive", "drifting", "pixels") if chance.maybe(0.6) else "normal"
    gain = chance.pick(1.0, 1e-5, 1e-3, 0.1, 255.0, 1e4) if chance.wild else 1.0
    return Data(tuple(shape), tuple(batches), fixed, chance.rows, values, gain, chance.seed())


def _draw_steps(chance, data):
    """Draws steps, at least one of which is a layer if there is a way."""
    steps, behind_a_layer = [], False
    with tf.Graph().as_default():
        values = [placeholder(data)]
        ones = [placeholder(replace(data, batches=(1,), fixed=True))]
        count = chance.whole(2, _MOST_STEPS)
        while len(steps) < count or (not _has_layer(steps) and len(steps) < 2 * _MOST_STEPS):
            step, value, one = _draw_step(chance, values, ones, behind_a_layer)
            if step is None:
                break
            values.append(value)
            ones.append(one)
            steps.append(step)
            behind_a_layer = step.kind in LAYERS
    return tuple(steps)


def _has_layer(steps):
    return any(step.kind in LAYERS for step in steps)


def _draw_step(chance, values, ones, behind_a_layer):
    """Draws a step that suits the last value, or now and then an earlier one.

    ``ones`` are the values of a single image: what can be written for one, as the rows fit a Reshape, can be for any
    number of them.

    Returns:
        The step, what it makes of the values, and what of ``ones``; None if there is none.
    """
    for _ in range(50):
        number = len(values) - 1 if chance.maybe(0.9) else chance.whole(0, len(values) - 1)
        family = _FAMILIES[chance.weighted(_BEHIND_A_LAYER if behind_a_layer else _ANYWHERE)]
        step = _draw_of_family(chance, family, values, number)
        if step is not None:
            try:
                value, one = (write_step(step, each, len(values) - 1, Program()) for each in (values, ones))
            except ValueError:
                continue
            if 0 not in value.shape and math.prod(length or 1 for length in value.shape) <= _MOST_VALUES:
                return step, value, one
    return None, None, None


def _draw_of_family(chance, family, values, number):
    """Draws a step of one of the kinds of a family that suit a value; None if none does."""
    shape = values[number].shape.as_list()
    others = [index for index, value in enumerate(values) if index != number and value.shape.as_list() == shape]
    weights = {name: kind.weight for name, kind in family.items() if others or not kind.reads_two}
    while weights:
        name = chance.weighted(weights)
        settings = family[name].draw(chance, shape)
        if settings is not None:
            inputs = (number, chance.pick(*others)) if family[name].reads_two else (number,)
            return Step(name, inputs, settings)
        del weights[name]
    return None


def _draw_outputs(chance, steps):
    """Asks for the last value, now and then for others too, and leaves out what none of them needs."""
    outputs = [len(steps)]
    if chance.maybe(0.25) and len(steps) > 2:
        outputs.append(chance.whole(1, len(steps) - 1))
    return without_unneeded(steps, tuple(outputs))


def without_unneeded(steps, outputs):
    """Returns the steps that the outputs need, counted anew, and the outputs."""
    needed = set(outputs)
    for number in range(len(steps), 0, -1):
        if number in needed:
            needed |= set(steps[number - 1].inputs)
    kept = [0, *(number for number in range(1, len(steps) + 1) if number in needed)]
    new = {number: index for index, number in enumerate(kept)}
    renewed = [steps[number - 1] for number in kept[1:]]
    return (
        tuple(Step(step.kind, tuple(new[number] for number in step.inputs), step.settings) for step in renewed),
        tuple(new[number] for number in outputs),
    )


def _draw_config(chance, batches, layers, attends):
    config = {"products": True} if attends and chance.maybe(0.5) else {}
    if chance.maybe(0.5):
        return config
    if chance.maybe(0.2):
        config["do_fusion"] = False
    if chance.maybe(0.3):
        config["bias_correction"] = False
    if chance.maybe(0.3):
        config["weight_rounding"] = "nearest"
    if chance.maybe(0.2):
        config["range_refinement"] = False
    if chance.maybe(0.3):
        config["activation_offset"] = False
    if len(layers) > 1:
        for key in ("skip", "unfused", "per_tensor"):
            if chance.maybe(0.2):
                config[key] = [chance.pick(*layers)]
    return config
