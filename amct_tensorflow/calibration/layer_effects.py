"""What quantization does to each layer on its own, measured on the calibration data.

Each layer is computed twice from the same *float* input: in float, and exactly as the saved model will compute it. The
mean of the difference per output channel is what local bias correction adds to the bias; how similar the two outputs
are is the layer's sensitivity (spec section 6.2). Neither depends on which other layers are quantized.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.calibration.channel_sums import ChannelSums
from amct_tensorflow.calibration.comparison import Comparison, compare
from amct_tensorflow.errors import AmctError
from amct_tensorflow.graph.fusion import FusedGraph, FusedLayer
from amct_tensorflow.graph.rewrite import subgraph
from amct_tensorflow.graph.view import full_tensor_name
from amct_tensorflow.quantized.builder import FLOAT_SCOPE, local_quantized_graph
from amct_tensorflow.quantized.plan import QuantizationPlan
from amct_tensorflow.record.layer_factors import LayerFactors

# The replay takes this many images at a time.
IMAGES_AT_A_TIME = 16
# Of those, each layer is measured on as many as keep its input and output below this many values: all of them where
# feature maps are small, one where a single image already gives thousands of positions per channel.
SAMPLE_LIMIT = 1 << 17

Batch = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class LayerAnalysis:
    """What a search wants to know of one layer.

    Attributes:
        similarity: how alike its float and quantized outputs are: the cosine similarity of all calibration images at
            once, or the mean over the images of what a user's sensitivity said of the parts they came in.
        multiply_accumulates: how many the layer took for all calibration batches; 0 for a layer without weights.
    """

    similarity: float
    multiply_accumulates: int


@dataclass(frozen=True, eq=False)
class LayerEffects:
    """What quantization does to the layers.

    Attributes:
        corrections: per layer name, what to add to its bias, float64 [Cout]; none for a layer without weights, or if
            switched off.
        analyses: per layer name, what a search wants to know; empty if none follows.
    """

    corrections: dict[str, np.ndarray]
    analyses: dict[str, LayerAnalysis]


class LayerAnalyser:
    """Replays calibration batches through the float graph and, layer by layer, the quantized one.

    The float graph is imported ahead of the calibration, which then has less to do when its last batch is through.
    """

    def __init__(self, fused: FusedGraph, layers: Sequence[FusedLayer], sources: Mapping[str, tf.Tensor]) -> None:
        """Imports the float graph.

        Args:
            fused: the float graph after fusion.
            layers: the layers to analyse, in topological order.
            sources: the tensors of the caller's graph from which the inputs of all layers follow, by full name.
        """
        self._fused = fused
        self._layers = layers
        self._graph = tf.Graph()
        with self._graph.as_default():
            self._sources = {name: _stand_in(tensor) for name, tensor in sources.items()}
            needed = subgraph(fused.graph_def, [layer.tail for layer in layers])
            tf.import_graph_def(needed, name=FLOAT_SCOPE, input_map=_present(self._sources, needed))

    def analyse(
        self,
        factors: Mapping[str, LayerFactors],
        batches: Sequence[Batch],
        *,
        bias_correction: bool,
        for_search: bool,
        comparison: Comparison | None = None,
    ) -> LayerEffects:
        """Measures every layer; can be called once.

        Args:
            factors: per layer name, its factors.
            batches: per batch, the value of every source tensor by full tensor name.
            bias_correction: whether to measure corrections; the similarity then is that of the corrected layer.
            for_search: whether to analyse the layers for a search.
            comparison: a user's sensitivity, for which everything runs a second time, since the correction must be
                known before; None for the cosine similarity, which follows from sums.

        Raises:
            EvaluatorError: the sensitivity failed, or returned something else than a number.
        """
        if not self._layers:
            return LayerEffects({}, {})
        probes = {layer.name: _Probe(layer, bias_correction, for_search) for layer in self._layers}
        with self._graph.as_default():
            outputs = self._import_quantized(factors)
            fetches = _attach_probes(self._graph, outputs, probes)
        parts = [part for batch in batches for part in self._split(batch)]
        feeds = [{self._sources[name]: value for name, value in part.items()} for part in parts]
        _run(self._graph, fetches, feeds, probes)
        if comparison is not None:
            for probe in probes.values():
                probe.compare_by(comparison)
            _run(self._graph, fetches, feeds, probes)
        corrections = {name: probe.correction for name, probe in probes.items()}
        return LayerEffects(
            {name: correction for name, correction in corrections.items() if correction is not None},
            {name: probe.analysis() for name, probe in probes.items()} if for_search else {},
        )

    def _split(self, batch: Batch) -> list[Batch]:
        """Cuts a batch into parts of a few images, if the graph takes any number of them: it needs less memory so."""
        lengths = {len(value) if value.ndim else 0 for value in batch.values()}
        inputs = [self._float_tensor(full_tensor_name(layer.input)) for layer in self._layers]
        takes_any_number = all(tensor.shape.rank and tensor.shape[0] is None for tensor in inputs)
        if len(lengths) != 1 or 0 in lengths or not takes_any_number:
            return [batch]
        (length,) = lengths
        return [
            {name: value[start : start + IMAGES_AT_A_TIME] for name, value in batch.items()}
            for start in range(0, length, IMAGES_AT_A_TIME)
        ]

    def _import_quantized(self, factors: Mapping[str, LayerFactors]) -> dict[str, str]:
        """Imports every quantized layer, reading the float graph's tensors.

        Returns:
            Per layer name, the full name of the quantized layer's output.
        """
        quantized, outputs = local_quantized_graph(QuantizationPlan(self._fused, factors, {}, ()))
        images = self._images_to_take()
        prefix = f"{FLOAT_SCOPE}/"
        input_map = {}
        for text in {text for node in quantized.node for text in node.input if text.startswith(prefix)}:
            tensor = text.removeprefix(prefix)
            value = self._float_tensor(tensor)
            input_map[text] = value[: images[tensor]] if tensor in images else value
        tf.import_graph_def(quantized, name="quantized", input_map=input_map)
        return {name: f"quantized/{output}:0" for name, output in outputs.items()}

    def _float_tensor(self, tensor: str) -> tf.Tensor:
        if tensor in self._sources:
            return self._sources[tensor]
        return self._graph.get_tensor_by_name(f"{FLOAT_SCOPE}/{tensor}")

    def _images_to_take(self) -> dict[str, int]:
        """Returns per layer input how many images of it suffice (see ``SAMPLE_LIMIT``); absent where all are needed.

        A transposed convolution is told the shape of its output, images included, and therefore gets them all.
        """
        images: dict[str, int] = {}
        whole: set[str] = set()
        for layer in self._layers:
            tensor = full_tensor_name(layer.input)
            output = self._graph.get_tensor_by_name(f"{FLOAT_SCOPE}/{layer.tail}:0")
            shapes = [value.shape[1:] for value in (self._float_tensor(tensor), output)]
            if layer.op.is_told_its_output_shape or not all(shape.is_fully_defined() for shape in shapes):
                whole.add(tensor)
                continue
            largest = max(shape.num_elements() for shape in shapes)
            images[tensor] = min(images.get(tensor, SAMPLE_LIMIT), max(SAMPLE_LIMIT // max(largest, 1), 1))
        return {tensor: count for tensor, count in images.items() if tensor not in whole}


def _stand_in(tensor: tf.Tensor) -> tf.Tensor:
    """Returns a placeholder for a tensor; its first axis counts images, whose number may change."""
    shape = tensor.shape
    return tf.compat.v1.placeholder(tensor.dtype, [None, *shape[1:]] if shape.rank else shape)


def _present(sources: Mapping[str, tf.Tensor], graph_def: GraphDef) -> dict[str, tf.Tensor]:
    """``import_graph_def`` refuses to map a tensor that nothing in the graph reads."""
    read = {full_tensor_name(text) for node in graph_def.node for text in node.input if not text.startswith("^")}
    return {name: tensor for name, tensor in sources.items() if name in read}


class _Probe:
    """Measures the two outputs of one layer, part by part.

    Attributes:
        layer: the layer.
        error: what went wrong inside TensorFlow, which would turn it into text; else None.
    """

    def __init__(self, layer: FusedLayer, bias_correction: bool, for_search: bool) -> None:
        self.layer = layer
        self.error: AmctError | None = None
        self._corrects = bias_correction and layer.weights is not None
        self._sums = ChannelSums(layer.channels, correction_only=not for_search)
        self._positions = 0
        self._comparison: Comparison | None = None
        self._similarity = 0.0
        self._images = 0

    def compare_by(self, comparison: Comparison) -> None:
        """From now on the layer, with its correction, is compared; everything has been measured once before."""
        self._comparison = comparison

    def look(self, original: np.ndarray, quantized: np.ndarray) -> np.int32:
        """Takes the outputs of a part; ``quantized`` may be of fewer images than ``original``."""
        if self._comparison is None:
            self._positions += original.size // self.layer.channels
            weight = len(original) / max(len(quantized), 1)
            self._sums.add(self._channels_last(original[: len(quantized)]), self._channels_last(quantized), weight)
        else:
            self._compare(self._comparison, original, quantized)
        return np.int32(0)

    @property
    def correction(self) -> np.ndarray | None:
        """What to add to the layer's bias, as all parts say together; None if it is to get nothing."""
        return self._sums.correction if self._corrects else None

    def analysis(self) -> LayerAnalysis:
        """Returns what all parts say together."""
        if self._comparison is None:
            similarity = self._sums.similarity(corrected=self._corrects)
        else:
            similarity = self._similarity / max(self._images, 1)
        return LayerAnalysis(similarity, self._multiply_accumulates())

    def _compare(self, comparison: Comparison, original: np.ndarray, quantized: np.ndarray) -> None:
        images = len(original)
        if self.correction is not None:
            correction = self.correction.astype(np.float32)
            quantized = quantized + (correction.reshape(-1, 1, 1) if self._is_nchw(quantized) else correction)
        try:
            similarity = compare(comparison, original[: len(quantized)], quantized, f"layer {self.layer.name!r}")
        except AmctError as error:
            self.error = error
            raise
        self._similarity += images * similarity
        self._images += images

    def _multiply_accumulates(self) -> int:
        """Every position of the output takes each weight once; of a transposed convolution, every one of its input."""
        if self.layer.weights is None:
            return 0
        return self._positions * self.layer.weights.size // self.layer.positions_per_weight

    def _is_nchw(self, value: np.ndarray) -> bool:
        return self.layer.data_format == "NCHW" and value.ndim == 4

    def _channels_last(self, value: np.ndarray) -> np.ndarray:
        return np.moveaxis(value, 1, -1) if self._is_nchw(value) else value


def _attach_probes(graph: tf.Graph, outputs: Mapping[str, str], probes: Mapping[str, _Probe]) -> list[tf.Operation]:
    """Adds a probe per layer; each layer waits for the one before, so that few activations are alive at a time."""
    looked: list[tf.Operation] = []
    for name, probe in probes.items():
        if looked:
            # TensorFlow has no public way to add an edge to a live graph.
            graph.get_operation_by_name(f"{FLOAT_SCOPE}/{name}")._add_control_input(looked[-1])
        original = graph.get_tensor_by_name(f"{FLOAT_SCOPE}/{probe.layer.tail}:0")
        quantized = graph.get_tensor_by_name(outputs[name])
        looked.append(tf.numpy_function(probe.look, [original, quantized], tf.int32).op)
    return looked


def _run(
    graph: tf.Graph,
    fetches: Sequence[tf.Operation],
    feeds: Sequence[Mapping[tf.Tensor, np.ndarray]],
    probes: Mapping[str, _Probe],
) -> None:
    # The replay runs inside a call from the caller's session, whose threads may all be taken. A negative number keeps
    # it in the calling thread, which also has the memory at hand that the caller's session has just freed.
    options = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=-1)
    # Each batch is run once: optimizing the graph would take several times as long as running it.
    options.graph_options.rewrite_options.disable_meta_optimizer = True
    with tf.compat.v1.Session(graph=graph, config=options) as session:
        try:
            for feed in feeds:
                session.run(fetches, feed)
        except tf.errors.OpError:
            for probe in probes.values():
                if probe.error is not None:
                    raise probe.error from None
            raise
