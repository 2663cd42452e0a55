"""Runs a float model and a quantized one on the same batches, and sums up where they differ.

A layer is looked at in three ways. *In place*: its output in the quantized model, which has the errors of all layers
before it. *Alone*: its output when it reads what the float layer reads. And its *damage*: how far the outputs of the
float model move if the output of this layer alone becomes that of the quantized one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.comparison.batches import Batch
from amct_tensorflow.comparison.correspondence import QuantizedLayer, QuantizedModel
from amct_tensorflow.comparison.running import Runner
from amct_tensorflow.comparison.tensor_error import TensorError
from amct_tensorflow.console.progress_lines import Progress
from amct_tensorflow.errors import DatasetError, ModelError
from amct_tensorflow.graph.model_file import import_graph
from amct_tensorflow.graph.nodes import make_node
from amct_tensorflow.graph.view import parse_tensor_name
from amct_tensorflow.models.float_model import FloatModel
from amct_tensorflow.sensitivity.divergence import Divergence

# Scope of what takes the place of the tensors that quantized layers read.
_FLOAT_SCOPE = "amct_float"


class ComparedLayer:
    """What is found for a layer.

    Attributes:
        layer: the layer.
        alone: error of its output when it reads what the float layer reads.
        in_place: error of its output in the quantized model.
        damage: divergence of the model's outputs if it alone is quantized.
    """

    def __init__(self, layer: QuantizedLayer, outputs: int) -> None:
        self.layer = layer
        self.alone = TensorError()
        self.in_place = TensorError()
        self.damage = Divergence(outputs)


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        layers: the layers that could be looked at by themselves, those that do the most damage first.
        in_place_only: the layers of which the original model knows the output, but not what they read.
        unseen: the quantized layers to whose output no tensor of the original model corresponds.
        outputs: per output of the model, its error.
        divergence: of all outputs.
        batches: number of batches.
    """

    layers: tuple[ComparedLayer, ...]
    in_place_only: tuple[ComparedLayer, ...]
    unseen: tuple[QuantizedLayer, ...]
    outputs: Mapping[str, TensorError]
    divergence: float
    batches: int


def compare_models(
    original: FloatModel, quantized: QuantizedModel, outputs: Sequence[str], batches: Iterable[Batch]
) -> Comparison:
    """Compares two models.

    Args:
        original: the float model.
        quantized: what was made of it.
        outputs: the operators at which the outputs are compared.
        batches: per batch, the values of the inputs of the float model, by their nodes.

    Raises:
        ModelError: the quantized model was not made from this float model.
        DatasetError: there is no batch, or the models cannot be run on one.
    """
    _check_belongs(original, quantized, outputs)
    compared = [
        ComparedLayer(layer, len(outputs)) for layer in quantized.layers if _can_be_fetched(original, layer.value)
    ]
    alone = [each for each in compared if _can_be_fetched(original, each.layer.read)]
    errors, divergence = {name: TensorError() for name in outputs}, Divergence(len(outputs))
    with (
        Runner(original.graph) as float_runner,
        Runner(import_graph(quantized.view.graph_def, quantized.path)) as quantized_runner,
        Runner(import_graph(_cut_in_front(quantized, alone), quantized.path)) as alone_runner,
    ):
        count = 0
        for count, batch in enumerate(batches, 1):
            step = _Step(float_runner, batch, quantized, outputs, compared, alone)
            step.in_place(quantized_runner, compared, errors, divergence)
            step.alone(alone_runner, alone, f"Layers on batch {count}")
    if not count:
        raise DatasetError("There is no batch to compare on. Give data.")
    return Comparison(
        layers=tuple(sorted(alone, key=lambda each: -each.damage.value)),
        in_place_only=tuple(each for each in compared if each not in alone),
        unseen=tuple(layer for layer in quantized.layers if layer not in [each.layer for each in compared]),
        outputs=errors,
        divergence=divergence.value,
        batches=count,
    )


def _check_belongs(original: FloatModel, quantized: QuantizedModel, outputs: Sequence[str]) -> None:
    """Checks that the float model has whatever the quantized one is said to reproduce."""
    for name in outputs:
        if name not in quantized.view.nodes:
            ends = ", ".join(quantized.ends) or "none that the original model has"
            raise ModelError(f"{quantized.path} has no node {name!r}. Its outputs are: {ends}.")
    tensors = [tensor for layer in quantized.layers for tensor in (layer.value, layer.read) if tensor is not None]
    inputs = [node.name for node in quantized.view.nodes.values() if node.op == "Placeholder"]
    for name in (*outputs, *inputs, *(parse_tensor_name(tensor).node for tensor in tensors)):
        if name not in original.original.nodes:
            raise ModelError(
                f"{quantized.path} was not made from {original.source}, which has no node {name!r}. Give the model "
                "that it was made from."
            )


def _can_be_fetched(original: FloatModel, tensor: str | None) -> bool:
    return tensor is not None and parse_tensor_name(tensor).node not in original.original.uncertain_nodes


def _cut_in_front(quantized: QuantizedModel, layers: Iterable[ComparedLayer]) -> GraphDef:
    """Returns the quantized model with layers that read placeholders, to be fed with what the float layers read."""
    graph_def = GraphDef()
    graph_def.CopyFrom(quantized.view.graph_def)
    nodes = {node.name: node for node in graph_def.node}
    for layer in layers:
        nodes[layer.layer.quantizer].input[0] = _placeholder_of(layer.layer)
    names = dict.fromkeys(_placeholder_of(each.layer) for each in layers)
    graph_def.node.extend(make_node(name, "Placeholder", (), dtype=tf.float32) for name in names)
    return graph_def


def _placeholder_of(layer: QuantizedLayer) -> str:
    return f"{_FLOAT_SCOPE}/{layer.quantizer}"


class _Step:
    """One batch."""

    def __init__(
        self,
        original: Runner,
        batch: Batch,
        quantized: QuantizedModel,
        outputs: Sequence[str],
        compared: Iterable[ComparedLayer],
        alone: Iterable[ComparedLayer],
    ) -> None:
        self._original = original
        self._feeds = {f"{name}:0": values for name, values in batch.items()}
        self._feeds_of_quantized = {f"{name}:0": batch[name] for name in batch if name in quantized.view.nodes}
        self._outputs = [f"{name}:0" for name in outputs]
        values = [f"{each.layer.value}:0" for each in compared]
        self._floats = original.run([*self._outputs, *values, *(str(each.layer.read) for each in alone)], self._feeds)

    def in_place(
        self,
        runner: Runner,
        compared: Iterable[ComparedLayer],
        errors: Mapping[str, TensorError],
        divergence: Divergence,
    ) -> None:
        """Compares the whole models."""
        results = (f"{each.layer.result}:0" for each in compared)
        found = runner.run([*self._outputs, *results], self._feeds_of_quantized)
        for output, error in zip(self._outputs, errors.values(), strict=True):
            error.add(self._floats[output], found[output])
        divergence.add(self._of_outputs(self._floats), self._of_outputs(found))
        for each in compared:
            each.in_place.add(self._floats[f"{each.layer.value}:0"], found[f"{each.layer.result}:0"])

    def alone(self, runner: Runner, layers: Sequence[ComparedLayer], title: str) -> None:
        """Compares each layer by itself."""
        feeds = {f"{_placeholder_of(each.layer)}:0": self._floats[str(each.layer.read)] for each in layers}
        found = runner.run([f"{each.layer.result}:0" for each in layers], {**self._feeds_of_quantized, **feeds})
        progress = Progress(title, len(layers), "compare")
        for each in layers:
            value, result = f"{each.layer.value}:0", found[f"{each.layer.result}:0"]
            each.alone.add(self._floats[value], result)
            moved = self._original.run(self._outputs, {**self._feeds, value: result})
            each.damage.add(self._of_outputs(self._floats), self._of_outputs(moved))
            progress.advance()

    def _of_outputs(self, values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return [values[output] for output in self._outputs]
