"""Quantizes MobileNet V2 to int8, keeping as many layers in float as its ImageNet accuracy requires.

Run it from the project root:

    python ./src/mobilenet_v2_accuracy_based_auto_calibration.py --dataset DIR

DIR holds ImageNet images in TFRecord files of the standard schema. To quantize another model, or to use other data,
copy this file and edit the constants, ``preprocess`` and, if the metric differs, ``MobileNetV2Evaluator``.

Exit codes: 0 the quantized model meets the target; 1 an input cannot be used, or the run failed; 2 wrong arguments;
3 no quantized model meets the target (the best one is saved); 130 interrupted with Ctrl-C; 143 ended by SIGTERM. A run
that was cut off, in whatever way, goes on with --resume.
"""

import argparse
import json
import math
import os
import re
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

# The package stands next to src/; this finds it even where it is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow reads it while it is imported

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

import amct_tensorflow as amct
from amct_tensorflow.common.auto_calibration import AutoCalibrationEvaluatorBase
from amct_tensorflow.console.progress_bar import ProgressBar
from amct_tensorflow.console.signals import Terminated, raise_on_signals
from amct_tensorflow.errors import AmctError, EvaluatorError, ModelError, ModelNotFoundError
from amct_tensorflow.graph.model_file import import_graph, read_model
from amct_tensorflow.log import LOG_FILE, log_for
from amct_tensorflow.utils.log import LOGGER

# ---------------------------------------------------------------------------------------------------- Constants

MODEL_FILES = ("./model/mobilenetv2_tf.pb", "./model/mobilenet_v2_1.0_224_frozen.pb")
OUTPUT = "MobilenetV2/Predictions/Reshape_1"
CONFIG_FILE = "./outputs/accuracy_based_auto_calibration/config.json"
RECORD_FILE = "./outputs/accuracy_based_auto_calibration/record.txt"
SAVE_DIR = "./outputs/accuracy_based_auto_calibration/mobilenet_v2"  # a folder and the prefix of the files in it

IMAGE_KEY = "image/encoded"
LABEL_KEY = "image/class/label"
DEFAULT_IMAGE_SIZE = 224  # where the model leaves its input size open
CENTRAL_FRACTION = 0.875

# Records are taken from this many files in turn, so that the first images (those used for calibration) are mixed even
# if each file holds one class. It is no argument, because the order of the images, and so the result, depends on it.
FILES_IN_TURN = 16
PARALLEL_IMAGES = 2 * (os.cpu_count() or 1)  # prepared at a time; with one per core the cores would have to wait
SCAN_BATCH_SIZE = 32
RECORD_FRAME = 16  # bytes of a TFRecord beside its data: length and two checksums

# ------------------------------------------------------------------------------------------------ Preprocessing
# Edit this part for another model: it must do exactly what was done to the images when the model was trained.


def preprocess(encoded: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Turns an encoded image (JPEG, PNG, BMP, or the first frame of a GIF) into an input of the model.

    Returns:
        A float32 tensor [height, width, 3] with values from -1 to 1.
    """
    # Decoding only the crop of a JPEG would be faster, but gives other pixels at its right edge.
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    # TensorFlow resizes floats faster than bytes, to the same values.
    image = tf.cast(tf.image.central_crop(image, CENTRAL_FRACTION), tf.float32)
    # The model was trained with the sampling points of TensorFlow 1; those of tf.image.resize lie half a pixel further.
    image = tf.compat.v1.image.resize(image, (height, width), tf.compat.v1.image.ResizeMethod.BILINEAR)
    return image / 127.5 - 1.0


# ------------------------------------------------------------------------------------------------------ Dataset


class DatasetError(ValueError):
    """The dataset cannot be used; the message says which file and record, and what to do."""


@dataclass(frozen=True)
class ImageDataset:
    """A dataset that was scanned.

    Attributes:
        counts: number of records to use, by file.
        largest_label: the largest label among them.
        num_parallel_reads: number of files that are read at once, at most ``FILES_IN_TURN``.
    """

    counts: Mapping[str, int]
    largest_label: int
    num_parallel_reads: int

    @property
    def num_images(self) -> int:
        """Number of images."""
        return sum(self.counts.values())

    def records(self, with_origin: bool = False) -> tf.data.Dataset:
        """Yields what ``read_records`` does, for the records to use."""
        return read_records(list(self.counts), self.num_parallel_reads, with_origin).take(self.num_images)

    def batches(self, height: int, width: int, batch_size: int) -> tf.data.Dataset:
        """Yields (images, labels); the last batch holds what is left."""

        def load(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            features = parse_examples(record)
            return preprocess(features[IMAGE_KEY], height, width), features[LABEL_KEY]

        # TensorFlow's autotuning would take seconds to stop when the session is closed.
        options = tf.data.Options()
        options.autotune.enabled = False
        images = self.records().map(load, num_parallel_calls=PARALLEL_IMAGES, deterministic=True)
        # TensorFlow makes room for a whole batch, however few images there are.
        return images.batch(min(batch_size, self.num_images)).prefetch(2).with_options(options)

    def find_undecodable(self, start: int, height: int, width: int) -> DatasetError:
        """Looks for the first image, not before number ``start``, that ``preprocess`` refuses."""
        with suppress(tf.errors.OpError):  # an error of the iteration itself is left to find_fault
            for record, file, index in self.records(with_origin=True).skip(start):
                try:
                    preprocess(parse_examples(record)[IMAGE_KEY], height, width)
                except tf.errors.OpError as error:
                    return DatasetError(
                        f"{os.fsdecode(file.numpy())}, record {index}: the image cannot be decoded "
                        f"({_first_line(error)}). Replace the image, or leave the record out."
                    )
        return find_fault(list(self.counts))


def find_files(directory: str, keyword: str = "") -> list[str]:
    """Lists the files of a dataset, sorted by name; hidden files and folders are left out.

    Raises:
        DatasetError: the directory does not exist, or holds no such file.
    """
    folder = Path(directory)
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise DatasetError(f"Dataset {directory} {problem}. Give the directory of the TFRecord files.")
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    files = [str(folder / name) for name in names if keyword in name]
    if not files:
        problem = f"none of its {len(names)} files has {keyword!r} in its name" if names else "it holds no file"
        raise DatasetError(f"Dataset {directory} cannot be used: {problem}. Give the directory of the TFRecord files.")
    return files


def read_records(files: Sequence[str], num_parallel_reads: int, with_origin: bool = False) -> tf.data.Dataset:
    """Yields serialized examples, always in the same order; or (example, its file, its index in the file)."""
    # Names need not be text, which TensorFlow would take them for.
    names = [os.fsencode(file) for file in files]

    def read_file(file: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(file)
        return records.enumerate().map(lambda index, record: (record, file, index)) if with_origin else records

    return tf.data.Dataset.from_tensor_slices(names).interleave(
        read_file,
        cycle_length=FILES_IN_TURN,
        num_parallel_calls=min(num_parallel_reads, FILES_IN_TURN),
        deterministic=True,
    )


def parse_examples(records: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses a record or a batch of them; a missing image becomes empty, a missing label -1."""
    features = {
        IMAGE_KEY: tf.io.FixedLenFeature([], tf.string, default_value=""),
        LABEL_KEY: tf.io.FixedLenFeature([], tf.int64, default_value=-1),
    }
    return tf.io.parse_example(records, features)


def scan_dataset(files: Sequence[str], num_images: int | None = None, num_parallel_reads: int = 4) -> ImageDataset:
    """Counts and checks the records of every file (the first ``num_images``, if given), without decoding images.

    Raises:
        DatasetError: a file is damaged, a record lacks its image or label, or there is no record.
    """

    def summarize(records: tf.Tensor, file: tf.Tensor, _index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        features = parse_examples(records)
        return file, tf.strings.length(records), tf.strings.length(features[IMAGE_KEY]), features[LABEL_KEY]

    counts = Counter(dict.fromkeys(files, 0))
    read = Counter(dict.fromkeys(files, 0))
    largest_label = -1
    records = read_records(files, num_parallel_reads, with_origin=True).take(num_images or tf.data.INFINITE_CARDINALITY)
    try:
        for names, lengths, sizes, labels in (
            records.batch(SCAN_BATCH_SIZE).map(summarize).prefetch(2).as_numpy_iterator()
        ):
            if np.any(sizes == 0) or np.any(labels < 0):
                raise find_fault(files)
            counts.update(map(os.fsdecode, names))
            for name, length in zip(names, lengths, strict=True):
                read[os.fsdecode(name)] += RECORD_FRAME + int(length)
            largest_label = max(largest_label, int(np.max(labels)))
    except (tf.errors.OpError, UnicodeDecodeError) as error:  # TensorFlow's message may quote a record's bytes
        raise find_fault(files) from error
    # A file that is cut off within the frame of a record just ends, as far as TensorFlow is concerned.
    if num_images is None and any(Path(file).stat().st_size != read[file] for file in files):
        raise find_fault(files)
    if not any(counts.values()):
        raise DatasetError(f"{files[0]} and the files beside it hold no records. Give TFRecord files with images.")
    return ImageDataset(counts, largest_label, num_parallel_reads)


def find_fault(files: Sequence[str]) -> DatasetError:
    """Reads record by record to find the fault that a batch failed on."""
    for file in files:
        index, position = 0, 0
        try:
            for record in tf.data.TFRecordDataset(os.fsencode(file)).as_numpy_iterator():
                if fault := _fault_of(record):
                    return DatasetError(f"{file}, record {index}: {fault}. Mend the record, or leave it out.")
                index += 1
                position += RECORD_FRAME + len(record)
            is_damaged = position != Path(file).stat().st_size
        except tf.errors.DataLossError:
            is_damaged = True
        except tf.errors.OpError as error:
            return DatasetError(f"{file}, record {index}: it cannot be read ({_first_line(error)}).")
        if is_damaged:
            what = "the file is truncated or corrupt here" if index else "this is no TFRecord file, or a damaged one"
            return DatasetError(f"{file}, record {index}: {what}. Replace it, or leave it out with --keyword.")
    return DatasetError("The dataset could not be read to its end; did it change meanwhile? Start again.")


def _fault_of(record: bytes) -> str | None:
    """Says what is wrong with a record, if anything."""
    try:
        feature = tf.train.Example.FromString(record).features.feature
    except DecodeError:
        return "this is no tf.train.Example"
    images, labels = feature[IMAGE_KEY].bytes_list.value, feature[LABEL_KEY].int64_list.value
    if len(images) != 1 or not images[0]:
        return f"{IMAGE_KEY} (the bytes of one image) is missing"
    if len(labels) != 1 or labels[0] < 0:
        return f"{LABEL_KEY} (one integer, at least 0) is {', '.join(map(str, labels)) or 'missing'}"
    return None


def _first_line(error: Exception) -> str:
    """Returns the message of an error without what TensorFlow says of its own nodes."""
    message = error.message if isinstance(error, tf.errors.OpError) else str(error)
    line = next(iter(message.splitlines()), type(error).__name__)
    return re.sub(r"{{.*?}} ?| \[Op:.*", "", line)


# ---------------------------------------------------------------------------------------------------- Evaluator


@dataclass
class MobileNetV2Evaluator(AutoCalibrationEvaluatorBase):
    """Top-1 accuracy in percent on a dataset; a quantized model must lose less than ``expected_acc_loss`` points."""

    dataset: ImageDataset
    batch_size: int = 32
    calibration_batches: int = 1
    expected_acc_loss: float = 0.5

    def __post_init__(self) -> None:
        self._correct = np.zeros(0, bool)

    def calibration(self, graph: tf.Graph, outputs: list[str]) -> None:
        """Runs the first batches of the data."""
        num_images = min(self.calibration_batches * self.batch_size, self.dataset.num_images)
        self._classify(graph, outputs, "calibration", num_images)

    def evaluate(self, graph: tf.Graph, outputs: list[str]) -> float:
        """Returns the top-1 accuracy in percent."""
        quantized = any(op.type.startswith("Ascend") for op in graph.get_operations())
        num_images = self.dataset.num_images
        title = "quantized model" if quantized else "original model"
        self._correct = self._classify(graph, outputs, title, num_images)
        return 100.0 * float(np.mean(self._correct))

    def identity(self) -> dict[str, object]:
        """Returns what the results depend on beside this file, so that a run is not resumed with other data."""
        return {
            "dataset": [
                [Path(file).name, Path(file).stat().st_size, count] for file, count in self.dataset.counts.items()
            ],
            "batch size": self.batch_size,
        }

    def image_results(self) -> np.ndarray:
        """Returns 100 for each image of the last evaluation that was classified correctly, 0 for the others."""
        return 100.0 * self._correct

    def metric_eval(self, original_metric: float, new_metric: float) -> tuple[bool, float]:
        """Returns whether the loss is small enough, and the loss in percentage points."""
        loss = original_metric - new_metric
        # Without the second condition a target of 0 would refuse even the original model itself.
        return loss < self.expected_acc_loss or loss <= 0, loss

    def _classify(self, graph: tf.Graph, outputs: list[str], title: str, num_images: int) -> np.ndarray:
        """Runs the model; returns for each image whether its label gets the highest score."""
        model_input, height, width = find_input(graph)
        scores = graph.get_tensor_by_name(f"{outputs[0]}:0")
        self._check_scores(scores.shape)
        with graph.as_default():
            batches = self.dataset.batches(height, width, self.batch_size)
            next_batch = tf.compat.v1.data.make_one_shot_iterator(batches).get_next()
            initialize = tf.compat.v1.global_variables_initializer()
        correct = []
        with (
            closing(tf.compat.v1.Session(graph=graph)) as session,
            ProgressBar(title, num_images) as progress,
            batches_fit(self.batch_size),
        ):
            session.run(initialize)
            while progress.n < num_images:
                try:
                    # The pipeline prepares the next batches while the model runs on this one.
                    images, labels = session.run(next_batch)
                except tf.errors.ResourceExhaustedError:
                    raise
                except tf.errors.OpError as error:
                    raise self.dataset.find_undecodable(progress.n, height, width) from error
                predictions = session.run(scores, {model_input: images})
                self._check_scores(tf.TensorShape(predictions.shape))
                correct.append(np.argmax(predictions, axis=1) == labels)
                progress.update(len(labels))
        return np.concatenate(correct)

    def _check_scores(self, shape: tf.TensorShape) -> None:
        """Checks that the model's output has a score for every label, as far as its shape is known."""
        if shape.rank not in (None, 2):
            raise ModelError(f"The model's output has the shape {shape}; it must be [images, classes].")
        classes = shape[1] if shape.rank else None
        if classes is not None and self.dataset.largest_label >= classes:
            raise DatasetError(
                f"The dataset has the label {self.dataset.largest_label}, but the model's {classes} classes are 0 to "
                f"{classes - 1}. Use the dataset that the model was trained for."
            )


@contextmanager
def batches_fit(batch_size: int) -> Iterator[None]:
    """Says what to do if there is not enough memory.

    Raises:
        EvaluatorError: there is not.
    """
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        raise EvaluatorError(
            f"There is not enough memory for batches of {batch_size} images. Lower --batch_size."
        ) from error


def find_input(graph: tf.Graph) -> tuple[tf.Tensor, int, int]:
    """Finds the model's only placeholder, and the height and width of the images it takes.

    Raises:
        ModelError: there is not exactly one, or it does not take batches of RGB images.
    """
    placeholders = [op.outputs[0] for op in graph.get_operations() if op.type == "Placeholder"]
    if len(placeholders) != 1:
        names = ", ".join(tensor.op.name for tensor in placeholders) or "none"
        raise ModelError(f"The model must have exactly one placeholder, for the images; it has: {names}.")
    tensor = placeholders[0]
    images, height, width, channels = tensor.shape if tensor.shape.rank == 4 else [None] * 4
    if tensor.dtype != tf.float32 or tensor.shape.rank not in (None, 4) or images or channels not in (None, 3):
        raise ModelError(
            f"Input {tensor.op.name!r} takes {tensor.dtype.name} {tensor.shape}; it must take batches of any size, "
            "float32 [None, height, width, 3]."
        )
    return tensor, height or DEFAULT_IMAGE_SIZE, width or DEFAULT_IMAGE_SIZE


# ---------------------------------------------------------------------------------------------------- Arguments


def positive_int(text: str) -> int:
    """Converts an argument to an int above 0."""
    if not text.isdecimal() or len(text) > 10 or not 0 < int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {2**31 - 1}")
    return int(text)


def non_negative_float(text: str) -> float:
    """Converts an argument to a finite float that is at least 0."""
    value = math.nan
    with suppress(ValueError):
        value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return value


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line; exits with code 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        description="Quantize MobileNet V2, rolling layers back to float until its top-1 accuracy meets the target.",
        usage="%(prog)s --dataset DIR [options]",
        epilog="exit codes: 0 target met; 1 bad input or failed run; 2 wrong arguments; 3 the best quantized model "
        "misses the target; 130 interrupted with Ctrl-C; 143 ended by SIGTERM",
    )
    add = parser.add_argument
    add("--dataset", metavar="DIR", required=True, help=f"TFRecord files with {IMAGE_KEY} and {LABEL_KEY} (required)")
    add("--keyword", metavar="TEXT", default="", help="use only files whose name contains TEXT (default: all files)")
    add("--num_parallel_reads", metavar="N", type=positive_int, default=4,
        help=f"files read at once, no more than {FILES_IN_TURN} (default: 4)")  # fmt: skip
    add("--batch_size", metavar="N", type=positive_int, default=32, help="images per batch (default: 32)")
    add("--model", metavar="PB", help=f"frozen model (default: {MODEL_FILES[0]} if it exists, else {MODEL_FILES[1]})")
    add("--expected_acc_loss", metavar="POINTS", type=non_negative_float, default=0.5,
        help="target: lose less top-1 accuracy than this, in percentage points (default: 0.5)")  # fmt: skip
    add("--num_images", metavar="N", type=positive_int, help="use only the first N images (default: all)")
    add("--calibration_batches", metavar="N", type=positive_int, default=1, help="batches to calibrate on (default: 1)")
    add("--config_defination", metavar="CFG",
        help="simplified configuration of how to quantize (default: every layer, every default)")  # fmt: skip
    add("--strategy", choices=["PredictiveSearch", "BinarySearch"], default="PredictiveSearch",
        help="search strategy (default: %(default)s)")  # fmt: skip
    add("--sensitivity", choices=["OutputDivergence", "CosineSimilarity"], default="OutputDivergence",
        help="measure that ranks the layers (default: %(default)s)")  # fmt: skip
    add("--resume", action="store_true", help="go on with a run that was cut off (default: start afresh)")
    arguments = parser.parse_args(argv)
    if arguments.config_defination and arguments.calibration_batches != 1:
        parser.error(f"--calibration_batches has no effect; set batch_num in {arguments.config_defination}")
    arguments.model = arguments.model or next(filter(os.path.isfile, MODEL_FILES), MODEL_FILES[-1])
    return arguments


# --------------------------------------------------------------------------------------------------------- Main


def run(arguments: argparse.Namespace) -> bool:
    """Quantizes the model; returns whether the result meets the target."""
    files = find_files(arguments.dataset, arguments.keyword)
    if arguments.model == MODEL_FILES[-1] and not Path(arguments.model).exists():
        raise ModelNotFoundError(
            f"Model {arguments.model} does not exist. Fetch it with 'make model', or give a frozen model with --model."
        )
    graph = import_graph(read_model(arguments.model).graph_def, arguments.model)
    if arguments.num_parallel_reads > FILES_IN_TURN:
        LOGGER.warning(
            "--num_parallel_reads %d: no more than %d files are read at once.",
            arguments.num_parallel_reads,
            FILES_IN_TURN,
        )
    dataset = scan_dataset(files, arguments.num_images, arguments.num_parallel_reads)
    LOGGER.info("%d images in %d files of %s", dataset.num_images, len(files), arguments.dataset)
    with tempfile.TemporaryDirectory() as folder:
        config_file = str(Path(folder) / "config.json")
        amct.create_quant_config(
            config_file,
            graph,
            batch_num=arguments.calibration_batches,
            config_defination=arguments.config_defination,
        )
        result = amct.accuracy_based_auto_calibration(
            model_file=arguments.model,
            outputs=[OUTPUT],
            record_file=RECORD_FILE,
            config_file=config_file,
            save_dir=SAVE_DIR,
            evaluator=make_evaluator(dataset, config_file, arguments),
            strategy=arguments.strategy,
            sensitivity=arguments.sensitivity,
            resume=arguments.resume,
            config_copy=CONFIG_FILE,  # put in place together with the results
        )
    return result.target_met


def make_evaluator(dataset: ImageDataset, config_file: str, arguments: argparse.Namespace) -> MobileNetV2Evaluator:
    """Returns the evaluator, which calibrates on as many batches as the configuration says.

    Raises:
        DatasetError: there are too few images for that.
    """
    batches = json.loads(Path(config_file).read_bytes())["batch_num"]
    if dataset.num_images <= (batches - 1) * arguments.batch_size:
        raise DatasetError(
            f"{dataset.num_images} images are too few for {batches} calibration batches of {arguments.batch_size}. "
            "Lower --batch_size, or --calibration_batches (with --config_defination: batch_num)."
        )
    return MobileNetV2Evaluator(dataset, arguments.batch_size, batches, arguments.expected_acc_loss)


def report(error: Exception) -> None:
    """Tells of an error that nobody foresaw in one line."""
    keep_details(error)
    LOGGER.error(
        "The run failed: %s: %s. Check the model, the dataset and the arguments; the details are in %s.",
        type(error).__name__, _first_line(error), LOG_FILE,
    )  # fmt: skip


def keep_details(error: Exception) -> None:
    """Writes a traceback to the log file, and not to the console."""
    for line in "".join(traceback.format_exception(error)).splitlines():
        log_for("sample", console=False).error("%s", line)


def main() -> int:
    """Runs the sample; returns its exit code."""
    arguments = parse_arguments()
    amct.set_logging_level(print_level="info", save_level="info")
    raise_on_signals()
    try:
        return 0 if run(arguments) else 3
    except KeyboardInterrupt as interruption:
        LOGGER.error("Interrupted. Give the same command with --resume to go on; nothing is evaluated twice.")
        return 143 if isinstance(interruption, Terminated) else 130
    except (AmctError, DatasetError, OSError) as error:
        # The engine wraps errors of the evaluator; for those of the dataset the original says it more plainly.
        cause = error.__cause__ if isinstance(error.__cause__, DatasetError) else error
        if cause.__cause__ is not None:
            keep_details(error)
        LOGGER.error("%s", " ".join(str(cause).split()))
        return 1
    except Exception as error:  # TensorFlow raises its own, and some of Python's, for bad inputs
        report(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
