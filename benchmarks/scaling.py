"""What do workers gain, what do they cost, and how far would that reach?

Two processes with a thread each evaluate the float model in turn with one process that has two threads, on the same two
cores. The difference between many and few images tells what an image costs in a process, and what a share costs beside
its images. An evaluator that does nothing tells what is left for messages, for processes and for Ray. From these
follows, on paper, what many workers with a core each would reach on many images.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from measuring import BATCH, OUTPUT, Inputs, interleaved, parse_inputs, publish, ratio, report, scratch_folder

import numpy as np
import tensorflow as tf
from amct_tensorflow.common.auto_calibration import AutoCalibrationEvaluatorBase

from amct_tensorflow.accuracy_based_auto_calibration import start_scheduler
from amct_tensorflow.data import find_files, scan_records
from amct_tensorflow.model.model_file import import_graph, read_model
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator
from amct_tensorflow.search.workers.scheduler import Scheduler
from amct_tensorflow.search.workers.shares import Candidate, Share

ROUNDS = 5
CORES = 2
FEW = 2 * CORES * BATCH  # images: two batches per process
PAPER_IMAGES = 50_000
PAPER_WORKERS = (1, 8, 64, 256)
PAPER_WORKERS_PER_MACHINE = 32
TASK, NEW_MODEL = "a task and its answer, per worker", "a new model to a machine with two workers"
MODEL = "the original model"


@dataclass(frozen=True)
class Costs:
    """What evaluating costs, in seconds.

    Attributes:
        image: one more image, in a process with one thread while the other core works, too.
        share: what a share takes beside its images: the model imported, a session, its graph optimized.
        task: a task to one worker, and its answer.
        model: a new model to the workers of one machine.
    """

    image: float
    share: float
    task: float
    model: float

    def messages(self, workers: int) -> float:
        """Returns how long messages take, one after the other."""
        return workers * self.task + math.ceil(workers / PAPER_WORKERS_PER_MACHINE) * self.model

    def images(self, images: int, workers: int) -> float:
        """Returns how long the largest share takes, of whole batches."""
        return min(math.ceil(math.ceil(images / BATCH) / workers) * BATCH, images) * self.image

    def evaluation(self, images: int, workers: int) -> float:
        """Returns how long an evaluation takes."""
        return self.share + self.images(images, workers) + self.messages(workers)


class Nothing(AutoCalibrationEvaluatorBase):
    """Evaluates no image."""

    def evaluate_share(self, _graph: tf.Graph, _outputs: list[str], _share: Share) -> list[float]:
        """Returns no result."""
        return []


def main() -> None:
    """Measures and reports."""
    inputs, _ = parse_inputs("two processes against one, what a share costs, and what many workers would reach")
    with scratch_folder():
        seconds, images = measure_evaluations(inputs)
        processes = measure_messages(inputs, None)
        ray = measure_ray(inputs)
    # The least of several rounds is what it takes where nobody else wants the cores.
    image = (min(seconds["2 processes"]) - min(seconds["few images"])) / ((images - FEW) / CORES)
    share = min(seconds["few images"]) - FEW / CORES * image
    rows = [
        {
            "evaluation": f"{images} images",
            "1 process, 2 threads s (least)": min(seconds["1 process"]),
            "2 processes s (least)": min(seconds["2 processes"]),
            "1 process / 2 processes (median)": ratio(seconds, "1 process", "2 processes"),
        }
    ]
    report("scaling", rows, f"{ROUNDS} rounds in turn.")
    messages = {"processes": processes, **({"Ray": ray} if ray else {})}
    overhead = [
        {"what": "an image, in a process with one thread", "ms": 1000 * image},
        {"what": "a share beside its images", "ms": 1000 * share},
        *({"what": f"{where}: {what}", "ms": 1000 * value} for where, found in messages.items()
          for what, value in found.items()),
    ]  # fmt: skip
    report("scaling_overhead", overhead)
    found = ray or processes
    paper = on_paper(Costs(image, share, found[TASK], found[NEW_MODEL]))
    report("scaling_on_paper", paper)
    publish("scaling.py", rows, overhead, paper, inputs=inputs)


def measure_evaluations(inputs: Inputs) -> tuple[dict[str, list[float]], int]:
    """Returns the seconds of evaluations in this process, and in two; and how many images there are."""
    many, few = (inputs.sample.MobileNetV2Evaluator(scan(inputs, images), BATCH) for images in (None, FEW))
    graph_def = read_model(inputs.model).graph_def
    candidate = Candidate(graph_def.SerializeToString(), (OUTPUT,), MODEL)
    with scheduler_of(many) as with_many, scheduler_of(few) as with_few:
        seconds = interleaved(
            {
                "1 process": lambda: many.evaluate(import_graph(graph_def, MODEL), [OUTPUT]),
                "2 processes": lambda: with_many.finish(candidate),
                "few images": lambda: with_few.finish(candidate),
            },
            ROUNDS,
        )
    return seconds, many.dataset.num_records


def measure_messages(inputs: Inputs, ray: str | None) -> dict[str, float]:
    """Returns the seconds per worker of evaluating nothing: of a known model, and of new ones of its size."""
    numbers = iter(range(10**6))
    weights = tf.make_tensor_proto(np.zeros(inputs.model.stat().st_size, np.uint8))

    def new() -> Candidate:
        """One constant, which takes no time to import."""
        node = tf.compat.v1.NodeDef(name=f"weights_{next(numbers)}", op="Const")
        node.attr["dtype"].type = weights.dtype
        node.attr["value"].tensor.CopyFrom(weights)
        return Candidate(tf.compat.v1.GraphDef(node=[node]).SerializeToString(), (), MODEL)

    candidates = [new() for _ in range(ROUNDS + 1)]
    small = Candidate(tf.compat.v1.GraphDef().SerializeToString(), (), "an empty model")
    with scheduler_of(Nothing(), ray) as scheduler:
        seconds = interleaved(
            {
                "task": lambda: scheduler.finish(small),
                "new": lambda: scheduler.finish(candidates[-1]),
                "known": lambda: scheduler.finish(candidates.pop()),
            },
            ROUNDS,
        )
    return {TASK: min(seconds["task"]) / CORES, NEW_MODEL: max(min(seconds["new"]) - min(seconds["known"]), 0.0)}


def measure_ray(inputs: Inputs) -> dict[str, float]:
    """Returns the same for a Ray cluster on this machine; nothing if Ray is not installed."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # or Ray leaves a token for other clusters
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError:
        return {}
    ray.init(num_cpus=CORES, include_dashboard=False, object_store_memory=200_000_000, log_to_driver=False)
    try:
        return measure_messages(inputs, "auto")
    finally:
        ray.shutdown()


def on_paper(costs: Costs) -> list[dict[str, Any]]:
    """Returns what many workers would reach."""
    alone = costs.evaluation(PAPER_IMAGES, 1)
    rows = []
    for workers in PAPER_WORKERS:
        seconds = costs.evaluation(PAPER_IMAGES, workers)
        whole_batches = costs.images(PAPER_IMAGES, workers) - PAPER_IMAGES / workers * costs.image
        rows.append(
            {
                "workers": workers,
                "s": seconds,
                "efficiency": alone / workers / seconds,
                "lost to shares": costs.share / seconds,
                "lost to messages": costs.messages(workers) / seconds,
                "lost to whole batches": whole_batches / seconds,
            }
        )
    return rows


@contextlib.contextmanager
def scheduler_of(evaluator: AutoCalibrationEvaluatorBase, ray: str | None = None) -> Iterator[Scheduler]:
    """Workers, one per core, that are ready."""
    checked = CheckedEvaluator(evaluator)
    with start_scheduler(checked.serialized(), checked.identity(), CORES, ray, exact=True) as scheduler:
        scheduler.gather()
        yield scheduler


def scan(inputs: Inputs, images: int | None) -> Any:
    """Returns the first so many images as the sample reads them."""
    return scan_records(find_files(inputs.dataset), inputs.sample.FEATURES, images)


if __name__ == "__main__":
    main()
