"""Random small models come out right at every stage; ``make fuzz-models`` tries more of them (see CONTRIBUTING.md)."""

import numpy as np
import pytest
from random_models.drawing import draw_recipe
from random_models.recipe import Data, Recipe, Step
from random_models.shrinking import shrink
from random_models.stages import examine

from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.quantize.quantized import builder


def faults(recipe, formats=()):
    return [f"{each.stage}: {each.text}" for each in examine(recipe, formats) if each.is_fault]


@pytest.mark.parametrize("seed", range(24))
def test_stages(seed):
    recipe = draw_recipe(seed)
    assert faults(recipe) == [], recipe.text()


@pytest.mark.parametrize("name", ["tflite", "onnx", "openvino"])
@pytest.mark.parametrize("seed", [1000, 1002])
def test_exports(seed, name):
    recipe = draw_recipe(seed)
    assert faults(recipe, [name]) == [], recipe.text()


def test_a_seed_always_gives_the_same_recipe_and_its_text_the_recipe():
    for seed in range(10):
        recipe = draw_recipe(seed)
        assert recipe == draw_recipe(seed) == Recipe.parse(recipe.text())


def test_kinds_are_drawn_often():
    kinds = [step.kind for seed in range(30) for step in draw_recipe(seed).steps]
    assert {"conv2d", "matmul", "batch_norm", "bias_add", "transpose", "add", "activation"} <= set(kinds)
    assert len(kinds) / 30 > 4


DENSE = Step("matmul", (0,), {"outputs": 4, "transposed": False, "seed": 1, "gain": 1.0, "channels": "alike"})
BIAS = Step("bias_add", (1,), {"first": False, "seed": 2, "gain": 1.0})
RELU = Step("activation", (2,), {"op": "relu"})
BIASED = Recipe(Data((6,)), (DENSE, BIAS, RELU), (3,))


def test_a_bias_that_gets_lost_is_found(monkeypatch):
    assert faults(BIASED) == []
    monkeypatch.setattr(builder, "quantize_bias", lambda _, bias, *__: np.zeros_like(bias, np.float32))
    assert [each.partition(" | ")[0] for each in faults(BIASED)] == ["quantized: noise"]


def test_another_float_graph_is_found(monkeypatch):
    prepared = FloatModel.fuse

    def without_relu(model, *arguments):
        fused = prepared(model, *arguments)
        (relu,) = (node for node in fused.graph_def.node if node.op == "Relu")
        relu.op = "Softplus"
        return fused

    monkeypatch.setattr(FloatModel, "fuse", without_relu)
    assert [each.partition(" | ")[0] for each in faults(BIASED)] == ["fused: values differ"]


def test_a_recipe_shrinks_to_what_matters():
    def has_bias(recipe):
        return any(step.kind == "bias_add" for step in recipe.steps)

    recipe = next(recipe for seed in range(100) if has_bias(recipe := draw_recipe(seed)) and len(recipe.steps) > 6)
    smallest = shrink(recipe, has_bias)
    assert [step.kind for step in smallest.steps] == ["bias_add"] and smallest.config == {}
