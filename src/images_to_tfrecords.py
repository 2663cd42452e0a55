"""Writes images as TFRecord files of the schema that the sample reads.

    python ./src/images_to_tfrecords.py --images DIR --output DIR

DIR holds one folder of images per class. The classes get the labels 0, 1, ... in the order of their names, or in that
of a file that lists them (--classes). Instead of folders, a file may list images and labels (--list): one image per
line, its path and its label, apart by a blank, a comma or a tab.

Images (JPEG, PNG, BMP, GIF) are stored as they are. One that cannot be decoded is left out and named at the end.

Exit codes: 0 all images were written; 1 an input cannot be used, or no image is left; 2 wrong arguments; 3 some images
were left out; 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

# The package stands next to src/; this finds it even where it is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from amct_tensorflow.console import ProgressBar, import_tensorflow, quiet_tensorflow

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif"}
IMAGES_PER_SHARD = 1024
MOST_DIGITS = 18  # of a label, which is stored as int64


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line; exits with code 2 if it is wrong."""
    parser = argparse.ArgumentParser(description="Write images as TFRecord files that the sample reads.")
    add = parser.add_argument
    add("--images", metavar="DIR", type=Path, help="a folder of images per class; with --list, where its paths start")
    add("--output", metavar="DIR", type=Path, required=True, help="where to write (required)")
    add("--classes", metavar="FILE", type=Path, help="class names in the order of their labels, one per line")
    add("--list", metavar="FILE", type=Path, help="images and labels, one per line, instead of folders")
    add("--first_label", metavar="N", type=int, choices=[0, 1], default=0, help="label of the first class (default: 0)")
    add("--shards", metavar="N", type=int, help=f"number of files (default: one per {IMAGES_PER_SHARD} images)")
    add("--name", default="validation", help="first part of the names of the files (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.images is None and arguments.list is None:
        parser.error("give the images with --images or --list")
    if arguments.shards is not None and not 1 <= arguments.shards <= 99999:
        parser.error("--shards must lie between 1 and 99999")
    if not arguments.name or arguments.name != Path(arguments.name).name or arguments.name.startswith("."):
        parser.error(f"--name {arguments.name!r} is not the beginning of the name of a file; the folder is --output")
    return arguments


if __name__ == "__main__":
    parse_arguments()  # wrong ones show before TensorFlow is imported, which takes seconds
    quiet_tensorflow()
    import_tensorflow()

import tensorflow as tf

from amct_tensorflow.log import printable


class InputError(ValueError):
    """The images cannot be used; the message says what to do."""


@dataclass(frozen=True)
class LabelledImage:
    """An image file, its label, and the name of its class if that is known."""

    path: Path
    label: int
    text: str = ""


def images_in_folders(folder: Path, classes_file: Path | None, first_label: int) -> list[LabelledImage]:
    """Lists the images of ``folder/CLASS/*``, class by class.

    Raises:
        InputError: there is no such folder, class or image.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder. Give the folder that holds one folder of images per class.")
    found = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    classes = found if classes_file is None else _lines(classes_file)
    if not classes:
        raise InputError(f"{folder} holds no folder. Put the images of each class into a folder of their own.")
    missing = sorted(set(classes) - set(found))
    if missing:
        raise InputError(f"{folder} has no folder {missing[0]!r}, which {classes_file} lists. Mend the list.")
    return [
        LabelledImage(path, label, name)
        for label, name in enumerate(classes, first_label)
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in SUFFIXES
    ]


def images_in_list(list_file: Path, folder: Path | None) -> list[LabelledImage]:
    """Lists the images that a file names; relative paths start at ``folder``, or where the list is.

    Raises:
        InputError: the file cannot be read, or a line is no path and label.
    """
    base = folder or list_file.parent
    images = []
    for number, line in enumerate(_lines(list_file), 1):
        path, _, label = line.replace(",", " ").replace("\t", " ").strip().rpartition(" ")
        if not path.strip() or not label.isdecimal() or len(label) > MOST_DIGITS:
            raise InputError(f"{list_file}, line {number}: {line!r} is not a path and a label (a whole number).")
        images.append(LabelledImage(base / path.strip(), int(label)))
    return images


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}. Give a text file.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def make_example(image: LabelledImage) -> bytes:
    """Returns the serialized example of an image.

    Raises:
        InputError: the file cannot be read or decoded; the message is the reason.
    """
    try:
        encoded = image.path.read_bytes()
        decoded = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    except OSError as error:
        raise InputError(error.strerror or str(error)) from error
    except ValueError as error:  # no file can have this name
        raise InputError(str(error)) from error
    except tf.errors.OpError as error:
        raise InputError("it cannot be decoded") from error
    height, width, channels = decoded.shape
    return serialize_example(
        {
            "image/encoded": encoded,
            "image/format": b"JPEG" if encoded.startswith(b"\xff\xd8") else image.path.suffix[1:].upper().encode(),
            "image/height": height,
            "image/width": width,
            "image/channels": channels,
            "image/colorspace": b"RGB",
            "image/filename": os.fsencode(image.path.name),
            "image/class/label": image.label,
            "image/class/text": os.fsencode(image.text),
        }
    )


def serialize_example(values: Mapping[str, int | bytes]) -> bytes:
    """Returns the serialized example with these features; equal values give equal bytes."""
    features = {
        key: tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        if isinstance(value, int)
        else tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for key, value in values.items()
    }
    return bytes(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True))


def write_shards(images: Sequence[LabelledImage], output: Path, name: str, shards: int) -> list[str]:
    """Writes the shards at once, each whole or not at all.

    Every shard gets every so manyth image, so that each holds all classes.

    Returns:
        Per image that was left out, its path and the reason.
    """
    output.mkdir(parents=True, exist_ok=True)
    parts = [images[index::shards] for index in range(shards)]
    files = [output / f"{name}-{index:05}-of-{shards:05}" for index in range(shards)]
    with ProgressBar("writing", len(images)) as progress, ThreadPoolExecutor() as pool:
        skipped = pool.map(lambda job: list(_write_shard(*job, progress)), zip(parts, files, strict=True))
        return [line for lines in skipped for line in lines]


def _write_shard(images: Sequence[LabelledImage], file: Path, progress: ProgressBar) -> Iterator[str]:
    """Writes one shard; yields what was left out."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with tf.io.TFRecordWriter(os.fsencode(temporary)) as writer:
            for image in images:
                try:
                    writer.write(make_example(image))
                except InputError as error:
                    yield f"{image.path}: {error}"
                progress.update()
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the files; returns the exit code."""
    arguments = parse_arguments(argv)
    try:
        if arguments.list is not None:
            images = images_in_list(arguments.list, arguments.images)
        else:
            images = images_in_folders(arguments.images, arguments.classes, arguments.first_label)
        if not images:
            raise InputError(f"There is no image ({', '.join(sorted(SUFFIXES))}) in {arguments.images}.")
        shards = min(arguments.shards or -(-len(images) // IMAGES_PER_SHARD), len(images))
        skipped = write_shards(images, arguments.output, arguments.name, shards)
    except KeyboardInterrupt:
        print("Interrupted; files that were complete are in place.", file=sys.stderr)
        return 130
    except (InputError, OSError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1
    except tf.errors.OpError as error:
        print(f"error: {printable(error.message)}. Choose another --output, or make room there.", file=sys.stderr)
        return 1
    for line in skipped:
        print(f"left out: {printable(line)}", file=sys.stderr)
    folder = printable(str(arguments.output))
    print(f"{len(images) - len(skipped)} of {len(images)} images written to {shards} files in {folder}")
    if len(skipped) == len(images):
        return 1
    return 3 if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
