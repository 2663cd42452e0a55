"""Carries a recipe through the stages of the package, and says where it goes wrong.

What comes out is compared with the recipe written in float64 (``Reference``): the fused graph up to what float32 loses,
the quantized model and exported files up to the noise of the simplest quantization with three times as large scales
(``Naive``), and integers up to a share of it.
"""

import contextlib
import importlib
import json
import logging
import re
import traceback
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from unittest.mock import patch

import numpy as np
import tensorflow as tf
from graphs import nchw_on_cpu

import amct_tensorflow as amct
from amct_tensorflow.errors import ConfigEmptyError, ConfigValueError, ExportError, ModelError
from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_model import export_model
from amct_tensorflow.graph.graph_runner import session_options
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.quantize.quantized.builder import quantize_graph
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.quantize.record.corrections import read_corrections
from amct_tensorflow.quantize.record.factors import unfused_layers
from amct_tensorflow.quantize.record.record_file import read_balance, read_record
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator
from amct_tensorflow.search.evaluator import AutoCalibrationEvaluatorBase
from amct_tensorflow.search.integers.availability import why_no_integer_kernels, why_no_lite_kernels
from amct_tensorflow.search.integers.execution_graph import execution_graph
from amct_tensorflow.search.integers.kernel_layer import find_kernel_layers
from amct_tensorflow.search.lite.lite_execution import lite_execution
from amct_tensorflow.search.lite.lite_region import LiteRegion
from random_models.building import INPUT, build, step_of
from random_models.references import expect
from random_models.values import batches

tf1 = tf.compat.v1

# How many times the error of float32 a fused graph may have, beside a share of the greatest value: a fold computes the
# same values in another order.
_ROUNDINGS, _SHARE_OF_REACH = 30, 2e-4
# What noise is too little to matter, of the variance, and what tells nothing: activations that saturate make steps of
# noise, and whether values fall onto one or the other side of a few steps is luck.
_SHARE_OF_VARIANCE, _DROWNED = 1e-5, 0.03
_OTHER_COUNTS = (1, 2, 5)
# Beyond this divergence a file must be marked.
_LIMIT = 0.01


@dataclass(frozen=True)
class Finding:
    """What a stage said.

    Attributes:
        stage: its name.
        is_fault: whether something is wrong; else the package refused the model in words of its own.
        text: what is wrong.
        details: where it comes from.
    """

    stage: str
    is_fault: bool
    text: str
    details: str = ""

    @property
    def signature(self):
        """What findings of the same kind have in common."""
        text = re.sub(r"'[^'\s]*'|\S*/\S*", "_", " ".join(self.text.partition(" | ")[0].split()))
        return f"{self.stage}: {re.sub(r'[-+]?[0-9][0-9.e+-]*', '#', text)[:160]}"


class WrongError(Exception):
    """A stage computes something else."""


class UnusableError(Exception):
    """There is nothing to compare with."""


class _Case:
    """One recipe, under examination in the current folder."""

    def __init__(self, recipe):
        self.recipe = recipe
        self.model = build(recipe)
        self.batches = batches(recipe.data)
        self.expected = ()
        Path("net.pb").write_bytes(self.model.graph_def.SerializeToString())

    @cached_property
    def float_model(self):
        return FloatModel.load("net.pb", self.model.outputs)

    def write_config(self):
        """Writes config.json; returns the arguments of ``Naive`` that it follows from."""
        wanted = dict(self.recipe.config)
        graph = _import(self.model.graph_def)
        symmetric = not wanted.pop("activation_offset", True)
        amct.create_quant_config("config.json", graph, batch_num=len(self.batches), activation_offset=not symmetric)
        content = json.loads(Path("config.json").read_text())
        layers = {name: value for name, value in content.items() if isinstance(value, dict)}
        of_steps = {key: set(wanted.pop(key, ())) for key in ("skip", "unfused", "per_tensor")}
        products = wanted.pop("products", False)
        for name, layer in layers.items():
            is_product = not layer["quant_enable"]
            layer["quant_enable"] = (products or not is_product) and step_of(name) not in of_steps["skip"]
            if step_of(name) in of_steps["per_tensor"]:
                layer["weight_quant_params"]["channel_wise"] = False
        content["skip_fusion_layers"] = [name for name in layers if step_of(name) in of_steps["unfused"]]
        Path("config.json").write_text(json.dumps({**content, **wanted}))
        enabled = {name: layer for name, layer in layers.items() if layer["quant_enable"]}
        whole = [name for name, layer in enabled.items() if not layer["weight_quant_params"].get("channel_wise")]
        return {
            "quantized": [*map(step_of, enabled)], "per_tensor": [*map(step_of, whole)], "symmetric": symmetric,
            "products": products,
        }  # fmt: skip

    def run(self, graph_def, values=None, *, optimized=False):
        """Returns the outputs of a graph, per batch; TensorFlow may optimize it first."""
        graph = _import(graph_def)
        with tf1.Session(graph=graph, config=session_options(graph, run_often=optimized)) as session:
            fetches = [f"{name}:0" for name in self.model.outputs]
            return [session.run(fetches, {f"{INPUT}:0": batch}) for batch in values or self.batches]

    def run_as_caller(self, graph):
        """Runs a graph as programs do, with whatever TensorFlow's optimizer makes of it."""
        options = nchw_on_cpu() if any(step.settings.get("first") for step in self.recipe.steps) else None
        with tf1.Session(graph=graph, config=options) as session:
            for batch in self.batches:
                session.run([f"{name}:0" for name in self.model.outputs], {f"{INPUT}:0": batch})

    def runs_untouched(self):
        """Tells whether programs can run the model as it is."""
        with contextlib.suppress(tf.errors.OpError):
            self.run_as_caller(_import(self.model.graph_def))
            return True
        return False

    def other_batches(self):
        """Returns batches of other sizes, if the model allows them."""
        if self.recipe.data.fixed:
            return self.batches
        rows = np.concatenate(self.batches)
        counts = [count * self.recipe.data.rows for count in _OTHER_COUNTS]
        return [rows[:count] for count in counts if count <= len(rows)]


def _import(graph_def):
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    return graph


def examine(recipe, formats=()):
    """Carries a recipe through all stages, and exports in some formats, in the current folder; returns findings."""
    case = _Case(recipe)
    findings = []
    for name, check in {**_STAGES, **{name: _export_to(name) for name in formats}}.items():
        finding = _finding(name, check, case)
        if finding:
            findings.append(finding)
            if name in _ALL_ELSE_FOLLOWS_FROM:
                break
        if not all(each.is_finite for each in case.expected):
            break
    return findings


def _finding(stage, check, case):
    try:
        check(case)
    except WrongError as error:
        return Finding(stage, True, str(error))
    except UnusableError as error:
        return Finding(stage, False, str(error))
    except tf.errors.OpError as error:
        if case.runs_untouched():
            return Finding(stage, True, f"{type(error).__name__}: {error}"[:600], traceback.format_exc())
        return Finding(stage, False, "TensorFlow cannot run the model itself")
    except Exception as error:
        return Finding(stage, not _is_refusal(error), f"{type(error).__name__}: {error}"[:600], traceback.format_exc())
    return None


def _is_refusal(error):
    """Tells whether the package may refuse a model so: nothing to quantize, or a format that lacks what it takes."""
    text = str(error)
    quotes_internals = "Traceback" in text or "{{" in text or re.search(r"__\w+__|\.(py|cc|h):\d", text)
    nothing = isinstance(error, ConfigValueError | ConfigEmptyError) and ("no layer" in text or "no op" in text)
    return not quotes_internals and (nothing or isinstance(error, ExportError | ModelError))


def _configure(case):
    """Whatever TensorFlow takes can be configured, if there is something to quantize."""
    case.expected = expect(case.recipe, case.batches, case.write_config())


def _check_fused(case):
    """Loading, preparation and fusion do not change the outputs."""
    config = case.recipe.config
    model = case.float_model
    names = [layer.name for layer in model.layers]
    unfused = [
        name for name in names if not config.get("do_fusion", True) or step_of(name) in config.get("unfused", [])
    ]
    _compare_floats(case, case.run(model.fuse(unfused).graph_def))


def _compare_floats(case, runs):
    for index, expected in enumerate(case.expected):
        allowed = _ROUNDINGS * expected.rounding + _SHARE_OF_REACH * expected.reach
        for run, exact in zip(runs, expected.exact, strict=True):
            if run[index].shape != exact.shape:
                raise WrongError(f"shape | {run[index].shape} instead of {exact.shape}")
            error = float(np.abs(run[index] - exact).max())
            if not error <= allowed:
                raise WrongError(
                    f"values differ | by {error:g} of {expected.reach:g}; float32 loses {expected.rounding:g}"
                )


def _check_quantized(case):
    """The public steps yield a model that is not as noisy as the simplest quantization with three times the scales."""
    graph = _import(case.model.graph_def)
    amct.quantize_model(graph, "config.json", "record.txt", case.model.outputs)
    case.run_as_caller(graph)
    amct.save_model("net.pb", case.model.outputs, "record.txt", "results/net")
    case.simulation = case.run(_quantized())
    for index, expected in enumerate(case.expected):
        runs = [run[index] for run in case.simulation]
        if expected.reach:  # what is always 0, as a margin is, has nothing that noise could be compared with
            _compare_noise(runs, expected.exact, expected)


def _quantized():
    return tf1.GraphDef.FromString(Path("results/net_quantized.pb").read_bytes())


def _compare_noise(runs, references, expected, share=1.0):
    """Checks that values are no noisier than a multiple of what is expected."""
    errors = []
    for values, reference in zip(runs, references, strict=True):
        if values.shape != reference.shape:
            raise WrongError(f"shape | {values.shape} instead of {reference.shape}")
        if not np.isfinite(values).all():
            raise WrongError("not finite")
        errors.append((values.astype(np.float64) - reference).ravel())
    noise = float(np.mean(np.concatenate(errors) ** 2))
    exact = max(_ROUNDINGS * expected.rounding, _SHARE_OF_REACH * expected.reach) + 1e-30
    negligible = _SHARE_OF_VARIANCE * expected.variance + exact**2
    is_drowned = expected.noise > _DROWNED * expected.variance
    if noise > share * expected.noise + negligible and not is_drowned:
        raise WrongError(
            f"noise | {_decibels(expected.variance, noise):.1f} dB; at least "
            f"{_decibels(expected.variance, share * expected.noise):.1f} dB were expected"
        )


def _decibels(signal, noise):
    return 10 * np.log10(max(signal, 1e-300) / max(noise, 1e-300))


def _check_integers(case):
    """The execution graphs compute what the simulation does, to the bit, for any number of images."""
    factors = read_record("record.txt")
    fused = case.float_model.fuse(unfused_layers(factors), read_balance("record.txt"))
    plan = QuantizationPlan(fused, factors, read_corrections("record.txt", factors, fused.layers), case.model.outputs)
    quantized = quantize_graph(plan)
    view = GraphView(quantized.graph_def, quantized.shapes)
    layers, _ = find_kernel_layers(view, plan.outputs)
    if not layers:
        return
    others = case.other_batches()
    simulated = case.run(quantized.graph_def, others, optimized=True)
    for kernels, graph_def, _kept in _execution_graphs(view, layers, plan.outputs):
        computed = case.run(graph_def, others, optimized=True)
        for one, other in zip(simulated, computed, strict=True):
            for values, same in zip(one, other, strict=True):
                if not np.array_equal(values, same, equal_nan=True):
                    count = np.count_nonzero(values != same) if values.shape == same.shape else "all"
                    raise WrongError(f"integers {kernels} | {count} of {values.size} values differ")


def _execution_graphs(view, layers, outputs):
    """Yields by which kernels a model runs in integers, its execution graph, and what that runs with."""
    if why_no_integer_kernels() is None:
        yield "of oneDNN", execution_graph(view, layers, outputs), None
    if why_no_lite_kernels() is None:
        found = lite_execution(view, layers, outputs)
        yield "of TensorFlow Lite", found.graph_def, found
        with patch.object(LiteRegion, "pays", lambda self: True):
            found = lite_execution(view, layers, outputs)
        yield "of TensorFlow Lite, all of them", found.graph_def, found


class _Batches(AutoCalibrationEvaluatorBase):
    """Runs the calibration batches, and keeps what comes out."""

    def __init__(self, values):
        self.values = values
        self.runs = []

    def calibration(self, graph, outputs):
        self._run(graph, outputs)

    def evaluate(self, graph, outputs):
        self.runs.append(self._run(graph, outputs))
        return 0.0

    def _run(self, graph, outputs):
        with tf1.Session(graph=graph, config=session_options(graph, run_often=False)) as session:
            return [session.run([f"{name}:0" for name in outputs], {f"{INPUT}:0": batch}) for batch in self.values]


def _export_to(name):
    """The exported file computes what the simulation does."""
    return lambda case: _check_export(case, name)


def _check_export(case, name):
    """Judges the file by exact kernels; what a processor makes of it whose products of bytes saturate is told alone."""
    evaluator = _Batches(case.batches)
    with _warnings() as warnings:
        document = export_model(
            Path("results/net_quantized.pb"), case.model.outputs, TARGETS[name], CheckedEvaluator(evaluator),
            Path("results/net"), _LIMIT,
        )  # fmt: skip
    simulated, exported, *saturating = evaluator.runs
    try:
        _compare_exported(case, simulated, exported)
    except WrongError as error:
        if name not in _OTHERWISE or not _is_marked(document["file"], warnings):
            raise
        _compare_exported(case, simulated, _OTHERWISE[name](case, document["file"]))
        raise UnusableError(f"{name} errs, and the file is marked as one that diverges | {error}") from error
    for run in saturating:
        try:
            _compare_exported(case, simulated, run)
        except WrongError as error:
            raise UnusableError(f"this processor saturates products of bytes | {error}") from error


@contextlib.contextmanager
def _warnings():
    """Collects the warnings of the package."""
    texts = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage())
    logger = logging.getLogger("amct_tensorflow")
    logger.addHandler(handler)
    try:
        yield texts
    finally:
        logger.removeHandler(handler)


def _is_marked(file, warnings):
    """Tells whether nobody can take a file for one that computes what the simulation does."""
    is_there_alone = Path(file).stem == "net_diverges" and not Path("results", f"net{Path(file).suffix}").exists()
    said = any("does not compute what the simulation does" in text and file in text for text in warnings)
    return is_there_alone and said


def _run_in_openvino(case, file):
    """Returns what a file of OpenVINO holds, computed without the rewrites that lead to its integer kernels."""
    core = importlib.import_module("openvino").Core()
    model = core.compile_model(core.read_model(f"results/{file}"), "CPU", {"LP_TRANSFORMS_MODE": "NO"})
    results = [model({f"{INPUT}:0": batch}) for batch in case.batches]
    return [[np.array(each[f"{name}:0"]) for name in case.model.outputs] for each in results]


def _run_in_tflite(case, file):
    """Returns what a file of TensorFlow Lite holds, computed by its own kernels instead of XNNPACK's."""
    resolver = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = tf.lite.Interpreter(f"results/{file}", experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    (fed,), read = interpreter.get_input_details(), interpreter.get_output_details()
    results = []
    for batch in case.batches:
        parts = []
        for start in range(0, len(batch), fed["shape"][0]):
            interpreter.set_tensor(fed["index"], batch[start : start + fed["shape"][0]])
            interpreter.invoke()
            parts.append([interpreter.get_tensor(each["index"]).copy() for each in read])
        results.append([np.concatenate(values) for values in zip(*parts, strict=True)])
    return results


# How to run a file without the kernels that are most likely at fault.
_OTHERWISE = {"openvino": _run_in_openvino, "tflite": _run_in_tflite}


def _compare_exported(case, simulated, exported):
    for index, expected in enumerate(case.expected):
        _compare_noise([run[index] for run in exported], [run[index] for run in simulated], expected)


_STAGES = {
    "configured": _configure, "fused": _check_fused, "quantized": _check_quantized, "integers": _check_integers,
}  # fmt: skip
_ALL_ELSE_FOLLOWS_FROM = ("configured", "fused", "quantized")
