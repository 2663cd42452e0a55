"""What quantization does to each layer on its own, measured on the calibration data.

Each layer is computed twice from the same *float* input: in float, and exactly as the saved model will compute it. The
mean of the difference per output channel is what local bias correction adds to the bias; how similar the two outputs
are is the layer's sensitivity (spec section 6.2). Neither depends on which other layers are quantized.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf
from google.protobuf.message import Message

from amct_tensorflow.errors import EvaluatorError
from amct_tensorflow.graph.fusion import FusedGraph, FusedLayer
from amct_tensorflow.graph.view import full_tensor_name, parse_tensor_name
from amct_tensorflow.quantized_graph import local_quantized_graph
from amct_tensorflow.record import LayerFactors

Batch = Mapping[str, np.ndarray]


class Comparison(Protocol):
    """What is needed of a sensitivity: a number that tells how alike two outputs are."""

    def compare(self, data: np.ndarray, other: np.ndarray) -> float:
        """Compares the float output with the quantized one."""


@dataclass(frozen=True, eq=False)
class LayerAnalysis:
    """What quantization does to one layer.

    Attributes:
        similarity: mean over the batches of what the sensitivity's ``compare`` returned.
        correction: what to add to the bias, float64 [Cout]; None for a layer without weights, or if switched off.
    """

    similarity: float
    correction: np.ndarray | None


class _Probe(NamedTuple):
    """Tensors that measure one layer: its similarity, and per channel the sum of differences over so many rows."""

    similarity: tf.Tensor
    difference: tf.Tensor
    rows: tf.Tensor


def analyse_layers(
    fused: FusedGraph,
    factors: Mapping[str, LayerFactors],
    batches: Sequence[Batch],
    comparison: Comparison,
    bias_correction: bool,
) -> dict[str, LayerAnalysis]:
    """Replays the calibration batches and measures every layer that has factors.

    Args:
        fused: the float graph after fusion.
        factors: per layer name, its factors.
        batches: per batch, the value of every source tensor by full tensor name.
        comparison: the sensitivity.
        bias_correction: whether to measure corrections; the similarity then is that of the corrected layer.

    Raises:
        EvaluatorError: the sensitivity failed, or returned something else than a number.
    """
    layers = [layer for name, layer in fused.layers.items() if name in factors]
    guard = _GuardedComparison(comparison)
    with tf.Graph().as_default() as graph:
        sources = {name: tf.compat.v1.placeholder(value.dtype, name=None) for name, value in batches[0].items()}
        outputs = _import_both(fused, factors, layers, sources)
        probes = _attach_probes(graph, layers, outputs, guard, bias_correction)
    results = _run(graph, probes, [{sources[name]: value for name, value in batch.items()} for batch in batches], guard)
    return {
        layer.name: _summarize([result[layer.name] for result in results], bias_correction and layer.weights is not None)
        for layer in layers
    }


def _import_both(
    fused: FusedGraph,
    factors: Mapping[str, LayerFactors],
    layers: Sequence[FusedLayer],
    sources: Mapping[str, tf.Tensor],
) -> dict[str, str]:
    """Imports the float graph, and beside it every quantized layer, reading the float graph's tensors.

    Returns:
        Per layer name, the full name of the quantized layer's output.
    """
    graph = tf.compat.v1.get_default_graph()
    needed = tf.compat.v1.graph_util.extract_sub_graph(fused.graph_def, [layer.tail for layer in layers])
    tf.import_graph_def(needed, name="float", input_map=_present(sources, needed))
    quantized, outputs = local_quantized_graph(fused, factors)
    inside = {node.name for node in quantized.node}
    outside = {text for node in quantized.node for text in node.input if parse_tensor_name(text).node not in inside}
    input_map = {}
    for text in outside:
        tensor = full_tensor_name(text)
        input_map[text] = sources[tensor] if tensor in sources else graph.get_tensor_by_name(f"float/{tensor}")
    tf.import_graph_def(quantized, name="quantized", input_map=input_map)
    return {name: f"quantized/{output}:0" for name, output in outputs.items()}


def _present(sources: Mapping[str, tf.Tensor], graph_def: Message) -> dict[str, tf.Tensor]:
    """``import_graph_def`` refuses to map a tensor that nothing in the graph reads."""
    read = {full_tensor_name(text) for node in graph_def.node for text in node.input if not text.startswith("^")}
    return {name: tensor for name, tensor in sources.items() if name in read}


def _attach_probes(
    graph: tf.Graph,
    layers: Sequence[FusedLayer],
    outputs: Mapping[str, str],
    guard: "_GuardedComparison",
    bias_correction: bool,
) -> dict[str, _Probe]:
    """Adds the measuring ops; each layer waits for the one before, so that few activations are alive at a time."""
    probes: dict[str, _Probe] = {}
    before: _Probe | None = None
    for layer in layers:
        if before is not None:
            waiting = graph.get_operation_by_name(f"float/{layer.name}")
            waiting._add_control_inputs([tensor.op for tensor in before])  # noqa: SLF001
        original = graph.get_tensor_by_name(f"float/{layer.tail}:0")
        quantized = graph.get_tensor_by_name(outputs[layer.name])
        before = _probe(layer, original, quantized, guard, bias_correction)
        probes[layer.name] = before
    return probes


def _probe(
    layer: FusedLayer, original: tf.Tensor, quantized: tf.Tensor, guard: "_GuardedComparison", bias_correction: bool
) -> _Probe:
    if layer.data_format == "NCHW" and layer.op_type != "MatMul":
        original, quantized = (tf.transpose(tensor, [0, 2, 3, 1]) for tensor in (original, quantized))
    channels = tf.shape(original)[-1]
    rows = tf.size(original) // channels
    difference = tf.zeros([channels])
    if bias_correction and layer.weights is not None:
        difference = tf.reduce_sum(tf.reshape(original - quantized, [-1, channels]), axis=0)
        quantized += difference / tf.cast(rows, tf.float32)
    similarity = tf.numpy_function(guard.compare, [original, quantized], tf.float64)
    return _Probe(similarity, difference, rows)


def _run(
    graph: tf.Graph,
    probes: Mapping[str, _Probe],
    feeds: Sequence[Mapping[tf.Tensor, np.ndarray]],
    guard: "_GuardedComparison",
) -> list[dict[str, _Probe]]:
    # The replay runs inside a call from the caller's session. Threads of its own keep the two from waiting for each
    # other's.
    options = tf.compat.v1.ConfigProto(use_per_session_threads=True)
    with tf.compat.v1.Session(graph=graph, config=options) as session:
        try:
            return [session.run(probes, feed) for feed in feeds]
        except tf.errors.OpError:
            if guard.error is not None:
                raise guard.error from None
            raise


def _summarize(results: Sequence[_Probe], corrected: bool) -> LayerAnalysis:
    similarity = float(np.mean([result.similarity for result in results]))
    if not corrected:
        return LayerAnalysis(similarity, None)
    rows = sum(int(result.rows) for result in results)
    difference = np.sum([np.asarray(result.difference, np.float64) for result in results], axis=0)
    return LayerAnalysis(similarity, difference / rows)


class _GuardedComparison:
    """Calls the sensitivity from inside TensorFlow and keeps the exception, which TensorFlow would turn into text."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self.error: EvaluatorError | None = None

    def compare(self, original: np.ndarray, quantized: np.ndarray) -> np.float64:
        """Returns what the sensitivity says of two outputs."""
        try:
            return np.float64(self._comparison.compare(original, quantized))
        except Exception as error:
            name = type(self._comparison).__name__
            self.error = EvaluatorError(f"{name}.compare failed: {type(error).__name__}: {error}.")
            raise self.error from error
