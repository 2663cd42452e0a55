"""How close does the sample's input pipeline come to a bare decode of the same files?

The bare pipeline reads, parses and decodes the same records in the same order and with the same parallelism, and does
nothing else. The sample's own also crops, resizes, scales and batches. Both are read to their end in turn.
"""

from measuring import BATCH, interleaved, parse_inputs, publish, ratio, report

import tensorflow as tf

from amct_tensorflow.data import parse_records
from amct_tensorflow.data.scanned_records import PARALLEL_RECORDS

ROUNDS = 7
REPEATS = 5  # one pass over a few hundred images would be too short to time


def main() -> None:
    """Measures and reports."""
    inputs, _ = parse_inputs("images per second of the input pipeline against a bare decode")
    sample = inputs.sample
    dataset = inputs.scan()

    def decode(record: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_jpeg(parse_records(record, sample.FEATURES)[sample.IMAGE_KEY], channels=3)

    def crop_and_resize(record: tf.Tensor) -> tf.Tensor:
        image = tf.image.central_crop(decode(record), sample.CENTRAL_FRACTION)
        return tf.compat.v1.image.resize(image, (224, 224), tf.compat.v1.image.ResizeMethod.BILINEAR)

    def mapped(function: object) -> tf.data.Dataset:
        options = tf.data.Options()
        options.autotune.enabled = False
        images = dataset.records().map(function, num_parallel_calls=PARALLEL_RECORDS, deterministic=True)
        return images.prefetch(2).with_options(options)

    pipelines = {
        "bare decode": mapped(decode),
        "decode, crop": mapped(lambda record: tf.image.central_crop(decode(record), sample.CENTRAL_FRACTION)),
        "decode, crop, resize": mapped(crop_and_resize),
        "the sample's": sample.MobileNetV2Evaluator(dataset, BATCH).batches(224, 224),
    }
    actions = {name: lambda data=data: exhaust(data.repeat(REPEATS)) for name, data in pipelines.items()}
    seconds = interleaved(actions, ROUNDS)
    images = dataset.num_records * REPEATS
    rows = [
        {
            "pipeline": name,
            "images per second (median)": images / sorted(values)[len(values) // 2],
            "share of bare decode": ratio(seconds, "bare decode", name),
        }
        for name, values in seconds.items()
    ]
    report("pipeline", rows, f"{dataset.num_records} images {REPEATS} times, {ROUNDS} rounds.")
    publish("pipeline.py", rows, inputs=inputs)


def exhaust(data: tf.data.Dataset) -> None:
    """Reads a dataset to its end."""
    for _ in data:
        pass


if __name__ == "__main__":
    main()
