"""What every benchmark needs: the inputs, interleaved timing, a table, and JSON under outputs/benchmarks."""

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from amct_tensorflow.console import import_tensorflow, use_onednn

if "tensorflow" not in sys.modules:
    use_onednn()  # as the sample does
    import_tensorflow()

import numpy as np
import tensorflow as tf
from amct_tensorflow.common.auto_calibration import AutoCalibrationEvaluatorBase
from pages import write_section

import amct_tensorflow as amct
from amct_tensorflow.data import ScannedRecords, find_files, scan_records
from amct_tensorflow.io.table import plural
from amct_tensorflow.model.model_file import load_graph

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("AMCT_SHARED", ROOT.parent / "shared"))
MODEL = SHARED / "model" / "mobilenet_v2_1.0_224_frozen.pb"
DATASET = SHARED / "imagenet_sample"
# Of the build that is imported, which may be another than that of this file.
SAMPLE = Path(amct.__file__).resolve().parents[1] / "src" / "mobilenet_v2_accuracy_based_auto_calibration.py"
RESULTS = ROOT / "outputs" / "benchmarks"
PAGE = ROOT / "benchmarks" / "README.md"
OUTPUT = "MobilenetV2/Predictions/Reshape_1"
INPUT = "input:0"
BATCH = 32


# Per step that this tool adds to the algorithms of the original toolkit, the setting that leaves it out. All of them
# together are the original's algorithms.
WITHOUT: dict[str, dict[str, Any]] = {
    "bias": {"bias_correction": False},
    "rounding": {"weight_rounding": "nearest"},
    "ranges": {"range_refinement": False},
}
STEPS = tuple(WITHOUT)


@dataclass(frozen=True)
class Inputs:
    """The model and the images to measure with, which the sample makes so many pixels high and wide."""

    model: Path
    dataset: Path
    size: int = 224

    @property
    def are_default(self) -> bool:
        """Whether these are the inputs whose figures stand in the pages."""
        return (self.model, self.dataset) == (MODEL.resolve(), DATASET.resolve())

    @cached_property
    def sample(self) -> ModuleType:
        """The sample as a module."""
        spec = importlib.util.spec_from_file_location("sample", SAMPLE)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["sample"] = module
        spec.loader.exec_module(module)
        return module

    def scan(self) -> ScannedRecords:
        """Returns the dataset as the sample reads it."""
        return scan_records(find_files(self.dataset), self.sample.FEATURES)

    @cached_property
    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """All images as the sample prepares them, float32 [n, size, size, 3], and their labels."""
        data = self.sample.MobileNetV2Evaluator(self.scan(), BATCH).batches(self.size, self.size)
        batches = [(images.numpy(), labels.numpy()) for images, labels in data]
        return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])


def parse_inputs(
    description: str, *more: Callable[[argparse.ArgumentParser], Any]
) -> tuple[Inputs, argparse.Namespace]:
    """Parses the command line of a benchmark; ends the program if model or images are missing."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--dataset", type=Path, default=DATASET, help="ImageNet TFRecords")
    for add in more:
        add(parser)
    arguments = parser.parse_args()
    for path in (arguments.model, arguments.dataset):
        if not path.exists():
            parser.error(f"{path} does not exist; give the model with --model and the images with --dataset")
    amct.set_logging_level(print_level="error", save_level="error")
    return Inputs(arguments.model.resolve(), arguments.dataset.resolve()), arguments


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Runs the block in a folder of its own, which is removed afterwards."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def interleaved(actions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Times actions in turn, so that a change of the machine's speed meets them all; a first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds + 1):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], name: str, base: str) -> float:
    """Returns the median of the ratios of each round."""
    return float(np.median(np.divide(seconds[name], seconds[base])))


def mean_kl(reference: np.ndarray, other: np.ndarray) -> float:
    """Mean KL divergence of softmax rows, in nats."""
    p, q = np.maximum(reference.astype(np.float64), 1e-30), np.maximum(other.astype(np.float64), 1e-30)
    return float(np.mean(np.sum(p * np.log(p / q), axis=1)))


def predict(graph: tf.Graph, images: np.ndarray, placeholder: str = INPUT, output: str = OUTPUT) -> np.ndarray:
    """Runs the model on all images."""
    with tf.compat.v1.Session(graph=graph) as session:
        parts = range(0, len(images), BATCH)
        return np.concatenate([session.run(f"{output}:0", {placeholder: images[i : i + BATCH]}) for i in parts])


def peak_memory() -> float:
    """Returns the most memory that the process has held so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def without(steps: Iterable[str]) -> dict[str, Any]:
    """Returns the settings, by key of config.json, that leave steps out."""
    return {key: value for step in steps for key, value in WITHOUT[step].items()}


def smooth_images(count: int, size: int, low: float, high: float, seed: int) -> np.ndarray:
    """Returns random images, float32 [count, size, size, 3], each from ``low`` to ``high``.

    They are noise in octaves, of which a finer one has the smaller amplitude, as in photographs.
    """
    generator = np.random.default_rng(seed)
    images = np.zeros([count, size, size, 3])
    for cells in (2, 4, 8, 16, 32, 64):
        noise = generator.normal(size=[count, cells, cells, 3]) / cells
        images += tf.image.resize(noise, [size, size], tf.image.ResizeMethod.BICUBIC).numpy()
    least, most = images.min(axis=(1, 2, 3), keepdims=True), images.max(axis=(1, 2, 3), keepdims=True)
    return (low + (high - low) * (images - least) / (most - least)).astype(np.float32)


class ReadyImages(AutoCalibrationEvaluatorBase):
    """An evaluator on images in memory, so that only the model is measured; it keeps the time of each evaluation."""

    def __init__(self, inputs: Inputs, metric: str, limit: float) -> None:
        """``metric`` is ``top-1`` (percent, may lose less than ``limit``) or ``KL`` (times 100, stays below it)."""
        self.images, self.labels = inputs.images
        self.metric = metric
        self.limit = limit
        self.seconds: list[float] = []
        self.softmax: list[np.ndarray] = []

    def calibration(self, graph: tf.Graph, outputs: list[str]) -> None:
        """Runs one batch."""
        with tf.compat.v1.Session(graph=graph) as session:
            session.run(f"{outputs[0]}:0", {INPUT: self.images[:BATCH]})

    def evaluate(self, graph: tf.Graph, outputs: list[str]) -> float:
        """Returns the metric."""
        start = time.perf_counter()
        self.softmax.append(predict(graph, self.images))
        self.seconds.append(time.perf_counter() - start)
        if self.metric == "KL":
            return 100 * mean_kl(self.softmax[0], self.softmax[-1])
        return self.top1(self.softmax[-1])

    def top1(self, softmax: np.ndarray) -> float:
        """Accuracy in percent."""
        return 100 * float(np.mean(softmax.argmax(axis=1) == self.labels))

    def metric_eval(self, original_metric: float, new_metric: float) -> tuple[bool, float]:
        """Compares the metric with the limit."""
        if self.metric == "KL":
            return new_metric < self.limit, new_metric - original_metric
        loss = original_metric - new_metric
        return loss < self.limit or loss <= 0, loss


def quantize(
    inputs: Inputs, evaluator: ReadyImages, *, as_original: bool, **options: str
) -> amct.AutoCalibrationResult:
    """Runs the tool in the current folder, with all of its steps, or with the algorithms of the original toolkit."""
    amct.create_quant_config("config.json", load_graph(inputs.model))
    config = json.loads(Path("config.json").read_text())
    Path("config.json").write_text(json.dumps({**config, **without(STEPS if as_original else ())}))
    return amct.accuracy_based_auto_calibration(
        str(inputs.model), [OUTPUT], "record.txt", "config.json", "net", evaluator, **options
    )


def report(name: str, rows: Sequence[Mapping[str, Any]], note: str = "") -> None:
    """Prints a table, and writes it with date, machine and versions to ``outputs/benchmarks/<name>.json``."""
    print(f"\n{name}", *table(rows), sep="\n")
    if note:
        print(note)
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {"benchmark": name, **environment(), "rows": list(rows), "note": note}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def publish(program: str, *tables: Sequence[Mapping[str, Any]], inputs: Inputs | None = None) -> None:
    """Writes tables with date and machine into the section of a program in benchmarks/README.md.

    The page is about the default inputs: figures of others do not get there.
    """
    if inputs is None or inputs.are_default:
        lines = [line for rows in tables for line in ("", *table(rows))]
        write_section(PAGE, program, ["", measured_on(), *lines, ""])


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the lines of a table in Markdown; a row may lack columns of others."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_text(row.get(key, "")) for key in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    return [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |"
        for line in (columns, ["-" * width for width in widths], *cells)
    ]


def environment() -> dict[str, Any]:
    """Date, machine and versions."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{platform.machine()}, {plural(len(os.sched_getaffinity(0)), 'core')}, {platform.system()}",
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
    }


def measured_on(**more: str) -> str:
    """Returns the sentence that says when and with what a table was measured; ``more`` are versions by name."""
    return f"Measured on {setting(**more)}."


def setting(**more: str) -> str:
    """Returns date, machine and versions as a list in words; ``more`` are further versions by name."""
    found = environment()
    versions = {"Python": found["python"], "TensorFlow": found["tensorflow"], "NumPy": found["numpy"], **more}
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{found['date'][:10]}, {found['machine']}, {named}"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
