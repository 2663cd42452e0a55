"""Runs an exported model where the user's evaluator expects a graph, and compares it with the simulation.

The evaluator gets a graph with the placeholders and outputs of the model. Behind them run both: the simulation, which
is the quantized model in TensorFlow, and the exported file in its runtime, whose values are the outputs.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from amct_tensorflow.errors import AmctError, DatasetError, EvaluatorError, ExportError
from amct_tensorflow.export.export_plan import ExportPlan
from amct_tensorflow.export.float_reference import make_float_reference
from amct_tensorflow.export.output_grids import Output
from amct_tensorflow.export.target import Exported, Runtime
from amct_tensorflow.graph.graph_runner import GraphRunner
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.log import log_for
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.results.comparison.tensor_error import TensorError
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator
from amct_tensorflow.search.evaluator import Evaluation
from amct_tensorflow.search.sensitivity.divergence import Divergence

# Nobody sees, or hears, noise so many decibels below the signal.
_ENOUGH = 40.0


@dataclass(frozen=True)
class Comparison:
    """How a runtime computes an exported model, compared with the simulation.

    Attributes:
        evaluation: the evaluation of the exported model.
        images: how many images both were run on.
        divergence: how far the outputs of the exported model lie from those of the simulation (``Divergence``).
        agreement: share of the images for which the greatest score of the first output is the same; None if that has
            no scores.
    """

    evaluation: Evaluation
    images: int
    divergence: float
    agreement: float | None


@dataclass(frozen=True)
class OutputErrors:
    """The error of an output, compared with the float reference, which does not round activations.

    Attributes:
        simulation: that of the simulation.
        exported: that of the exported model.
    """

    simulation: TensorError
    exported: TensorError

    @property
    def lost(self) -> float:
        """Loss of signal-to-noise ratio in dB of the exported model, as far as it matters."""
        return _noticed(self.simulation) - _noticed(self.exported)


def _noticed(error: TensorError) -> float:
    return min(error.sqnr, _ENOUGH) if error.sqnr > 0 else 0.0


@dataclass(frozen=True)
class Check:
    """The comparison of an exported model with the simulation.

    Attributes:
        simulation: the evaluation of the simulation.
        exported: the exported model.
        saturating: the exported model as this processor computes it where products of bytes saturate; else None.
        layers: per layer that the runtime lets be seen, how far its output lies from that of the simulation, everything
            before it included.
        outputs: the errors of float outputs.
        rounding: how far the outputs of the simulation lie from those of the float reference, on a few images.
    """

    simulation: Evaluation
    exported: Comparison
    saturating: Comparison | None
    layers: dict[str, TensorError]
    outputs: dict[str, OutputErrors]
    rounding: float


def check_export(plan: ExportPlan, exported: Exported, evaluator: CheckedEvaluator) -> Check:
    """Evaluates both, and compares them.

    Raises:
        EvaluatorError: the evaluator fails.
        ExportError: the runtime refuses what the evaluator runs.
        DatasetError: it ran no images.
    """
    simulation = evaluator.evaluate(import_graph(plan.view.graph_def, plan.model), plan.outputs, "the quantized model")
    runtime, compared, saturating = _compare_with(plan, exported, evaluator)
    layers = _compare_layers(plan, runtime)
    outputs, rounding = _compare_outputs(plan, runtime)
    return Check(simulation, compared, saturating, layers, outputs, rounding)


def _compare_with(
    plan: ExportPlan, exported: Exported, evaluator: CheckedEvaluator
) -> tuple[Runtime, Comparison, Comparison | None]:
    """Compares the exported model with the simulation.

    Returns:
        The runtime that tells what the file holds, what it computes, and what this processor makes of it instead where
        products of bytes saturate.
    """
    usual = exported.saturating
    if usual is None:
        return exported.runtime, _compare(plan, exported.runtime, evaluator, "the exported model"), None
    try:
        exact: Comparison | None = _compare(plan, exported.runtime, evaluator, "the exported model")
    except ExportError as error:
        log_for("export").debug("With exact kernels: %s", error)
        exact = None
    what = "the exported model as this processor computes it"
    here = _compare(plan, usual.runtime, evaluator, what)
    # Kernels in float err, too, OpenVINO's on some processors with AVX2 alone. Whichever comes nearer shows that the
    # file is right.
    if exact is None or here.divergence < exact.divergence / 2:
        return usual.runtime, here, None
    return exported.runtime, exact, here


def _compare(plan: ExportPlan, runtime: Runtime, evaluator: CheckedEvaluator, what: str) -> Comparison:
    """Evaluates an exported model, and compares it with the simulation on the way."""
    both = _Both(plan, runtime)
    try:
        evaluation = evaluator.evaluate(both.graph(), plan.outputs, what)
    except EvaluatorError:
        if both.refusal is not None:  # of which TensorFlow makes an error of its own, and the evaluator another
            raise both.refusal from None
        raise
    if not both.images:
        raise DatasetError("evaluate() of the evaluator ran no images. Give data.")
    agreement = both.agreeing / both.images if both.has_scores else None
    return Comparison(evaluation, both.images, both.divergence.value, agreement)


class _Both:
    """What runs both models, and sums up how they differ."""

    def __init__(self, plan: ExportPlan, runtime: Runtime) -> None:
        self._plan = plan
        self._runtime = runtime
        self.images = 0
        self.agreeing = 0
        self.has_scores = True
        self.refusal: AmctError | None = None
        self.divergence = Divergence(len(plan.outputs))

    def graph(self) -> tf.Graph:
        """Returns the graph for the evaluator."""
        editor = GraphEditor(self._plan.view)
        simulated = {name: editor.unique_name(f"{name}/simulated") for name in self._plan.outputs}
        for name, inner in simulated.items():
            editor.rename(name, inner)
        editor.redirect(simulated, control=True)
        graph = import_graph(editor.graph_def_for(simulated.values()), self._plan.model)
        fed = [graph.get_tensor_by_name(f"{name}:0") for name in self._plan.inputs]
        expected = [graph.get_tensor_by_name(f"{name}:0") for name in simulated.values()]
        with graph.as_default():
            found = tf.numpy_function(self._step, [*fed, *expected], [tensor.dtype for tensor in expected])
            for name, value, like in zip(self._plan.outputs, found, expected, strict=True):
                value.set_shape(like.shape)
                tf.identity(value, name=name)
        return graph

    def _step(self, *values: np.ndarray) -> list[np.ndarray]:
        count = len(self._plan.inputs)
        inputs, expected = dict(zip(self._plan.inputs, values[:count], strict=True)), values[count:]
        try:
            computed = self._runtime.run(inputs)
            found = [_shaped(*each) for each in zip(self._plan.outputs, computed, expected, strict=True)]
        except AmctError as error:
            self.refusal = error
            raise
        self.divergence.add(expected, found)
        self._count(expected[0], found[0])
        return found

    def _count(self, expected: np.ndarray, found: np.ndarray) -> None:
        self.has_scores = self.has_scores and expected.ndim == 2 and expected.shape[1] > 1
        self.images += len(expected) if expected.ndim else 1
        if self.has_scores:
            self.agreeing += int(np.sum(expected.argmax(axis=1) == found.argmax(axis=1)))


def _shaped(name: str, value: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Returns an output of the exported model in dtype and shape of the simulation's; formats may drop axes of 1.

    Raises:
        ExportError: it has another number of elements.
    """
    if value.size != like.size:
        raise ExportError(
            f"The runtime gives output {name!r} the shape {list(value.shape)}; in the quantized model it has the shape "
            f"{list(like.shape)}. So it computes something else on this processor. Export to another format."
        )
    return np.asarray(value, like.dtype).reshape(like.shape)


def _compare_layers(plan: ExportPlan, runtime: Runtime) -> dict[str, TensorError]:
    """Compares the outputs of layers on a few images."""
    seen = runtime.layers(plan.images)
    found = {name: values for name, values in seen.items() if not plan.layer_outputs[name].is_in_phases}
    ends = {name: f"{plan.layer_outputs[name].end}:0" for name in found}
    feeds = {f"{name}:0": values for name, values in plan.images.items()}
    with GraphRunner(import_graph(plan.view.graph_def, plan.model)) as runner:
        expected = runner.values(dict.fromkeys(ends.values()), feeds)
    errors = {}
    for name, values in found.items():
        errors[name] = TensorError()
        like, output = expected[ends[name]], plan.layer_outputs[name]
        shaped = values.reshape(like.shape) if values.size == like.size else values
        errors[name].add(_as_read(like, output), _as_read(shaped, output))
    return errors


def _compare_outputs(plan: ExportPlan, runtime: Runtime) -> tuple[dict[str, OutputErrors], float]:
    """Compares the outputs of both on a few images with those of the float reference, which rounds no activation.

    Returns:
        The errors of float outputs, and the divergence of the simulation.
    """
    tensors = [f"{name}:0" for name in dict.fromkeys(plan.outputs)]
    feeds = {f"{name}:0": values for name, values in plan.images.items()}
    reference = make_float_reference(plan.view, plan.layers.values(), (), plan.outputs)
    values = []
    for graph_def in (reference, plan.view.graph_def):
        with GraphRunner(import_graph(graph_def, plan.model)) as runner:
            values.append(runner.values(tensors, feeds))
    in_float, simulated = values
    rounding = Divergence(len(tensors))
    rounding.add([in_float[tensor] for tensor in tensors], [simulated[tensor] for tensor in tensors])
    errors = {}
    for name, found in zip(plan.outputs, runtime.run(plan.images), strict=True):
        like = in_float[f"{name}:0"]
        if np.issubdtype(like.dtype, np.floating) and np.size(found) == like.size:
            errors[name] = OutputErrors(TensorError(), TensorError())
            errors[name].simulation.add(like, simulated[f"{name}:0"])
            errors[name].exported.add(like, np.asarray(found, like.dtype).reshape(like.shape))
    return errors, rounding.value


def _as_read(values: np.ndarray, output: Output) -> np.ndarray:
    """Clips values to the range that readers use.

    That is the range of the activation behind the layer, which a runtime may fuse into it, and the range of all
    readers' quantizers.
    """
    read = np.clip(values, *output.clip)
    return np.asarray(read if output.grid is None else np.clip(read, *output.grid.limits))


def top1(evaluation: Evaluation) -> float | None:
    """Returns the top-1 accuracy in percent, if an evaluation tells for each image whether it is right."""
    results = evaluation.image_results
    if results is None or not np.isin(results, (0.0, 100.0)).all():
        return None
    return float(np.mean(results))
