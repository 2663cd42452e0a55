"""Runs a float model and a quantized one on the same batches, and sums up their differences.

A layer is compared in three ways. *In place*: its output in the quantized model, which has the errors of all layers
before it. *Alone*: its output when it reads what the float layer reads. *Damage*: the divergence of the float model's
outputs if the output of this layer alone is that of the quantized one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.errors import DatasetError, ModelError
from amct_tensorflow.graph.batch_splitter import BatchSplitter, images_of
from amct_tensorflow.graph.graph_runner import GraphRunner
from amct_tensorflow.graph.nodes import make_node
from amct_tensorflow.graph.view import GraphView, parse_tensor_name
from amct_tensorflow.io.progress import Progress
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.input_batches import Batch
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.ops.channels import data_format
from amct_tensorflow.quantize.algorithms.distribution import Observation
from amct_tensorflow.quantize.algorithms.range_shape import ChannelPeaks, RangeShape, uses_of_channels
from amct_tensorflow.quantize.quantized.quantized_layer import QuantizedLayer
from amct_tensorflow.results.comparison.correspondence import MappedLayer, MappedModel
from amct_tensorflow.results.comparison.tensor_error import TensorError
from amct_tensorflow.results.diagnosis import Cause, Symptoms, find_causes, most_damaging, spread_of_weights
from amct_tensorflow.search.sensitivity.divergence import Divergence

# Scope of what takes the place of the tensors that quantized layers read.
_FLOAT_SCOPE = "amct_float"

# So many layers have their tensors in memory at the same time.
_LAYERS_AT_ONCE = 8


class ComparedLayer:
    """The findings for a layer.

    Attributes:
        layer: the layer.
        by_itself: whether the float model has the layer's input; without it, there are no ``alone`` and ``damage``.
        alone: error of its output for the input of the float layer.
        in_place: error of its output in the quantized model.
        damage: divergence of the model's outputs if it alone is quantized.
    """

    def __init__(self, layer: MappedLayer, by_itself: bool, outputs: int) -> None:
        self.layer = layer
        self.by_itself = by_itself
        quantized = layer.quantized
        axis = quantized.op_type.channel_axis(data_format(quantized.node))
        self._peaks = ChannelPeaks(None if quantized.weights is None else axis)
        self._values = Observation()
        self.alone = TensorError()
        self.in_place = TensorError()
        self.damage = Divergence(outputs)

    def add_read(self, values: np.ndarray) -> None:
        """Takes what it reads, as the quantized model has it."""
        if values.size and self._values.add(values):
            self._peaks.add(values)

    def causes(self) -> tuple[Cause, ...]:
        """Returns why it loses much, if it does."""
        quantized = self.layer.quantized
        uses = None if quantized.weights is None else uses_of_channels(quantized.op_type, quantized.float_weights)
        found = self._values.distribution() if self.by_itself else None
        return find_causes(
            Symptoms(
                grid=quantized.input_grid,
                shape=None if found is None else RangeShape.of(found, self._peaks, uses),
                is_balanced=bool(np.any(self.layer.read_factors != 1)),
                may_balance=True,
                weight_spread=_spread_under_one_scale(quantized),
                is_product=quantized.is_product,
                seen=None if found is None else (found.lowest, found.highest),
            )
        )

    @property
    def value(self) -> str:
        """The tensor of the float model that its output reproduces."""
        return f"{self.layer.value}:0"

    @property
    def result(self) -> str:
        """Its output, a tensor of the quantized model."""
        return f"{self.layer.result}:0"

    @property
    def read(self) -> str:
        """The tensor of the float model that the float layer reads."""
        return str(self.layer.read)

    @property
    def placeholder(self) -> str:
        """The placeholder that replaces its input in the quantized model."""
        return f"{_FLOAT_SCOPE}/{self.layer.quantizer}"


@dataclass(frozen=True)
class Comparison:
    """The findings of a comparison.

    Attributes:
        layers: the layers that were compared alone, the most damaging first.
        in_place_only: the layers of which the original model has the output, but not the input.
        unseen: the quantized layers to whose output no tensor of the original model corresponds.
        outputs: per output of the model, its error.
        divergence: of all outputs.
        batches: number of batches.
    """

    layers: tuple[ComparedLayer, ...]
    in_place_only: tuple[ComparedLayer, ...]
    unseen: tuple[MappedLayer, ...]
    outputs: Mapping[str, TensorError]
    divergence: float
    batches: int

    @property
    def diagnoses(self) -> tuple[tuple[ComparedLayer, Cause], ...]:
        """Why the layers that make up most of the damage lose what they do."""
        worst = most_damaging((each, each.damage.value) for each in self.layers)
        return tuple((each, cause) for each, _ in worst for cause in each.causes())


def compare_models(
    original: FloatModel, quantized: MappedModel, outputs: Sequence[str], batches: Iterable[Batch]
) -> Comparison:
    """Compares two models.

    Args:
        original: the float model.
        quantized: the quantized model.
        outputs: the operators at which the outputs are compared.
        batches: per batch, the values of the inputs of the float model, by their nodes.

    Raises:
        ModelError: the quantized model was not made from this float model.
        DatasetError: there is no batch, or the models cannot be run on one.
    """
    _check_belongs(original, quantized, outputs)
    compared = [
        ComparedLayer(layer, _can_be_fetched(original, layer.read), len(outputs))
        for layer in quantized.layers
        if _can_be_fetched(original, layer.value)
    ]
    errors, divergence = {name: TensorError() for name in outputs}, Divergence(len(outputs))
    with (
        GraphRunner(import_graph(original.view.graph_def, original.source)) as float_runner,
        GraphRunner(import_graph(quantized.view.graph_def, quantized.path)) as quantized_runner,
        GraphRunner(import_graph(_cut_in_front(quantized, compared), quantized.path)) as alone_runner,
    ):
        runners = _Runners(float_runner, quantized_runner, alone_runner)
        splitter = BatchSplitter(float_runner, _tensors_of(float_runner.graph, compared, outputs))
        count = 0
        for count, batch in enumerate(batches, 1):
            steps = [
                _Step(runners, part, (original.view, quantized.view), outputs)
                for part in _parts(batch, original.view, splitter)
            ]
            for step in steps:
                step.compare_outputs(errors.values(), divergence)
            _compare_layers(steps, compared, f"Layers on batch {count}")
    if not count:
        raise DatasetError("There is no batch to compare on. Give data.")
    known = {each.layer for each in compared}
    return Comparison(
        layers=tuple(sorted((each for each in compared if each.by_itself), key=lambda each: -each.damage.value)),
        in_place_only=tuple(each for each in compared if not each.by_itself),
        unseen=tuple(layer for layer in quantized.layers if layer not in known),
        outputs=errors,
        divergence=divergence.value,
        batches=count,
    )


def _spread_under_one_scale(layer: QuantizedLayer) -> float | None:
    """Returns by what the output channel whose weights reach farthest surpasses the median, if all have one scale."""
    if layer.weights is None or layer.weight_scale.size > 1:
        return None
    channels = layer.op_type.by_channel(layer.weights)
    return spread_of_weights(channels.min(axis=1), channels.max(axis=1)) if len(channels) > 1 else None


def _check_belongs(original: FloatModel, quantized: MappedModel, outputs: Sequence[str]) -> None:
    """Checks that the float model has the tensors which the node map names."""
    for name in outputs:
        if name not in quantized.view.nodes:
            ends = ", ".join(quantized.outputs) or "none that the original model has"
            raise ModelError(f"{quantized.path} has no node {name!r}. Its outputs are: {ends}.")
    tensors = [tensor for layer in quantized.layers for tensor in (layer.value, layer.read) if tensor is not None]
    inputs = [node.name for node in quantized.view.nodes.values() if node.op == "Placeholder"]
    for name in (*outputs, *inputs, *(parse_tensor_name(tensor).node for tensor in tensors)):
        if name not in original.original.nodes and name not in original.view.nodes:
            raise ModelError(
                f"{quantized.path} was not made from {original.source}, which has no node {name!r}. Give the model "
                "that it was made from."
            )


def _can_be_fetched(original: FloatModel, tensor: str | None) -> bool:
    """Tells whether the float model, prepared as it was before it was quantized, yields a tensor in every run."""
    node = None if tensor is None else parse_tensor_name(tensor).node
    return node in original.view.nodes and node not in original.view.uncertain_nodes


def _cut_in_front(quantized: MappedModel, layers: Iterable[ComparedLayer]) -> GraphDef:
    """Returns the quantized model with layers that read placeholders, to be fed with what the float layers read.

    Those that are not fed hand on what comes, as shapes behind a layer may be computed from what others yield.
    """
    graph_def = GraphDef()
    graph_def.CopyFrom(quantized.view.graph_def)
    nodes = {node.name: node for node in graph_def.node}
    placeholders = {each.placeholder: each.layer.quantizer for each in layers if each.by_itself}
    for name, quantizer in placeholders.items():
        source, nodes[quantizer].input[0] = nodes[quantizer].input[0], name
        placeholder = make_node(name, "PlaceholderWithDefault", [source], dtype=tf.float32)
        placeholder.attr["shape"].shape.unknown_rank = True
        graph_def.node.append(placeholder)
    return graph_def


def _tensors_of(graph: tf.Graph, layers: Iterable[ComparedLayer], outputs: Sequence[str]) -> list[tf.Tensor]:
    """Returns the tensors of the float model that tell whether parts of a batch have the values of the whole."""
    inputs = [operation.outputs[0] for operation in graph.get_operations() if operation.type == "Placeholder"]
    names = dict.fromkeys([*(each.value for each in layers), *(f"{name}:0" for name in outputs)])
    return [*inputs, *map(graph.get_tensor_by_name, names)]


def _parts(batch: Batch, view: GraphView, splitter: BatchSplitter) -> list[Batch]:
    """Returns a batch in parts of a few images, as the values of many layers are in memory at the same time."""
    feeds = {f"{name}:0": values for name, values in batch.items() if name in view.nodes}
    if feeds.keys() != {f"{name}:0" for name in batch}:
        return [batch]
    parts = splitter.split(feeds, images_of(feeds))
    return [{parse_tensor_name(name).node: values for name, values in part.items()} for part in parts]


def _compare_layers(steps: Sequence["_Step"], layers: Sequence[ComparedLayer], title: str) -> None:
    """Compares the outputs of layers on the parts of a batch, some layers at a time."""
    progress = Progress(title, len(layers), "compare")
    for start in range(0, len(layers), _LAYERS_AT_ONCE):
        some = layers[start : start + _LAYERS_AT_ONCE]
        for step in steps:
            step.compare_layers(some, keep_graphs=len(steps) > 1)
        steps[0].drop_graphs()
        for _ in some:
            progress.advance()


@dataclass(frozen=True)
class _Runners:
    """What runs the float model, the quantized one, and the quantized one whose layers read what they are given."""

    original: GraphRunner
    quantized: GraphRunner
    alone: GraphRunner


class _Step:
    """One batch."""

    def __init__(
        self, runners: _Runners, batch: Batch, views: tuple[GraphView, GraphView], outputs: Sequence[str]
    ) -> None:
        """Takes what runs the models, and the nodes of the float and of the quantized one."""
        self._runners = runners
        self._feeds, self._quantized_feeds = (
            {f"{name}:0": values for name, values in batch.items() if name in view.nodes} for view in views
        )
        self._outputs = [f"{name}:0" for name in outputs]
        self._expected = list(runners.original.values(self._outputs, self._feeds).values())

    def compare_outputs(self, errors: Iterable[TensorError], divergence: Divergence) -> None:
        """Compares the outputs of the whole models."""
        found = list(self._runners.quantized.values(self._outputs, self._quantized_feeds).values())
        for error, expected, actual in zip(errors, self._expected, found, strict=True):
            error.add(expected, actual)
        divergence.add(self._expected, found)

    def compare_layers(self, layers: Sequence[ComparedLayer], keep_graphs: bool) -> None:
        """Compares the outputs of some layers.

        Args:
            layers: the layers.
            keep_graphs: whether other parts follow, which are given the same tensors.
        """
        tensors = [each.value for each in layers] + [each.read for each in layers if each.by_itself]
        floats = self._runners.original.values(dict.fromkeys(tensors), self._feeds)
        in_place = self._runners.quantized.values([each.result for each in layers], self._quantized_feeds)
        given = {
            f"{each.placeholder}:0": floats[each.read] / each.layer.read_factors for each in layers if each.by_itself
        }
        results = [each.result for each in layers if each.by_itself]
        alone = self._runners.alone.values(results, {**self._quantized_feeds, **given})
        for each in layers:
            factors = each.layer.value_factors
            each.in_place.add(floats[each.value], in_place[each.result] * factors)
            if each.by_itself:
                each.add_read(given[f"{each.placeholder}:0"])
                value = alone[each.result] * factors
                each.alone.add(floats[each.value], value)
                each.damage.add(self._expected, self._moved_by(each.value, value))
                if not keep_graphs:
                    self.drop_graphs()

    def drop_graphs(self) -> None:
        """Frees the graphs that TensorFlow keeps of each tensor that was given, with all weights."""
        self._runners.original.close()

    def _moved_by(self, tensor: str, value: np.ndarray) -> list[np.ndarray]:
        """Returns the outputs of the float model in which a tensor has another value."""
        return list(self._runners.original.values(self._outputs, {**self._feeds, tensor: value}).values())
