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
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

# The package stands next to src/; this finds it even where it is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from amct_tensorflow.console import import_tensorflow, quiet_tensorflow, run_as_command, use_few_arenas, use_onednn

# ---------------------------------------------------------------------------------------------------- Constants

MODEL_FILES = ("./model/mobilenetv2_tf.pb", "./model/mobilenet_v2_1.0_224_frozen.pb")
OUTPUT = "MobilenetV2/Predictions/Reshape_1"
CONFIG_FILE = "./outputs/accuracy_based_auto_calibration/config.json"
RECORD_FILE = "./outputs/accuracy_based_auto_calibration/record.txt"
SAVE_DIR = "./outputs/accuracy_based_auto_calibration/mobilenet_v2"  # a folder and the prefix of the files in it

IMAGE_KEY = "image/encoded"
LABEL_KEY = "image/class/label"
FIRST_LABEL = 0  # of the model's first class; 1 if the model knows no background, and the records count from 1
DEFAULT_IMAGE_SIZE = 224  # where the model leaves its input size open
CENTRAL_FRACTION = 0.875

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
        help="files read at once (default: 4)")  # fmt: skip
    add("--batch_size", metavar="N", type=positive_int, default=32, help="images per batch (default: 32)")
    add("--model", metavar="PATH", help="frozen model (.pb), directory of a SavedModel, or Keras model (.keras, .h5) "
        f"(default: {MODEL_FILES[0]} if it exists, else {MODEL_FILES[1]})")  # fmt: skip
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
    add("--device", choices=["generic", "ascend"], help="what the model is for: generic may raise layers to "
        "activations of 16 bits, ascend checks model and result by public rules of ATC (default: one that has int8 and "
        "float)")  # fmt: skip
    add("--no_free_roll_back", dest="free_roll_back", action="store_false",
        help="with --device ascend: quantize also layers that run in fp16 there anyway")  # fmt: skip
    add("--num_workers", metavar="N", type=positive_int,
        help="processes that evaluate, each a share of the images (default: one; with --ray one per CPU)")  # fmt: skip
    add("--ray", metavar="ADDRESS", help="evaluate on an existing Ray cluster, whose machines see DIR under the same "
        'path; "auto" finds it (default: on this machine)')  # fmt: skip
    add("--resume", action="store_true", help="go on with a run that was cut off (default: start afresh)")
    add("--exact", action="store_true", help="evaluate every quantized model as it would be saved (default: in "
        "integers where the processor makes that faster, with the same results)")  # fmt: skip
    arguments = parser.parse_args(argv)
    if arguments.config_defination and arguments.calibration_batches != 1:
        parser.error(f"--calibration_batches has no effect; set batch_num in {arguments.config_defination}")
    arguments.model = arguments.model or next(filter(os.path.isfile, MODEL_FILES), MODEL_FILES[-1])
    return arguments


# ---------------------------------------------------------------------------------------------------- TensorFlow

if __name__ == "__main__":
    parse_arguments()  # wrong ones show before TensorFlow is imported, which takes seconds
    quiet_tensorflow()
    use_onednn()
    use_few_arenas()
    import_tensorflow()

import tensorflow as tf
from amct_tensorflow.utils.log import LOGGER

import amct_tensorflow as amct
from amct_tensorflow.classification import ClassifierEvaluator
from amct_tensorflow.data import FILES_IN_TURN, Feature, ScannedRecords, find_files, scan_records
from amct_tensorflow.errors import DatasetError, ModelNotFoundError

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
# What every record must hold; ``load`` of the evaluator gets it.

FEATURES = (
    Feature(IMAGE_KEY, tf.string, "the bytes of one image"),
    Feature(LABEL_KEY, tf.int64, f"one integer, at least {FIRST_LABEL}", minimum=FIRST_LABEL),
)

# ---------------------------------------------------------------------------------------------------- Evaluator


class MobileNetV2Evaluator(ClassifierEvaluator):
    """Top-1 accuracy in percent on a dataset; a quantized model must lose less than ``expected_acc_loss`` points."""

    label_key = LABEL_KEY
    first_label = FIRST_LABEL
    image_size = DEFAULT_IMAGE_SIZE

    def load(self, features: dict[str, tf.Tensor], height: int, width: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the image of a record as the model takes it, and its label."""
        return preprocess(features[IMAGE_KEY], height, width), features[LABEL_KEY]


# --------------------------------------------------------------------------------------------------------- Main


def run(arguments: argparse.Namespace) -> bool:
    """Quantizes the model; returns whether the result meets the target."""
    files = find_files(arguments.dataset, arguments.keyword)
    if arguments.model == MODEL_FILES[-1] and not Path(arguments.model).exists():
        raise ModelNotFoundError(
            f"Model {arguments.model} does not exist. Fetch it with 'make model', or give a model with --model."
        )
    model = amct.FloatModel.load(arguments.model, [OUTPUT])
    config = amct.make_quant_config(
        model, batch_num=arguments.calibration_batches, config_defination=arguments.config_defination
    )
    if arguments.num_parallel_reads > FILES_IN_TURN:
        LOGGER.warning(
            "--num_parallel_reads %d: no more than %d files are read at once.",
            arguments.num_parallel_reads,
            FILES_IN_TURN,
        )
    dataset = scan_records(files, FEATURES, arguments.num_images, arguments.num_parallel_reads)
    LOGGER.info("%d images in %d files of %s", dataset.num_records, len(files), arguments.dataset)
    result = amct.accuracy_based_auto_calibration(
        model_file=model,
        outputs=[OUTPUT],
        record_file=RECORD_FILE,
        config_file=CONFIG_FILE,
        save_dir=SAVE_DIR,
        evaluator=make_evaluator(dataset, config.batch_num, arguments),
        strategy=arguments.strategy,
        sensitivity=arguments.sensitivity,
        resume=arguments.resume,
        exact=arguments.exact,
        device=arguments.device,
        free_roll_back=arguments.free_roll_back,
        num_workers=arguments.num_workers,
        ray=arguments.ray,
        config=config,  # put in place together with the results
    )
    return result.target_met


def make_evaluator(
    dataset: ScannedRecords, calibration_batches: int, arguments: argparse.Namespace
) -> MobileNetV2Evaluator:
    """Returns the evaluator.

    Raises:
        DatasetError: there are too few images for so many batches to calibrate on.
    """
    if dataset.num_records <= (calibration_batches - 1) * arguments.batch_size:
        raise DatasetError(
            f"{dataset.num_records} images are too few for {calibration_batches} calibration batches of "
            f"{arguments.batch_size}. Lower --batch_size, or --calibration_batches (with --config_defination: "
            "batch_num)."
        )
    return MobileNetV2Evaluator(dataset, arguments.batch_size, calibration_batches, arguments.expected_acc_loss)


def main() -> int:
    """Runs the sample; returns its exit code."""
    arguments = parse_arguments()
    amct.set_logging_level(print_level="info", save_level="info")
    return run_as_command(
        lambda: 0 if run(arguments) else 3,
        interrupted="Interrupted. Give the same command with --resume to go on; nothing is evaluated twice.",
    )


if __name__ == "__main__":
    sys.exit(main())
