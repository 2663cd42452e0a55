"""A model as data: what can be drawn, printed, made smaller, and built again."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Step:
    """Makes one value of others; ``inputs`` counts values, of which 0 is the model's input and n what step n made."""

    kind: str
    inputs: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """What the model is fed with.

    Attributes:
        shape: of one image, sequence or row.
        batches: how many of them each calibration batch holds.
        fixed: whether the model has that number written into its placeholder.
        rows: how many rows of the placeholder belong together, as steps of a sequence do.
        values: how they are distributed.
        gain: by what they are multiplied.
        seed: of their generator.
    """

    shape: tuple[int, ...]
    batches: tuple[int, ...] = (8,)
    fixed: bool = False
    rows: int = 1
    values: str = "normal"
    gain: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """A model, what it is fed with, and how it is quantized.

    Attributes:
        data: its input.
        steps: how its values follow from one another.
        outputs: which values are asked for.
        named: whether outputs have nodes of their own; else the nodes that make them are asked for.
        config: what config.json says beside its defaults; ``skip``, ``unfused`` and ``per_tensor`` count steps;
            ``products`` says whether products of two computed operands are quantized.
    """

    data: Data
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    named: bool = True
    config: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """Returns it as JSON, a line a step."""
        steps = ",\n  ".join(json.dumps([step.kind, list(step.inputs), step.settings]) for step in self.steps)
        data = json.dumps({name: value for name, value in asdict(self.data).items() if value != _DEFAULTS.get(name)})
        rest = (
            f'"outputs": {list(self.outputs)}, "named": {json.dumps(self.named)}, "config": {json.dumps(self.config)}'
        )
        return f'{{"data": {data},\n "steps": [\n  {steps}],\n {rest}}}'

    @staticmethod
    def parse(text: str) -> "Recipe":
        """Returns the recipe that ``text`` wrote."""
        content = json.loads(text)
        data = {name: tuple(value) if isinstance(value, list) else value for name, value in content["data"].items()}
        steps = tuple(Step(kind, tuple(inputs), settings) for kind, inputs, settings in content["steps"])
        return Recipe(Data(**data), steps, tuple(content["outputs"]), content["named"], content["config"])


_DEFAULTS = asdict(Data(()))
