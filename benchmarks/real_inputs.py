"""What the real networks are fed with: photographs, persons and faces in them, music, DNA; all of fixed seeds.

The photographs are the ImageNet sample that the tests on real models use; ``networks/persons.json`` beside it tells
where persons are in them: [photograph, left, top, right, bottom], in shares of width and height.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

from measuring import DATASET, SHARED

import numpy as np
import tensorflow as tf

RATE = 22050  # of music, in Hz


@cache
def photographs() -> list[np.ndarray]:
    """Returns all photographs, uint8 [height, width, 3]."""
    files = map(str, sorted(DATASET.glob("validation-*")))
    records = (record for file in files for record in tf.data.TFRecordDataset(file).as_numpy_iterator())
    features = (tf.train.Example.FromString(record).features.feature for record in records)
    encoded = (each["image/encoded"].bytes_list.value[0] for each in features)
    return [tf.io.decode_image(each, 3, expand_animations=False).numpy() for each in encoded]


def crop(image: np.ndarray, center: tuple[float, float], side: float, size: int) -> np.ndarray:
    """Cuts a square out of an image, whose edges are repeated outside of it.

    Args:
        image: [height, width, 3].
        center: x and y, in pixels.
        side: of the square, in pixels.
        size: that it is resized to.

    Returns:
        float32 [size, size, 3].
    """
    left, top = (round(each - side / 2) for each in center)
    side = max(1, round(side))
    height, width = image.shape[:2]
    border = max(0, -left, -top, left + side - width, top + side - height)
    padded = np.pad(image, ((border, border), (border, border), (0, 0)), mode="edge")
    part = padded[top + border : top + border + side, left + border : left + border + side]
    return tf.image.resize(part.astype(np.float32), (size, size)).numpy()


def photos(size: int, count: int = 64) -> np.ndarray:
    """Returns the middles of photographs, float32 [count, size, size, 3], 0 to 255."""
    chosen = np.random.default_rng(2).permutation(len(photographs()))[:count]
    images = [photographs()[index] for index in chosen]
    return np.stack([crop(each, (each.shape[1] / 2, each.shape[0] / 2), min(each.shape[:2]), size) for each in images])


def persons(size: int, count: int = 64) -> np.ndarray:
    """Returns persons with a margin of a quarter, float32 [count, size, size, 3], 0 to 255."""
    boxes = json.loads((SHARED / "networks" / "persons.json").read_text())
    chosen = np.random.default_rng(1).permutation(len(boxes))[:count]
    found = []
    for index, *box in (boxes[each] for each in chosen):
        image = photographs()[index]
        left, top, right, bottom = np.array(box) * np.tile(image.shape[1::-1], 2)
        side = 1.25 * max(right - left, bottom - top)
        found.append(crop(image, ((left + right) / 2, (top + bottom) / 2), side, size))
    return np.stack(found)


def faces(find: Callable[[np.ndarray], np.ndarray], file: Path, count: int = 64) -> np.ndarray:
    """Returns the likeliest faces in pictures of persons and in photographs, in the middle half of each picture.

    Args:
        find: returns the faces in a picture float32 [512, 512, 3]: [n, 5], left, top, right, bottom in shares of it,
            and how likely each is.
        file: where they are kept, so that they are looked for once.
        count: how many faces.

    Returns:
        uint8 [count, 384, 384, 3], in random order.
    """
    if not file.exists():
        pictures = [each.astype(np.uint8) for each in (*persons(512, 1000), *photos(512, 200))]
        found = [(score, index, box) for index, picture in enumerate(pictures) for *box, score in find(picture)]
        likeliest = sorted(found, key=lambda each: -each[0])[:count]
        chosen = [likeliest[each] for each in np.random.default_rng(3).permutation(len(likeliest))]
        squares = [(pictures[index], 512 * np.array(box)) for _, index, box in chosen]
        crops = [crop(picture, ((x0 + x1) / 2, (y0 + y1) / 2), 2 * max(x1 - x0, y1 - y0), 384)
                 for picture, (x0, y0, x1, y1) in squares]  # fmt: skip
        np.save(file, np.stack(crops).round().astype(np.uint8))
    return np.asarray(np.load(file))


@cache
def music(samples: int, count: int = 64) -> np.ndarray:
    """Returns pieces of notes with harmonics, that fade, float32 [count, samples, 1], -1 to 1, at ``RATE``."""
    random = np.random.default_rng(0)
    return np.stack([_piece(random, samples) for _ in range(count)]).astype(np.float32)[..., None]


def _piece(random: np.random.Generator, samples: int) -> np.ndarray:
    sound = random.normal(0, 0.002, samples)
    for _ in range(random.integers(3, 12)):
        pitch = 440 * 2 ** ((random.integers(36, 88) - 69) / 12)
        start = random.integers(0, samples - samples // 5)
        time = np.arange(min(random.integers(samples // 7, samples), samples - start)) / RATE
        envelope = np.exp(-time * random.uniform(1, 5)) * np.minimum(1, time / 0.01)
        for harmonic in range(1, 9):
            loudness = random.uniform(0.02, 0.2) / harmonic ** random.uniform(1, 1.8)
            if pitch * harmonic < RATE / 2:
                phase = random.uniform(0, 2 * np.pi)
                wave = np.sin(2 * np.pi * pitch * harmonic * time + phase)
                sound[start : start + len(time)] += loudness * envelope * wave
    return sound / max(1.0, np.abs(sound).max())


def dna(length: int, count: int = 64) -> np.ndarray:
    """Returns random genes as one letter of four per place, float32 [count, length, 4].

    Exons of 100 to 300 letters stand between introns of 200 to 900, each of which begins and ends as nearly all do:
    GTAAGT, and a row of pyrimidines before CAG.
    """
    random = np.random.default_rng(4)
    return np.stack([np.eye(4, dtype=np.float32)[_gene(random, length)] for _ in range(count)])


def _gene(random: np.random.Generator, length: int) -> np.ndarray:
    a, c, g, t = range(4)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < length:
        parts.append(random.choice(4, random.integers(100, 300), p=[0.25, 0.25, 0.27, 0.23]))
        middle = random.choice(4, random.integers(200, 900), p=[0.29, 0.2, 0.2, 0.31])
        pyrimidines = random.choice([c, t], 18, p=[0.4, 0.6])
        branch = [t, a, c, t, a, a, c]
        parts += [np.array([g, t, a, a, g, t]), middle, np.array(branch), pyrimidines, np.array([c, a, g])]
    return np.concatenate(parts)[:length]
