"""What do exports lose, how fast are they, and what does each runtime make of the same images with its own quantizer?

Per network one run of the tool with its defaults; its result is exported to each format, and all files predict all
images. The float model in the same runtime, as the runtime's own converter makes it, is what times are compared with:
one image at a time, the models in turn. Where the runtime adds in int8, there is an export with ``--between int8``
beside the default, which has residual Adds in float. The runtimes' own quantizers get the same 32 images: the converter
of TensorFlow Lite (full integer), ``quantize_static`` of ONNX Runtime (QDQ, per channel, MinMax), and NNCF
(``quantize``) for OpenVINO. Their softmax stays in float, too: in steps of 1/256 it would show most probabilities as 0.
Writes the table in benchmarks/README.md.
"""

import argparse
import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measuring import BATCH, ROOT, mean_kl, measured_on, predict, report, scratch_folder, table

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import tensorflow as tf
from classifiers import CLASSIFIERS, Classifier, Judge
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from pages import write_section
from peers import make_environment

import amct_tensorflow as amct
from amct_tensorflow.export import TARGETS
from amct_tensorflow.export.export_plan import ExportPlan, plan_export
from amct_tensorflow.export.onnx.onnx_conversion import convert_to_onnx
from amct_tensorflow.export.target import Exported
from amct_tensorflow.export.tflite.tflite_conversion import convert_to_tflite
from amct_tensorflow.model.model_file import load_graph, read_model
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator

NETWORKS = ("MobileNet V2", "EfficientNet-Lite0")
ROUNDS = 60
THREADS = (1, 2)
OWN_TFLITE = "own.tflite"
EXPORT = "export"
INT8_SUMS = "export, Adds in int8"
# What only rows of exports have.
OF_EXPORTS = ("KL to simulation", "same class", "weights in 8 bits", "layers in int8")
Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Case:
    """A network, quantized.

    Attributes:
        classifier: the network.
        plan: the export of its quantized model.
        plan_with_sums: the same with residual Adds in int8.
        evaluator: runs the calibration images.
        folder: for files.
        softmax: of the float model in TensorFlow.
        simulated: of the quantized model in TensorFlow.
        python: that of an environment with NNCF.
    """

    classifier: Classifier
    plan: ExportPlan
    plan_with_sums: ExportPlan
    evaluator: CheckedEvaluator
    folder: Path
    softmax: np.ndarray
    simulated: np.ndarray
    python: Path

    @property
    def images(self) -> np.ndarray:
        """All images."""
        return self.classifier.data[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image as a batch."""
        return (1, *self.images.shape[1:])

    @property
    def logits(self) -> str:
        """The operator of the scores that the softmax reads."""
        view = read_model(self.classifier.inputs.model)
        (softmax,) = [node for node in view.nodes.values() if node.op == "Softmax"]
        return str(view.producer(softmax.input[0]).name)

    @property
    def input(self) -> str:
        """The placeholder's operator."""
        return self.classifier.placeholder.removesuffix(":0")


@dataclass(frozen=True)
class Runtime:
    """A runtime under measurement.

    Attributes:
        target: the format it executes.
        name: what the table calls it.
        quantizer: what the table calls its own quantizer.
        float_model: writes the float model; returns its path.
        own: writes the model of its own quantizer; returns its path.
        load: returns what runs a file on images with a number of threads.
        int8_weights: counts the constants of int8 that a file of ours holds as weights.
    """

    target: str
    name: str
    quantizer: str
    float_model: Callable[[Case], Path]
    own: Callable[[Case], Path]
    load: Callable[[Path, int], Run]
    int8_weights: Callable[[Path], int]


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description="what exports lose, and how fast they are")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--python", type=Path, help="Python of an environment with NNCF (default: that of bench-peers)")
    arguments = parser.parse_args()
    amct.set_logging_level(print_level="error", save_level="error")
    python = arguments.python.absolute() if arguments.python else make_environment()
    rows = []
    for name in arguments.networks:
        with case(CLASSIFIERS[name], python) as prepared:
            rows.append(simulation_row(prepared))
            for runtime in RUNTIMES:
                print("Measuring", name, runtime.name, flush=True)
                rows.extend(measure(prepared, runtime))
    versions = {
        "tf2onnx": version("tf2onnx"), "ONNX Runtime": ort.__version__, "OpenVINO": ov.__version__.split("-")[0],
    }  # fmt: skip
    said = measured_on(**versions)
    report("exports", rows, said)
    if set(arguments.networks) == set(NETWORKS):
        write_section(ROOT / "benchmarks" / "README.md", "exports.py", ["", said, "", *table(rows), ""])


@contextlib.contextmanager
def case(classifier: Classifier, python: Path) -> Iterator[Case]:
    """Quantizes a network with defaults, in a folder of its own."""
    with scratch_folder() as folder:
        judge = Judge(classifier, 0.5)
        amct.create_quant_config("config.json", load_graph(classifier.inputs.model))
        amct.accuracy_based_auto_calibration(
            str(classifier.inputs.model), [classifier.output], "record.txt", "config.json", "net", judge
        )
        evaluator = CheckedEvaluator(judge)
        plan, plan_with_sums = (
            plan_export(folder / "net_quantized.pb", [], evaluator, sums_in_int8=wanted) for wanted in (False, True)
        )
        images, _ = classifier.data
        softmax, simulated = (
            predict(load_graph(model), images, classifier.placeholder, classifier.output)
            for model in (classifier.inputs.model, folder / "net_quantized.pb")
        )
        np.save(folder / "images.npy", images[:BATCH])
        yield Case(classifier, plan, plan_with_sums, evaluator, folder, softmax, simulated, python)


def simulation_row(prepared: Case) -> dict[str, Any]:
    """The simulation, with which exports are compared."""
    return {
        "network": prepared.classifier.name,
        "runtime": "TensorFlow",
        "model": "float / simulation",
        "top-1": f"{top1(prepared, prepared.softmax):.2f} / {top1(prepared, prepared.simulated):.2f}",
        "KL to float": mean_kl(prepared.softmax, prepared.simulated),
    }


def measure(prepared: Case, runtime: Runtime) -> list[dict[str, Any]]:
    """Measures the float model, the exports, and what the runtime's own quantizer makes."""
    target = TARGETS[runtime.target]
    plans = {EXPORT: prepared.plan}
    if target.no_int8_sums is None:
        plans[INT8_SUMS] = prepared.plan_with_sums
    exports = {name: target.export(plan, prepared.evaluator) for name, plan in plans.items()}
    ours = {name: write_export(prepared, f"net{number}", exports[name]) for number, name in enumerate(exports)}
    files = {"float": runtime.float_model(prepared), **ours, runtime.quantizer: runtime.own(prepared)}
    ratios = {count: time_ratios(prepared, runtime, files, count) for count in THREADS}
    return [row(prepared, runtime, exports.get(name), name, file, ratios) for name, file in files.items()]


def write_export(prepared: Case, name: str, exported: Exported) -> Path:
    """Writes the files of an export; returns the path of the one to open."""
    for suffix, data in exported.files.items():
        (prepared.folder / f"{name}{suffix}").write_bytes(data)
    return prepared.folder / f"{name}{next(iter(exported.files))}"


def row(
    prepared: Case,
    runtime: Runtime,
    exported: Exported | None,
    name: str,
    file: Path,
    ratios: Mapping[int, Mapping[str, float]],
) -> dict[str, Any]:
    """Returns what there is to tell of a file; ``exported`` is what it was exported as, if it was."""
    run = runtime.load(file, max(THREADS))
    softmax = np.concatenate([run(image[None]) for image in prepared.images])
    size = file.stat().st_size + (file.with_suffix(".bin").stat().st_size if file.suffix == ".xml" else 0)
    found = {
        "network": prepared.classifier.name,
        "runtime": runtime.name,
        "model": name,
        "top-1": f"{top1(prepared, softmax):.2f}",
        "KL to float": mean_kl(prepared.softmax, softmax),
        **dict.fromkeys(OF_EXPORTS, ""),
        "MB": f"{size / 1e6:.1f}",
    }
    if exported is not None:
        found.update(row_of_export(prepared, exported, softmax, runtime.int8_weights(file)))
    for count, measured in ratios.items():
        found[f"time, {count} thread{'s' if count > 1 else ''}"] = f"{measured[name]:.2f}"
    return found


def row_of_export(prepared: Case, exported: Exported, softmax: np.ndarray, int8_weights: int) -> dict[str, Any]:
    """Returns what there is to tell of an export beyond that, which ``OF_EXPORTS`` names."""
    layers = prepared.plan.layers
    weights = sum(layer.weights.size for layer in layers.values() if layer.weights is not None)
    in_float = layers.keys() & exported.in_float.keys()
    return {
        "KL to simulation": mean_kl(prepared.simulated, softmax),
        "same class": f"{100 * np.mean(softmax.argmax(1) == prepared.simulated.argmax(1)):.1f} %",
        "weights in 8 bits": f"{100 * int8_weights / weights:.0f} %",
        "layers in int8": f"{len(layers) - len(in_float)} of {len(layers)}",
    }


def time_ratios(prepared: Case, runtime: Runtime, files: Mapping[str, Path], threads: int) -> dict[str, float]:
    """Returns the time of one image in each model by that in the float model: medians of runs in turn."""
    runs = {name: runtime.load(file, threads) for name, file in files.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(ROUNDS + 5):
        image = prepared.images[number][None]
        for name, run in runs.items():
            start = time.perf_counter()
            run(image)
            if number >= 5:  # the first ones warm up
                seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(np.divide(each, seconds["float"]))) for name, each in seconds.items()}


def top1(prepared: Case, softmax: np.ndarray) -> float:
    """Accuracy in percent."""
    return 100 * float(np.mean(softmax.argmax(axis=1) == prepared.classifier.data[1]))


# TensorFlow Lite


def tflite_float(prepared: Case) -> Path:
    """The float model by TensorFlow's converter."""
    return tflite_file(prepared, "float.tflite", prepared.classifier.output, lambda converter: None)


def tflite_own(prepared: Case) -> Path:
    """Full integer quantization by TensorFlow's converter, up to the scores."""

    def adjust(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in prepared.images[:BATCH])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]

    return tflite_file(prepared, OWN_TFLITE, prepared.logits, adjust)


def tflite_file(prepared: Case, name: str, output: str, adjust: Callable[[Any], None]) -> Path:
    """Converts the float model."""
    classifier, path = prepared.classifier, prepared.folder / name
    graph_def = read_model(classifier.inputs.model).graph_def
    shapes = {prepared.input: prepared.shape}
    path.write_bytes(convert_to_tflite(graph_def, shapes, [prepared.input], [output], adjust))
    return path


def load_tflite(file: Path, threads: int) -> Run:
    """TensorFlow's interpreter with XNNPACK, which is its default."""
    interpreter = tf.lite.Interpreter(model_path=str(file), num_threads=threads)
    interpreter.allocate_tensors()
    fed, fetched = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(fed, image)
        interpreter.invoke()
        return interpreter.get_tensor(fetched).copy()

    return (lambda image: softmax_of(run(image))) if file.name == OWN_TFLITE else run


def softmax_of(scores: np.ndarray) -> np.ndarray:
    """Returns the softmax of scores [images, classes]."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def int8_in_tflite(file: Path) -> int:
    """Counts int8 constants."""
    interpreter = tf.lite.Interpreter(model_path=str(file))
    details = interpreter.get_tensor_details()
    return sum(
        int(np.prod(detail["shape"]))
        for detail in details
        if detail["dtype"] == np.int8 and detail["name"].endswith("/int8_weights")
    )


# ONNX Runtime


def onnx_float(prepared: Case) -> Path:
    """The float model by tf2onnx."""
    classifier, path = prepared.classifier, prepared.folder / "float.onnx"
    graph_def = read_model(classifier.inputs.model).graph_def
    onnx.save(convert_to_onnx(graph_def, [prepared.input], [classifier.output]), str(path))
    return path


def onnx_own(prepared: Case) -> Path:
    """Static quantization by ONNX Runtime."""
    path, source = prepared.folder / "own.onnx", prepared.folder / "float.onnx"

    class Reader(CalibrationDataReader):
        """Yields the calibration images."""

        def __init__(self) -> None:
            self.images = iter(prepared.images[:BATCH])

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {f"{prepared.input}:0": image[None]}

    softmax = [node.name for node in onnx.load(str(source)).graph.node if node.op_type == "Softmax"]
    quantize_static(
        str(source), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=softmax,
    )  # fmt: skip
    return path


def load_onnx(file: Path, threads: int) -> Run:
    """ONNX Runtime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: np.asarray(session.run(None, {name: image})[0])


def int8_in_onnx(file: Path) -> int:
    """Counts int8 weights."""
    values = onnx.load(str(file)).graph.initializer
    return sum(int(np.prod(value.dims)) for value in values if value.name.endswith("/int8_weights"))


# OpenVINO


def openvino_float(prepared: Case) -> Path:
    """The float model by OpenVINO's converter."""
    path = prepared.folder / "float.xml"
    ov.save_model(ov.convert_model(str(prepared.classifier.inputs.model)), str(path), compress_to_fp16=False)
    return path


def openvino_own(prepared: Case) -> Path:
    """Quantization by NNCF, in an environment of its own."""
    path = prepared.folder / "own.xml"
    script = ROOT / "benchmarks" / "peers" / "nncf_quantize.py"
    model = prepared.classifier.inputs.model
    subprocess.run([prepared.python, script, model, prepared.folder / "images.npy", path], check=True)
    return path


def load_openvino(file: Path, threads: int) -> Run:
    """OpenVINO on the CPU."""
    compiled = ov.Core().compile_model(str(file), "CPU", {"INFERENCE_NUM_THREADS": threads})
    return lambda image: np.array(compiled(image)[0])


def int8_in_openvino(file: Path) -> int:
    """Counts int8 constants of more than one axis."""
    constants = [each for each in ov.Core().read_model(str(file)).get_ops() if each.get_type_name() == "Constant"]
    return sum(
        int(np.prod(each.shape)) for each in constants if each.get_element_type() == ov.Type.i8 and len(each.shape) > 1
    )


RUNTIMES = (
    Runtime(
        "tflite", "TensorFlow Lite", "TFLite converter", tflite_float, tflite_own, load_tflite, int8_in_tflite
    ),
    Runtime("onnx", "ONNX Runtime", "quantize_static", onnx_float, onnx_own, load_onnx, int8_in_onnx),
    Runtime("openvino", "OpenVINO", "NNCF", openvino_float, openvino_own, load_openvino, int8_in_openvino),
)  # fmt: skip


if __name__ == "__main__":
    main()
