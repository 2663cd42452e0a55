"""Makes a recipe smaller as long as the same goes wrong."""

import time
from dataclasses import replace

from random_models.drawing import without_unneeded
from random_models.recipe import Recipe, Step

# What settings become if that changes nothing of what goes wrong.
_PLAIN = {
    "gain": 1.0, "channels": "alike", "stride": 1, "dilation": 1, "groups": 1, "transposed": False, "padding": "SAME",
    "variance": "alike", "op": None, "outputs": 2, "kernel": [1, 1], "left": False, "inside": "nothing",
}  # fmt: skip
_PLAIN_OPS = {"activation": "relu", "pass": "Identity", "arithmetic": "AddV2"}


def smaller(recipe):
    """Yields recipes with one thing less."""
    for number in range(len(recipe.steps), 0, -1):
        yield _without(recipe, number)
    if len(recipe.outputs) > 1:
        for output in recipe.outputs:
            yield _with_outputs(recipe, (output,))
    for key in recipe.config:
        yield replace(recipe, config={name: value for name, value in recipe.config.items() if name != key})
    data = recipe.data
    for change in ({"batches": data.batches[:1]}, {"fixed": False}, {"values": "normal"}, {"gain": 1.0}):
        yield replace(recipe, data=replace(data, **change))
    yield replace(recipe, named=True)
    for index, step in enumerate(recipe.steps):
        for key, value in step.settings.items():
            plain = _PLAIN_OPS.get(step.kind) if key == "op" else _PLAIN.get(key)
            if plain is not None and plain != value:
                changed = Step(step.kind, step.inputs, {**step.settings, key: plain})
                yield replace(recipe, steps=(*recipe.steps[:index], changed, *recipe.steps[index + 1 :]))


def _without(recipe, number):
    """Leaves out a step; what read it reads its first input."""
    instead = recipe.steps[number - 1].inputs[0]

    def renewed(other):
        if other == number:
            return instead
        return other - 1 if other > number else other

    steps = tuple(
        Step(step.kind, tuple(map(renewed, step.inputs)), step.settings)
        for index, step in enumerate(recipe.steps, 1)
        if index != number
    )
    return _with_outputs(
        replace(recipe, steps=steps, config=_renumbered(recipe.config, number)), tuple(map(renewed, recipe.outputs))
    )


def _renumbered(config, number):
    """Returns a configuration that counts the steps without one of them; it counts from 0."""
    return {
        key: [each - (each > number - 1) for each in value if each != number - 1] if isinstance(value, list) else value
        for key, value in config.items()
    }


def _with_outputs(recipe, outputs):
    steps, outputs = without_unneeded(recipe.steps, outputs)
    config = (
        recipe.config
        if len(steps) == len(recipe.steps)
        else {key: value for key, value in recipe.config.items() if not isinstance(value, list)}
    )
    return Recipe(recipe.data, steps, outputs, recipe.named, config)


def shrink(recipe, is_as_wrong, seconds=60):
    """Returns the smallest recipe found in some time of which ``is_as_wrong`` is true."""
    end = time.monotonic() + seconds
    best, again = recipe, True
    while again:
        again = False
        for candidate in smaller(best):
            if candidate == best:
                continue
            if time.monotonic() > end:
                return best
            if is_as_wrong(candidate):
                best, again = candidate, True
                break
    return best
