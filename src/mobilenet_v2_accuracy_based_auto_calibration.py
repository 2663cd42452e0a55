"""Accuracy-based automatic quantization of MobileNet V2 on ImageNet.

    python ./src/mobilenet_v2_accuracy_based_auto_calibration.py --dataset DIR

evaluates the float model, quantizes every layer to int8, evaluates again, and rolls the most sensitive layers back to
float until the loss of top-1 accuracy is within the target. DIR holds TFRecords in the standard ImageNet schema.

Exit codes: 0 the target is met; 1 an input cannot be used, or the run failed; 2 wrong arguments; 3 the best quantized
model, which is saved all the same, misses the target; 130 interrupted.

To use another data set or model, copy this file and edit "Constants" and "Preprocessing".
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# The package stands beside this folder; it need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import tensorflow as tf
from tqdm import tqdm

import amct_tensorflow as amct
from amct_tensorflow.common.auto_calibration import AutoCalibrationEvaluatorBase
from amct_tensorflow.graph.view import import_graph, read_graph_def
from amct_tensorflow.utils.log import LOGGER

tf1 = tf.compat.v1

# ------------------------------------------------------------------------------------------------- Constants

MODELS = ("./model/mobilenetv2_tf.pb", "./model/mobilenet_v2_1.0_224_frozen.pb")
OUTPUTS = ["MobilenetV2/Predictions/Reshape_1"]
RESULT_DIR = "./outputs/accuracy_based_auto_calibration"
CONFIG_FILE = f"{RESULT_DIR}/config.json"
RECORD_FILE = f"{RESULT_DIR}/record.txt"
SAVE_PREFIX = f"{RESULT_DIR}/mobilenet_v2"

DEFAULT_IMAGE_SIZE = 224  # where the model's own input size is unknown
CENTRAL_FRACTION = 0.875

TARGET_MET, FAILED, TARGET_MISSED, INTERRUPTED = 0, 1, 3, 130

# --------------------------------------------------------------------------------------------- Preprocessing
# This is the part to edit for another model: what happens to an image between the file and the model's input.


def preprocess(encoded: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Turns an encoded image into the model's input.

    Args:
        encoded: JPEG, PNG or whatever else ``tf.io.decode_image`` takes; scalar string.
        height: height of the model's input.
        width: width of the model's input.

    Returns:
        float32 [height, width, 3] in [-1, 1].
    """
    image = tf.cast(decode_central_crop(encoded), tf.float32)
    image = tf.raw_ops.ResizeBilinear(images=image[tf.newaxis], size=[height, width])[0]
    return image / 127.5 - 1.0


def decode_central_crop(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes the central part of an image to RGB, uint8; of a JPEG only that part is decoded."""

    def decode_jpeg() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(encoded)
        return tf.io.decode_and_crop_jpeg(encoded, central_window(shape[0], shape[1]), channels=3)

    def decode_other() -> tf.Tensor:
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        top, left, height, width = tf.unstack(central_window(tf.shape(image)[0], tf.shape(image)[1]))
        return image[top : top + height, left : left + width]

    return tf.cond(tf.io.is_jpeg(encoded), decode_jpeg, decode_other)


def central_window(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Returns [top, left, height, width] of the window that ``tf.image.central_crop`` takes."""
    size = tf.stack([height, width])
    margin = tf.cast(tf.cast(size, tf.float64) * (1 - CENTRAL_FRACTION) / 2, tf.int32)
    return tf.concat([margin, size - 2 * margin], axis=0)


# --------------------------------------------------------------------------------------------------- Dataset


class DatasetError(ValueError):
    """The data set cannot be used; the message names file and record."""


@dataclass(frozen=True)
class ImageRecords:
    """A data set that has been looked through.

    Attributes:
        files: TFRecord files, sorted by name.
        count: number of images to use.
        largest_label: largest label among all images.
        num_parallel_reads: number of files read at a time.
    """

    files: tuple[str, ...]
    count: int
    largest_label: int
    num_parallel_reads: int

    def batches(self, batch_size: int, height: int, width: int) -> tf.data.Dataset:
        """Returns batches of (images, labels) in a fixed order, each image once; the last may be smaller."""

        def parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            encoded, label = parse_records(record)
            return preprocess(encoded, height, width), label

        # Reading and decoding run ahead of the model.
        return (
            tf.data.TFRecordDataset(list(self.files), num_parallel_reads=self.num_parallel_reads)
            .take(self.count)
            .map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            .batch(batch_size)
            .prefetch(2)
        )


def parse_records(records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns encoded images ('' where missing) and labels (-1 where missing) of serialized examples."""
    features = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string, ""),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64, -1),
    }
    parse = tf.io.parse_single_example if records.shape.rank == 0 else tf.io.parse_example
    example = parse(records, features)
    return example["image/encoded"], example["image/class/label"]


def open_dataset(folder: str, keyword: str, num_images: int | None, num_parallel_reads: int) -> ImageRecords:
    """Looks through a data set before hours are spent on it: counts the images and checks every record.

    Raises:
        DatasetError: there is no image, or a file or record is damaged.
    """
    path = Path(folder)
    if not path.is_dir():
        raise DatasetError(f"{folder} is not a directory. Give the directory of the TFRecord files with --dataset.")
    files = sorted(str(file) for file in path.iterdir() if file.is_file() and keyword in file.name)
    if not files:
        wanted = f" whose name contains {keyword!r}" if keyword else ""
        raise DatasetError(f"{folder} holds no file{wanted}. Give the directory of the TFRecord files.")
    count, largest_label = 0, -1
    with progress("data set", len(files), "file") as bar:
        for file in files:
            for _, labels in checked_records(file):
                count += len(labels)
                largest_label = max(largest_label, int(labels.max()))
            bar.update()
    if count == 0:
        raise DatasetError(f"The files in {folder} hold no record. Give TFRecord files with images.")
    return ImageRecords(tuple(files), min(count, num_images or count), largest_label, num_parallel_reads)


def checked_records(file: str, batch_size: int = 64) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the encoded images and labels of a file.

    Raises:
        DatasetError: the file, or one of its records, is damaged.
    """
    done = 0
    try:
        for records in tf.data.TFRecordDataset(file).batch(batch_size):
            encoded, labels = (tensor.numpy() for tensor in parse_records(records))
            for index, (image, label) in enumerate(zip(encoded, labels, strict=True), start=done):
                if not image or label < 0:
                    missing = "image/class/label" if image else "image/encoded"
                    raise DatasetError(f"{file}, record {index}: {missing} is missing. Write the record anew.")
            yield encoded, labels
            done += len(labels)
    except tf.errors.InvalidArgumentError as error:
        if batch_size > 1:  # find out which record it is
            for _ in checked_records(file, batch_size=1):
                pass
        raise DatasetError(f"{file}, record {done}: this is no tf.train.Example. Write the record anew.") from error
    except tf.errors.OpError as error:
        raise DatasetError(
            f"{file}: the file is truncated or no TFRecord file (after record {done}). Copy it again, or choose the "
            "files with --keyword."
        ) from error


def find_undecodable_image(files: Sequence[str]) -> str:
    """Returns which record the decoder fails on; for use after it has failed."""
    for file in files:
        index = 0
        for encoded, _ in checked_records(file):
            for image in encoded:
                try:
                    decode_central_crop(tf.constant(image))
                except (tf.errors.OpError, ValueError):
                    return f"{file}, record {index}: the image cannot be decoded. Replace it by a JPEG or PNG."
                index += 1
    return "An image cannot be decoded."


# -------------------------------------------------------------------------------------------------- Progress


class PlainLines(tqdm):
    """A progress bar that writes whole lines, for log files and pipes."""

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Writes the state as a line of its own."""
        print(msg or str(self), file=sys.stderr, flush=True)
        return True


def progress(title: str, total: int, unit: str) -> tqdm:
    """Returns a progress bar with speed and time left; a line every five seconds where there is no terminal."""
    if sys.stderr.isatty():
        return tqdm(desc=title, total=total, unit=unit)
    form = "{desc}: {n_fmt} of {total_fmt}, {rate_fmt}, {elapsed} elapsed, {remaining} left"
    # What tqdm writes besides the lines (carriage returns) goes nowhere.
    return PlainLines(desc=title, total=total, unit=unit, mininterval=5, bar_format=form, file=StringIO())


# ------------------------------------------------------------------------------------------------- Evaluator


class MobileNetV2Evaluator(AutoCalibrationEvaluatorBase):
    """Runs and judges MobileNet V2 by its top-1 accuracy.

    Args:
        images: the data set.
        batch_size: number of images per batch.
        calibration_batches: number of batches that ``calibration`` runs.
        expected_acc_loss: the loss of top-1 accuracy that is still acceptable is less than this, in points.
    """

    def __init__(
        self, images: ImageRecords, batch_size: int, calibration_batches: int, expected_acc_loss: float
    ) -> None:
        available = -(-images.count // batch_size)
        if calibration_batches > available:
            raise DatasetError(
                f"Calibration needs {calibration_batches} batches of {batch_size}; there are {images.count} images. "
                "Lower --calibration_batches."
            )
        self._images = images
        self._batch_size = batch_size
        self._calibration_batches = calibration_batches
        self._expected_acc_loss = expected_acc_loss

    def calibration(self, graph: tf.Graph, outputs: list[str]) -> None:
        """Runs the first batches."""
        total = min(self._calibration_batches * self._batch_size, self._images.count)
        for _ in self._run(graph, outputs, "calibration", total):
            pass

    def evaluate(self, graph: tf.Graph, outputs: list[str]) -> float:
        """Returns the top-1 accuracy in percent."""
        quantized = any(operation.type == "AscendQuant" for operation in graph.get_operations())
        title = "quantized model" if quantized else "original model"
        correct = 0
        for predictions, labels in self._run(graph, outputs, title, self._images.count):
            correct += int(np.sum(np.argmax(predictions, axis=-1) == labels))
        return 100.0 * correct / self._images.count

    def metric_eval(self, original_metric: float, new_metric: float) -> tuple[bool, float]:
        """Returns whether the loss of accuracy is acceptable, and the loss in points."""
        loss = original_metric - new_metric
        # A model that has lost nothing is acceptable even for a target of 0: the original itself must be.
        return loss < self._expected_acc_loss or loss <= 0, loss

    def _run(
        self, graph: tf.Graph, outputs: list[str], title: str, total: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Runs the first ``total`` images through a model; yields predictions and labels batch by batch."""
        with graph.as_default():
            images = find_input(graph)
            height, width = (size or DEFAULT_IMAGE_SIZE for size in input_size(images))
            dataset = self._images.batches(self._batch_size, height, width)
            next_batch = tf1.data.make_one_shot_iterator(dataset).get_next()
            output = graph.get_tensor_by_name(f"{outputs[0]}:0")
            initialize = tf1.global_variables_initializer()
            done = 0
            with tf1.Session(graph=graph) as session, progress(title, total, "image") as bar:
                session.run(initialize)
                while done < total:
                    batch, labels = self._fetch(session, next_batch)
                    predictions = session.run(output, {images: batch})
                    self._check_labels(predictions)
                    yield predictions, labels
                    done += len(labels)
                    bar.update(len(labels))

    def _fetch(self, session: tf1.Session, next_batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[np.ndarray, np.ndarray]:
        try:
            return session.run(next_batch)
        except tf.errors.OutOfRangeError as error:
            raise DatasetError("The data set has become smaller during the run. Start again.") from error
        except tf.errors.OpError as error:
            raise DatasetError(find_undecodable_image(self._images.files)) from error

    def _check_labels(self, predictions: np.ndarray) -> None:
        classes = predictions.shape[-1]
        if self._images.largest_label >= classes:
            raise DatasetError(
                f"The data set has label {self._images.largest_label}, but the model tells {classes} classes apart "
                f"(labels 0 to {classes - 1}). Use the data set that the model was trained for, and its labels."
            )


def find_input(graph: tf.Graph) -> tf.Tensor:
    """Returns the model's only placeholder."""
    found = [operation.outputs[0] for operation in graph.get_operations() if operation.type == "Placeholder"]
    if len(found) != 1:
        names = ", ".join(tensor.name for tensor in found) or "none"
        raise ValueError(f"The model must have one placeholder, its images; it has: {names}.")
    return found[0]


def input_size(images: tf.Tensor) -> tuple[int | None, int | None]:
    """Returns height and width of the model's input, None where unknown."""
    return (None, None) if images.shape.rank != 4 else (images.shape[1], images.shape[2])


# ------------------------------------------------------------------------------------------------- Arguments


def positive(text: str) -> int:
    """Parses an integer above 0."""
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{value} is not above 0")
    return value


def target(text: str) -> float:
    """Parses a loss of accuracy, in points: finite, 0 or more."""
    value = float(text)
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and 100")
    return value


def default_model() -> str:
    """Returns the first of the usual model files that is there, or else the last."""
    return next((model for model in MODELS if Path(model).exists()), MODELS[-1])


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    summary, _, details = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", required=True, help="directory of TFRecord files in the standard ImageNet schema (required)")
    add("--keyword", default="", help="use only files whose name contains this (default: all files)")
    add("--num_parallel_reads", type=positive, default=4, help="number of files read at a time (default: 4)")
    add("--batch_size", type=positive, default=32, help="number of images per batch (default: 32)")
    add("--model", default=None, help=f"frozen model (default: {MODELS[0]} if it is there, else {MODELS[1]})")
    add("--expected_acc_loss", type=target, default=0.5, help="loss of top-1 must be below this (default: 0.5 points)")
    add("--num_images", type=positive, default=None, help="use only the first images (default: all)")
    add("--calibration_batches", type=positive, default=1, help="number of batches to calibrate with (default: 1)")
    add("--strategy", choices=["BinarySearch"], default="BinarySearch", help="search (default: BinarySearch)")
    add(
        "--sensitivity", choices=["CosineSimilarity"], default="CosineSimilarity",
        help="ranking of the layers (default: CosineSimilarity)",
    )  # fmt: skip
    return parser.parse_args(arguments)


# ------------------------------------------------------------------------------------------------------ Main


def quantize(arguments: argparse.Namespace) -> bool:
    """Does the job; returns whether the target is met."""
    model = arguments.model or default_model()
    graph = import_graph(read_graph_def(model), model)
    images = open_dataset(arguments.dataset, arguments.keyword, arguments.num_images, arguments.num_parallel_reads)
    LOGGER.info("%d images in %d files; model %s", images.count, len(images.files), model)
    evaluator = MobileNetV2Evaluator(
        images, arguments.batch_size, arguments.calibration_batches, arguments.expected_acc_loss
    )
    amct.create_quant_config(CONFIG_FILE, graph, batch_num=arguments.calibration_batches)
    result = amct.accuracy_based_auto_calibration(
        model_file=model,
        outputs=OUTPUTS,
        record_file=RECORD_FILE,
        config_file=CONFIG_FILE,
        save_dir=SAVE_PREFIX,
        evaluator=evaluator,
        strategy=arguments.strategy,
        sensitivity=arguments.sensitivity,
    )
    return result.target_met


def main() -> int:
    """Runs the program; returns its exit code."""
    arguments = parse_arguments()
    amct.set_logging_level(print_level="info", save_level="info")
    try:
        return TARGET_MET if quantize(arguments) else TARGET_MISSED
    except KeyboardInterrupt:
        LOGGER.error("Interrupted; the results of earlier runs are as they were.")
        return INTERRUPTED
    except (amct.AmctError, DatasetError, OSError, tf.errors.OpError) as error:
        LOGGER.error("%s", error)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
