"""Scores sets of quantized layers by the divergence of the model's outputs, on the inputs of calibration.

One switchable graph in one session serves every set; no label, no evaluator and no new graph is needed. A set is run
from the last cut before the first layer in which it differs from a base set, whose values at the cuts are computed
once. Only the values of one part of the images at a few cuts are held, however many layers there are.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import tensorflow as tf

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.batch_splitter import images_of, some_images
from amct_tensorflow.graph.graph_runner import Batch, GraphRunner, placeholder_for
from amct_tensorflow.graph.names import FusedName
from amct_tensorflow.graph.rewrite import subgraph
from amct_tensorflow.graph.view import GraphView, NamedGraph, full_tensor_name, parse_tensor_name, upstream
from amct_tensorflow.io.progress import Progress
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.search.configuration import in_16_bits
from amct_tensorflow.search.sensitivity.cuts import Cut, find_cuts
from amct_tensorflow.search.sensitivity.divergence import Divergence
from amct_tensorflow.search.sensitivity.switchable_graph import SwitchableGraph, switchable_graph

# At so many places the model can be entered; each costs memory, and spares at most its share of the time.
MAX_CUTS = 8
# Float outputs up to so many bytes, all batches together, are computed once and kept.
_LARGEST_REFERENCE = 1 << 28


class Measure(Protocol):
    """Takes the outputs of the float model, and those of a candidate, batch by batch."""

    def add(self, reference: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> None:
        """Adds the values of every output for some of the images."""


MeasureT = TypeVar("MeasureT", bound=Measure)


class SwitchableModel:
    """A model of which any set of layers can be quantized from one run to the next.

    Attributes:
        outputs: the outputs that are compared: those which follow from what calibration has seen.
    """

    def __init__(
        self, graph: tf.Graph, plan: QuantizationPlan, batches: Sequence[Batch], wide: QuantizationPlan | None = None
    ) -> None:
        """Builds the graph.

        Args:
            graph: the float model as TensorFlow sees it; it tells the shapes of tensors.
            plan: the model with every layer quantized of which this is to be tried.
            batches: per calibration batch, the values of the tensors from which the outputs follow.
            wide: the same in 16 bits, if sets may hold ``in_16_bits`` of layers, too; see ``wide_plan``.

        Raises:
            ModelError: TensorFlow does not take it, or layers lie before what calibration has seen.
        """
        self._batches = batches
        self._samples: dict[int, list[Batch]] = {}
        sources = {name: graph.get_tensor_by_name(name) for name in batches[0]}
        fused = plan.fused
        view = GraphView(subgraph(fused.graph_def, plan.outputs))
        self.outputs = tuple(output for output in plan.outputs if _follows(view, output, sources))
        source_nodes = {parse_tensor_name(name).node for name in sources}
        _check_nothing_is_hidden(view, source_nodes, plan)
        flow = find_cuts(view, source_nodes, self.outputs)
        position = {name: index for index, name in enumerate(flow.order)}
        layers, in_wide = (
            {name: each for name, each in factors.items() if name in position and name in fused.layers}
            for factors in (plan.factors, {} if wide is None else wide.factors)
        )
        self._position: dict[str, int] = {name: position[name] for name in layers}
        self._position.update((in_16_bits(name), position[name]) for name in in_wide)
        # A layer with a bias is one unit: between its two nodes there is a value only while it is not quantized.
        inside = {name for name in {**layers, **in_wide} if fused.tail_of(name) != FusedName(name)}
        fit = _float_nodes(graph) - inside  # those that fusion added are not among them
        self._cuts = _choose_cuts(
            [cut for cut in flow.cuts if fit.issuperset(cut.tensors)],
            sorted(position[name] for name in {**layers, **in_wide}),
        )
        fused = replace(fused, view=cast(NamedGraph[FusedName], view))
        switchable = QuantizationPlan(fused, layers, plan.corrections, self.outputs)
        switchable_wide = None
        if wide is not None:
            switchable_wide = QuantizationPlan(fused, in_wide, wide.corrections, self.outputs)
        self._runner = GraphRunner(tf.Graph(), sources, run_often=True)
        self._import(switchable_graph(switchable, flow.order, self._cuts, switchable_wide), graph)
        self._references: dict[tuple[int | None, int], list[np.ndarray]] = {}

    def _import(self, switchable: SwitchableGraph, shapes: tf.Graph) -> None:
        """Imports the graph behind placeholders for its sources and cuts; a run feeds only some of them.

        All gates are fed as one vector, and all switches of cuts as another: each thing fed costs time.
        """
        runner = self._runner
        self._gated = tuple(switchable.gates)
        with runner.graph.as_default():
            self._gates = tf.compat.v1.placeholder(tf.bool, [len(self._gated)])
            self._entered = tf.compat.v1.placeholder(tf.bool, [1 + len(self._cuts)])  # the first is for the sources
            from_start, *entered = tf.unstack(self._entered)
            gates = [f"{gate}:0" for gate in switchable.gates.values()]
            self._fed = [
                [placeholder_for(shapes.get_tensor_by_name(f"{name}:0")) for name in cut.tensors] for cut in self._cuts
            ]
            given = {name: _alive_if(from_start, tensor) for name, tensor in runner.sources.items()}
            for names, at_cut, fed in zip(switchable.entries, entered, self._fed, strict=True):
                given |= zip(names, (_alive_if(at_cut, tensor) for tensor in fed), strict=True)
            given |= zip(gates, tf.unstack(self._gates), strict=True)
        with _as_model_error():
            runner.import_behind(switchable.graph_def, "model", given)
        # TensorFlow leaves a node that is fetched as it is, even if it has no kernel for its data format.
        self._fetches = [runner.copy_of(self._tensor(switchable.outputs[output])) for output in self.outputs]
        self._values = [[runner.copy_of(self._tensor(node)) for node in nodes] for nodes in switchable.values]

    def _tensor(self, node: str) -> tf.Tensor:
        return self._runner.graph.get_tensor_by_name(f"model/{node}:0")

    def close(self) -> None:
        """Frees the session."""
        self._runner.close()

    def layers_to_run(self, candidate: Collection[str], base: Collection[str] = ()) -> list[str]:
        """Returns the layers that a run of a set computes, which begins where it differs from a base set."""
        start = self._start(set(candidate) ^ set(base))
        cut = -1 if start is None else self._cuts[start].position
        return [name for name, position in self._position.items() if position > cut]

    def divergences(
        self, candidates: Sequence[Collection[str]], base: Collection[str] = (), images: int | None = None
    ) -> list[float]:
        """Scores candidate sets.

        Args:
            candidates: sets of layers to quantize.
            base: a set from which they differ little; the later in the model, the less there is to run.
            images: how many images to run at least, the first ones; None for all.

        Returns:
            Per candidate, how far the outputs lie from those of the float model (see ``Divergence``).
        """
        return [found.value for found in self.compare(candidates, base, Divergence, images)]

    def compare(
        self,
        candidates: Sequence[Collection[str]],
        base: Collection[str],
        new_measure: Callable[[int], MeasureT],
        images: int | None = None,
    ) -> list[MeasureT]:
        """Gives the outputs of candidate sets to measures, one each, made by ``new_measure(number of outputs)``.

        Raises:
            ModelError: TensorFlow cannot run one.
            EvaluatorError: a user's sensitivity failed.
        """
        measures = [new_measure(len(self.outputs)) for _ in candidates]
        starts = [self._start(set(candidate) ^ set(base)) for candidate in candidates]
        batches = self._batches if images is None else self._sample(images)
        progress = Progress("Measuring how quantized layers move the outputs", len(candidates) * len(batches))
        # Batches run whole, or in the same parts each time: from others, some kernels compute other last digits.
        for index, batch in enumerate(batches):
            reference = self._reference(images, index, batch)
            values: list[list[np.ndarray]] = []
            if any(start is not None for start in starts):
                values = self._run(batch, base, None, self._values)
            for candidate, start, measure in zip(candidates, starts, measures, strict=True):
                fed = None if start is None else (start, values[start])
                measure.add(reference, self._run(batch, candidate, fed, self._fetches))
                progress.advance()
        return measures

    def _sample(self, images: int) -> Sequence[Batch]:
        """Returns the first images: whole batches, and the beginning of one where the model takes a part of it."""
        if images not in self._samples:
            sample: list[Batch] = []
            left = images
            for batch in self._batches:
                length = images_of(batch)
                sample.append(batch if length is None or length <= left else self._beginning(batch, left))
                left -= length or left
                if left <= 0:
                    break
            self._samples[images] = sample
        return self._samples[images]

    def _beginning(self, batch: Batch, images: int) -> Batch:
        """Returns the first images of a batch; all of them if the model does not run on so few."""
        first = some_images(batch, 0, images)
        try:
            self._run(first, (), None, self._fetches)
        except ModelError:
            return batch
        return first

    def _reference(self, images: int | None, index: int, batch: Batch) -> list[np.ndarray]:
        """Returns the float outputs of a batch; they are kept for the next time unless they are large."""
        if (images, index) in self._references:
            return self._references[images, index]
        outputs = self._run(batch, (), None, self._fetches)
        if sum(output.nbytes for output in outputs) * len(self._batches) <= _LARGEST_REFERENCE:
            self._references[images, index] = outputs
        return outputs

    def _start(self, difference: Collection[str]) -> int | None:
        """Returns the last cut before every layer of a set; None for the beginning."""
        first = min((self._position[name] for name in difference if name in self._position), default=-1)
        before = [index for index, cut in enumerate(self._cuts) if cut.position < first]
        return before[-1] if before else None

    def _run(
        self,
        batch: Batch,
        quantized: Collection[str],
        fed: tuple[int, Sequence[np.ndarray]] | None,
        fetches: Sequence[Any],
    ) -> list[Any]:
        """Returns the values of fetches, in their structure, from the beginning or from a cut with its values."""
        if fed is not None:
            batch = some_images(batch, 0, 0)
        with _as_model_error():
            return list(self._runner.run(list(fetches), {**batch, **self._switches(quantized, fed)}))

    def _switches(
        self, quantized: Collection[str], fed: tuple[int, Sequence[np.ndarray]] | None
    ) -> dict[tf.Tensor, Any]:
        """Returns the feeds beside a batch: which layers are quantized, and the values at a cut."""
        entered = -1 if fed is None else fed[0]
        feeds = {tensor: _nothing(tensor) for tensors in self._fed for tensor in tensors}
        if fed is not None:
            feeds.update(zip(self._fed[entered], fed[1], strict=True))
        feeds[self._gates] = np.array([name in quantized for name in self._gated], bool)
        feeds[self._entered] = np.arange(-1, len(self._fed)) == entered
        return feeds


@contextmanager
def _as_model_error() -> Iterator[None]:
    """Turns TensorFlow's refusal to take or run the model into a ModelError; nothing of ours may run inside."""
    try:
        yield
    except (ValueError, tf.errors.OpError) as error:  # ValueError: what the import or a placeholder does not take
        raise ModelError(f"TensorFlow cannot run the switchable model: {error}") from error


def _nothing(tensor: tf.Tensor) -> np.ndarray:
    """Returns a value without elements that a placeholder takes."""
    return np.zeros([size or 0 for size in tensor.shape] if tensor.shape.rank else [0], np.float32)


def _alive_if(condition: tf.Tensor, tensor: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.Switch(data=tensor, pred=condition).output_true


def _follows(view: GraphView, output: str, sources: Collection[str]) -> bool:
    """Tells whether an output can be computed from the sources and constants."""
    visited: set[str] = set()
    waiting = [output]
    while waiting:
        text = waiting.pop()
        node = view.producer(text)
        if full_tensor_name(text) in sources or text in visited or node.op == "Const":
            continue
        if not node.input:
            return False
        visited.add(text)
        waiting.extend(text for text in node.input if not text.startswith("^"))
    return True


def _check_nothing_is_hidden(view: GraphView, sources: Collection[str], plan: QuantizationPlan) -> None:
    """Raises ModelError if quantizing a layer would change what calibration has seen, and replays as it was."""
    before = upstream(view.nodes, [name for name in sources if name in view.nodes])
    hidden = sorted(name for name in plan.factors if name in before)
    if hidden:
        raise ModelError(f"What layer {hidden[0]!r} computes goes through a branch or loop with data of its own.")


def _float_nodes(graph: tf.Graph) -> set[str]:
    """Returns the nodes whose output 0 is float32."""
    return {each.name for each in graph.get_operations() if each.outputs and each.outputs[0].dtype == tf.float32}


def _choose_cuts(cuts: Sequence[Cut], layers: Sequence[int]) -> list[Cut]:
    """Picks cuts that divide the layers, given by their positions, about evenly, and consist of few tensors."""
    before = np.searchsorted(layers, [cut.position for cut in cuts])
    widths = np.array([len(cut.tensors) for cut in cuts])
    part = len(layers) / (MAX_CUTS + 1)
    chosen: set[int] = set()
    for number in range(1, MAX_CUTS + 1) if cuts else ():
        distance = np.abs(before - number * part)
        is_far = distance > part / 2  # of cuts that are all far, the nearest
        chosen.add(int(np.lexsort((distance, np.where(is_far, 0, widths), is_far))[0]))
    return [cuts[index] for index in sorted(chosen)]
