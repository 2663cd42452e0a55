"""How long does a whole run of the sample take, in evaluations of the float model?

Both are timed in one process, imports aside: the sample with its defaults, and its evaluator on the float model alone.
EfficientNet-Lite0 takes the sample as edited for it. ``--images`` repeats the images until there are so many, and
``--earlier`` measures another checkout as well, in processes that take turns. ``--profile`` tells instead where the
time of one run goes, stage by stage.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from measuring import ROOT, peak_memory, publish, report, scratch_folder

import numpy as np
import tensorflow as tf
from classifiers import CLASSIFIERS, Classifier

import amct_tensorflow as amct
from amct_tensorflow.data import find_files, scan_records
from amct_tensorflow.io.stages import Spent, measured_stages, stage
from amct_tensorflow.model.model_file import load_graph

NETWORKS = ("MobileNet V2", "EfficientNet-Lite0")
ROUNDS = 3
EVALUATION = "an evaluation"
THIS, EARLIER = "this build", "the earlier build"


@dataclass(frozen=True)
class Times:
    """What a round took, in seconds on the wall and of the processor, and its peak memory in MB."""

    evaluation: float
    evaluation_processor: float
    run: float
    run_processor: float
    peak: float


def main() -> None:
    """Measures and reports."""
    arguments = parse()
    amct.set_logging_level(print_level="error", save_level="error")
    if arguments.profile:
        profile(arguments.network, arguments.images)
    elif arguments.once:
        print(json.dumps(vars(once(arguments.network[0], arguments.images))))
    else:
        compare(arguments.network, arguments.images, arguments.rounds, arguments.earlier)


def parse() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="time of a whole run against one evaluation of the float model")
    add = parser.add_argument
    add("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="which to measure (default: both)")
    add("--images", type=int, default=0, metavar="N", help="repeat the images until there are N (default: as they are)")
    add("--rounds", type=int, default=ROUNDS, metavar="N", help=f"of which medians are taken (default: {ROUNDS})")
    add("--earlier", type=Path, metavar="DIR", help="a checkout of another build to measure as well")
    add("--profile", action="store_true", help="tell where the time of a run goes")
    add("--once", action="store_true", help="measure one round in this process, and print it as JSON")
    arguments = parser.parse_args()
    for path in filter(None, (CLASSIFIERS[name].missing() for name in arguments.network)):
        parser.error(f"{path} does not exist; say with AMCT_SHARED where models and images are")
    return arguments


def compare(networks: list[str], images: int, rounds: int, earlier: Path | None) -> None:
    """Measures networks with this build, and in turns with an earlier one if there is one; reports all."""
    builds = {THIS: ROOT} if earlier is None else {EARLIER: earlier.resolve(), THIS: ROOT}
    rows = []
    for network in networks:
        found: dict[str, list[Times]] = {build: [] for build in builds}
        for _ in range(rounds):
            for build, folder in builds.items():
                found[build].append(in_process(folder, network, images))
        rows += [row_of(network, build, times) for build, times in found.items()]
    report("default_run", rows, f"{rounds} rounds.")
    if not images and set(networks) == set(NETWORKS):
        publish("default_run.py", rows)


def row_of(network: str, build: str, rounds: list[Times]) -> dict[str, str | float]:
    """Returns the medians of rounds."""
    ratios = [each.run / each.evaluation for each in rounds]
    of_processor = [each.run_processor / each.evaluation_processor for each in rounds]
    return {
        "network": network,
        "build": build,
        "whole run s": float(np.median([each.run for each in rounds])),
        "float evaluation s": float(np.median([each.evaluation for each in rounds])),
        "ratio": float(np.median(ratios)),
        "ratios": f"{min(ratios):.1f} to {max(ratios):.1f}",
        "of processor seconds": float(np.median(of_processor)),
        "peak MB": max(each.peak for each in rounds),
    }


def in_process(folder: Path, network: str, images: int) -> Times:
    """Measures a round with the build in a folder, by its own program."""
    program = str(folder / "benchmarks" / Path(__file__).name)
    command = [sys.executable, "-W", "ignore", program, "--once", "--network", network, "--images", str(images)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(folder)}, stdout=subprocess.PIPE, text=True, check=True
    )
    return Times(**json.loads(done.stdout.splitlines()[-1]))


def once(network: str, images: int) -> Times:
    """Measures an evaluation and a run."""
    classifier = CLASSIFIERS[network]
    with scratch_folder() as folder:
        dataset = repeated(classifier.inputs.dataset, images, folder / "images") if images else None
        evaluation = evaluate(classifier, dataset, images)
        whole = run(classifier, dataset, images)
    return Times(*evaluation, *whole, peak_memory())


def repeated(dataset: Path, images: int, folder: Path) -> Path:
    """Makes a folder in which the files of a dataset stand as often as so many images need."""
    files = find_files(dataset)
    records = sum(1 for _ in tf.data.TFRecordDataset(list(map(str, files))))
    folder.mkdir()
    for copy in range(-(-images // records)):
        for file in map(Path, files):
            (folder / f"{copy:03}-{file.name}").symlink_to(file.resolve())
    return folder


def sample_for(classifier: Classifier) -> ModuleType:
    """Returns the sample as a module, edited for a classifier."""
    sample = classifier.inputs.sample
    if classifier.output != sample.OUTPUT:
        as_it_was = sample.preprocess
        sample.OUTPUT = classifier.output
        sample.MobileNetV2Evaluator.first_label = classifier.first_label
        sample.preprocess = lambda *image: classifier.prepare(as_it_was(*image))
    return sample


def spent(action: Callable[[], object]) -> tuple[float, float]:
    """Returns the seconds of an action, and those of the processor."""
    start, processor = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - start, time.process_time() - processor


def run(classifier: Classifier, dataset: Path | None = None, images: int = 0) -> tuple[float, float]:
    """Runs the sample with defaults, on a folder of so many images, or on the classifier's own; returns the seconds."""
    sample = sample_for(classifier)
    data, number = str(dataset or classifier.inputs.dataset), ["--num_images", str(images)] if images else []
    arguments = sample.parse_arguments(["--dataset", data, "--model", str(classifier.inputs.model), *number])
    met: list[bool] = []
    seconds = spent(lambda: met.append(sample.run(arguments)))
    assert met == [True]
    return seconds


def evaluate(classifier: Classifier, dataset: Path | None = None, images: int = 0) -> tuple[float, float]:
    """Evaluates the float model on the same images by the sample's evaluator; returns the seconds."""
    sample = sample_for(classifier)
    data = scan_records(find_files(dataset or classifier.inputs.dataset), sample.FEATURES, images or None)
    graph = load_graph(classifier.inputs.model)
    with stage(EVALUATION):
        return spent(lambda: sample.MobileNetV2Evaluator(data).evaluate(graph, [sample.OUTPUT]))


def profile(networks: list[str], images: int) -> None:
    """Measures the stages of runs, in seconds and in evaluations of the float model, and reports them."""
    rows = [row for network in networks for row in stages_of(network, images)]
    report("default_run_profile", rows, "The last row of a network is an evaluation of its float model.")


def stages_of(network: str, images: int) -> list[dict[str, str | float]]:
    """Returns what the stages of a run took, and all of it, and an evaluation of the float model."""
    classifier = CLASSIFIERS[network]
    with scratch_folder() as folder:
        dataset = repeated(classifier.inputs.dataset, images, folder / "images") if images else None
        with measured_stages() as clock:
            evaluate(classifier, dataset, images)
            (evaluation,) = (each for each in clock.spent() if each.stage == EVALUATION)
        with measured_stages() as clock:
            run(classifier, dataset, images)
            stages = clock.spent()
    one_by_one = [each for each in stages if each.processor_seconds is not None]
    total = Spent(
        "whole run", sum(each.seconds for each in one_by_one), sum(each.processor_seconds or 0 for each in one_by_one)
    )
    return [row_of_stage(network, each, evaluation) for each in (*stages, total, evaluation)]


def row_of_stage(network: str, spent: Spent, evaluation: Spent) -> dict[str, str | float]:
    """Returns what a stage took, also compared with an evaluation; what went on beside others counts to those."""
    name, seconds, processor_seconds = spent
    assert evaluation.processor_seconds is not None
    row: dict[str, str | float] = {"network": network, "stage": name, "seconds": seconds}
    row["of an evaluation"] = f"{seconds / evaluation.seconds:.2f}"
    if processor_seconds is None:
        return {**row, "processor seconds": "beside", "of its processor seconds": "beside"}
    of_evaluation = f"{processor_seconds / evaluation.processor_seconds:.2f}"
    return {**row, "processor seconds": processor_seconds, "of its processor seconds": of_evaluation}


if __name__ == "__main__":
    main()
