"""The key of a run: digests of all that determines its results; only a run with the same key can resume it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from amct_tensorflow import __version__
from amct_tensorflow.io.onednn import onednn_is_on
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.quantize.config.json_file import dump_config
from amct_tensorflow.quantize.config.schema import QuantConfig
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator
from amct_tensorflow.search.sensitivity.measures import CosineSimilaritySensitivity, SensitivityBase
from amct_tensorflow.search.source_code import code_of, parameters_of


def digest(value: bytes | str) -> str:
    """Returns the SHA-256 of bytes or text, in hexadecimal."""
    return hashlib.sha256(value.encode() if isinstance(value, str) else value).hexdigest()


@dataclass(frozen=True)
class RunKey:
    """Digests of all that determines the results of a run, by names that messages can use.

    Attributes:
        parts: digests of what the engine knows.
        identity: digests of the evaluator's ``identity``, whose names may be among those of ``parts``.
    """

    parts: Mapping[str, str]
    identity: Mapping[str, str] = field(default_factory=dict)

    @property
    def named(self) -> dict[str, str]:
        """All digests, by the names for messages."""
        return {**{self._name(name): value for name, value in self.identity.items()}, **self.parts}

    def changes(self, earlier: "RunKey") -> list[str]:
        """Returns the names of the digests that differ from an earlier key."""
        told = _differences(self.identity, earlier.identity)
        return [*map(self._name, told), *_differences(self.parts, earlier.parts)]

    def _name(self, name: str) -> str:
        return f"{name} of identity()" if name in self.parts else name


def _differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]


def run_key(
    model: FloatModel, config: QuantConfig, evaluator: CheckedEvaluator, sensitivity: SensitivityBase
) -> RunKey:
    """Returns the key of a run; it covers evaluations and calibration, while decisions are made anew."""
    comparison = sensitivity.layer_comparison()
    kind = CosineSimilaritySensitivity if comparison is None else type(comparison)
    things = {
        "evaluator": evaluator.name,
        "evaluator's code": evaluator.code(),
        "model": model.graph_def.SerializeToString(deterministic=True),
        "outputs": json.dumps(model.outputs),
        "configuration": dump_config(config),
        "sensitivity": f"{kind.__module__}.{kind.__qualname__}",
        "sensitivity's code": code_of(kind, "sensitivity") + parameters_of(comparison),
        "use of oneDNN": str(onednn_is_on()),  # it sums in another order, which changes last digits
        "software": f"{__version__}, TensorFlow {tf.__version__}, NumPy {np.__version__}",
    }
    identity = {name: digest(thing) for name, thing in evaluator.identity().items()}
    return RunKey({name: digest(thing) for name, thing in things.items()}, identity)
