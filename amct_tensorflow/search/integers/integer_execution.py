"""Makes the execution graphs of quantized models, which compute in integer kernels what the models simulate.

Both yield the same to the bit: the kernels add the same integers, and everything else multiplies and rounds alike. That
is checked once, with the first model, on a few calibration images, since a kernel may be wrong on some processor.

oneDNN's kernels come first, as the graph is one that any process can run. Where they are not exact, TensorFlow Lite's
are, of a graph that runs in this process alone.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.graph.batch_splitter import some_images
from amct_tensorflow.graph.graph_runner import Batch, GraphRunner
from amct_tensorflow.graph.names import QuantizedName
from amct_tensorflow.graph.view import GraphView, full_tensor_name
from amct_tensorflow.io.stages import stage
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.quantized.builder import QuantizedGraph
from amct_tensorflow.search.integers.availability import why_no_integer_kernels, why_no_lite_kernels
from amct_tensorflow.search.integers.execution_graph import execution_graph
from amct_tensorflow.search.integers.kernel_layer import KernelLayer, find_kernel_layers, layers_between_floats

# So many images show whether a kernel is wrong.
_IMAGES = 4
# A quantized model of so many bytes is large.
_LARGE_BYTES = 1 << 24
_NO_GAIN = "TensorFlow Lite would not gain what handing values over takes"

_Layers: TypeAlias = dict[QuantizedName, KernelLayer]
_Others: TypeAlias = dict[QuantizedName, str]


class _Execution(NamedTuple):
    """An execution graph.

    Attributes:
        graph_def: the graph.
        layers: how many layers run in integers.
        others: the quantized layers that do not, and why.
        kept: what it runs with, and has to be kept.
        graph: the graph as it was checked, with a session that is left open for the evaluation; None of a large one.
    """

    graph_def: GraphDef
    layers: int
    others: Mapping[QuantizedName, str]
    kept: object = None
    graph: tf.Graph | None = None


class IntegerExecution:
    """Makes the execution graphs of the models of one search."""

    def __init__(self, outputs: Sequence[str], batches: Sequence[Batch], *, in_process: bool = False) -> None:
        """Checks nothing yet.

        Args:
            outputs: the outputs of the models.
            batches: the calibration batches.
            in_process: whether this process evaluates all models, each before the next one is asked for.
        """
        self._outputs = outputs
        self._batches = batches
        self._in_process = in_process
        self._is_right: bool | None = None  # until a model was checked
        self._ahead: tuple[QuantizedGraph, _Execution | None] | None = None
        self._current: _Execution | None = None
        self._untold: list[Callable[[], None]] = []

    def prepare(self, quantized: QuantizedGraph) -> None:
        """Makes the execution graph of a model that will be asked for next, if any is; logs nothing yet."""
        self._ahead = quantized, self._make(quantized)

    def model_of(self, quantized: QuantizedGraph) -> bytes | None:
        """Returns the execution graph of a quantized model as bytes; None if the model itself is to be run.

        A graph of this process runs until the next one is asked for.
        """
        ahead, self._ahead = self._ahead, None
        self._current = ahead[1] if ahead is not None and ahead[0] is quantized else self._make(quantized)
        for tell in self._untold:
            tell()
        self._untold.clear()
        if self._current is None:
            return None
        return bytes(self._current.graph_def.SerializeToString(deterministic=True))

    @property
    def is_of_this_process(self) -> bool:
        """Whether what ``model_of`` returned last runs here alone."""
        return self._current is not None and self._current.kept is not None

    def take_graph(self) -> tf.Graph | None:
        """Returns the graph of what ``model_of`` returned last, if it is there from the check, to whoever runs it."""
        if self._current is None:
            return None
        graph, self._current = self._current.graph, self._current._replace(graph=None)
        return graph

    def _make(self, quantized: QuantizedGraph) -> _Execution | None:
        if self._is_right is False or self._kernels is None:
            return None
        view = GraphView(quantized.graph_def, quantized.shapes)
        found = self._kernels(view, *find_kernel_layers(view, self._outputs))
        if found is None:
            return None
        if self._is_right is None:
            graph = import_graph(found.graph_def, "the quantized model in integers")
            self._is_right = self._check(quantized, graph)
            if self._is_right:
                self._untold.append(partial(_log, found))
                found = found._replace(graph=graph if _is_small(quantized) else None)
        return found if self._is_right else None

    @cached_property
    def _kernels(self) -> Callable[[GraphView, _Layers, _Others], _Execution | None] | None:
        """What makes the graphs; None if nothing can."""
        reason = why_no_integer_kernels()
        kernels = self._in_onednn if reason is None else self._in_lite
        if reason is not None and not self._in_process:
            reason += ", and other processes evaluate the models"
        elif reason is not None:
            missing = why_no_lite_kernels()
            reason = None if missing is None else f"{reason}, and {missing}"
        if reason is None and not self._batches:
            reason = "no calibration batch was kept, with which integers could be checked"
        if reason is not None:
            self._untold.append(partial(_log_simulation, f"{reason}."))
        return kernels if reason is None else None

    def _in_onednn(self, view: GraphView, layers: _Layers, others: _Others) -> _Execution | None:
        for name in layers_between_floats(layers):
            del layers[name]
            others[name] = "its few products take less time than casts would"
        if not layers:
            return None
        return _Execution(execution_graph(view, layers, self._outputs), len(layers), others)

    def _in_lite(self, view: GraphView, layers: _Layers, others: _Others) -> _Execution | None:
        from amct_tensorflow.search.lite.lite_execution import (  # noqa: PLC0415 - not every TensorFlow has what it needs
            lite_execution,
        )

        found = lite_execution(view, layers, self._outputs)
        if not found.layers:
            if self._is_right is None:
                self._untold.append(partial(_log_simulation, f"{why_no_integer_kernels()}, and {_NO_GAIN}."))
                self._is_right = False
            return None
        left = dict.fromkeys(layers.keys() - found.layers, _NO_GAIN)
        return _Execution(found.graph_def, len(found.layers), others | left, found.kept)

    @stage("checking the integer kernels")
    def _check(self, quantized: QuantizedGraph, in_integers: tf.Graph) -> bool:
        """Tells whether both graphs of a model yield the same on a few images."""
        batch = _fed(quantized, self._batches[0])
        try:
            try:
                found = self._run_both(quantized, in_integers, some_images(batch, 0, _IMAGES))
            except (tf.errors.OpError, ValueError):  # the graph, or what is fed, is of so many images
                found = self._run_both(quantized, in_integers, batch)
        except (tf.errors.OpError, ValueError, KeyError) as error:
            self._untold.append(partial(_log_simulation, " ".join(str(error).split())[:300]))
            return False
        differing = sum(_differing(one, other) for one, other in zip(*found, strict=True))
        if differing:
            reason = f"in integers {plural(differing, 'value')} of the outputs would differ."
            self._untold.append(partial(_log_simulation, reason))
        return not differing

    def _run_both(self, quantized: QuantizedGraph, in_integers: tf.Graph, batch: Batch) -> list[list[np.ndarray]]:
        """Returns the outputs of both graphs.

        They are run beside each other, as most of the time one thread optimizes a graph; those of a large model in
        turn, as TensorFlow makes floats of its weights, several times.
        """

        def simulate() -> list[np.ndarray]:
            return self._run(import_graph(quantized.graph_def, "the quantized model"), batch)

        def compute() -> list[np.ndarray]:
            return self._run(in_integers, batch, leaves_open=_is_small(quantized))

        with ThreadPoolExecutor(2 if _is_small(quantized) else 1) as threads:
            runs = [threads.submit(run) for run in (simulate, compute)]
            return [run.result() for run in runs]

    def _run(self, graph: tf.Graph, batch: Batch, *, leaves_open: bool = False) -> list[np.ndarray]:
        """Returns the outputs of a graph, which is optimized as an evaluator's is."""
        feeds = {graph.get_tensor_by_name(name): values for name, values in batch.items()}
        with GraphRunner(graph, run_often=True) as runner:
            found: list[np.ndarray] = runner.run([f"{name}:0" for name in self._outputs], feeds)
            if leaves_open:
                runner.leave_open()
        return found


def _is_small(quantized: QuantizedGraph) -> bool:
    return bool(quantized.graph_def.ByteSize() < _LARGE_BYTES)


def _fed(quantized: QuantizedGraph, batch: Batch) -> Batch:
    """Returns a batch as a quantized model takes it: what a quantizer would repeat is fed in front of the quantizer."""
    nodes = {node.name: node for node in quantized.graph_def.node}
    fed = {f"{last}:0": full_tensor_name(nodes[name].input[0]) for name, last in quantized.absorbed.items() if last}
    return {fed.get(name, name): values for name, values in batch.items()}


def _differing(one: np.ndarray, other: np.ndarray) -> int:
    """Returns how many values of two arrays differ: all, if their shapes do; NaN is like NaN."""
    if one.shape != other.shape:
        return max(one.size, other.size)
    both_are_none = np.isnan(one) & np.isnan(other) if one.dtype.kind == "f" else np.zeros(one.shape, bool)
    return int(np.count_nonzero((one != other) & ~both_are_none))


def _log_simulation(reason: str) -> None:
    log_for("search").info("Quantized models are simulated: %s", reason)


def _log(execution: _Execution) -> None:
    """Logs how many layers run in integers, and why the others do not."""
    log_for("search").info(
        "Quantized models run in integers%s, but for %d of %d layers. They yield the same as simulated, to the bit.",
        "" if execution.kept is None else " in TensorFlow Lite",
        len(execution.others), execution.layers + len(execution.others),
    )  # fmt: skip
    for cause, count in Counter(execution.others.values()).most_common():
        log_for("search").info("Simulated all the same: %d, as %s.", count, cause)
    for name, reason in execution.others.items():
        log_for("search").debug("Layer %s is simulated: %s.", name, reason)
