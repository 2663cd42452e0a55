"""Does memory grow with images, evaluations, or candidate sets; does calibration cost what its images and layers say?

On the bundled model and images, each measurement in a process of its own. More images are the bundled ones repeated.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from measuring import OUTPUT, ROOT, Inputs, peak_memory, publish, report, scratch_folder

from amct_tensorflow.common.auto_calibration import AutoCalibrationStrategyBase

import amct_tensorflow as amct
from amct_tensorflow.data import find_files, scan_records
from amct_tensorflow.model.model_file import load_graph

MODEL = ROOT / "model" / "mobilenet_v2_0.35_48_fashion_mnist.pb"
DATASET = ROOT / "data" / "fashion_mnist"
INPUTS = Inputs(MODEL, DATASET)
IMAGES = 2000


class ManySteps(AutoCalibrationStrategyBase):
    """Tries many configurations, whatever their results, after scoring as many candidate sets for each as asked."""

    def __init__(self, evaluations: int, candidates: int) -> None:
        self.left = evaluations
        self.candidates = candidates

    def prepare(self, knowledge: Any) -> None:
        """Takes what scores sets."""
        self.knowledge = knowledge

    def initialize(self, ranking_info: Mapping[str, float]) -> None:
        """Takes the names of the layers."""
        self.layers = sorted(ranking_info)

    def update_quant_config(self, metric_eval: tuple[bool, float]) -> dict[str, Any]:
        """Rolls one or two layers back, each time others."""
        self.left -= 1
        number, count = self.left, len(self.layers)
        everything = set(self.layers)
        sets = [
            everything - {self.layers[(number + i) % count], self.layers[i * 7 % count]} for i in range(self.candidates)
        ]
        if sets:
            self.knowledge.divergences(sets)
        rolled_back = {self.layers[number % count], self.layers[(number + number // count + 1) % count]}
        configuration = OrderedDict((name, name not in rolled_back) for name in self.layers)
        return {"stop_flag": self.left <= 0, "roll_back_config": configuration}


def repeated_images(folder: Path, times: int) -> Path:
    """Returns a folder with the bundled files under several names."""
    target = folder / "images"
    target.mkdir()
    for number in range(times):
        for file in DATASET.iterdir():
            (target / f"{number}-{file.name}").symlink_to(file)
    return target


def evaluate(images: int) -> None:
    """Evaluates the float model on so many images."""
    with scratch_folder() as folder:
        sample = INPUTS.sample
        dataset = scan_records(find_files(repeated_images(folder, images // IMAGES)), sample.FEATURES)
        assert dataset.num_records == images
        sample.MobileNetV2Evaluator(dataset).evaluate(load_graph(MODEL), [OUTPUT])


def search(evaluations: int, candidates: int = 0) -> None:
    """Searches with so many evaluations on 100 images, and candidate sets for each."""
    with scratch_folder():
        sample = INPUTS.sample
        dataset = scan_records(find_files(DATASET), sample.FEATURES, 100)
        evaluator = sample.MobileNetV2Evaluator(dataset, expected_acc_loss=0.0)
        evaluator.metric_eval = lambda original, new: (original is new, 1.0)
        amct.create_quant_config("config.json", load_graph(MODEL))
        result = amct.accuracy_based_auto_calibration(
            str(MODEL), [OUTPUT], "record.txt", "config.json", "net", evaluator,
            strategy=ManySteps(evaluations, candidates), sensitivity="CosineSimilarity",
        )  # fmt: skip
        assert result.evaluations == evaluations + 2


def calibrate(batches: int, layers: int = 54) -> None:
    """Calibrates so many layers on so many batches of 32 images."""
    with scratch_folder():
        sample = INPUTS.sample
        dataset = scan_records(find_files(DATASET), sample.FEATURES)
        graph = load_graph(MODEL)
        amct.create_quant_config("config.json", graph, batch_num=batches)
        config = json.loads(Path("config.json").read_text())
        names = [name for name, layer in config.items() if isinstance(layer, dict)]
        for name in names[layers:]:
            config[name]["quant_enable"] = False
        Path("config.json").write_text(json.dumps(config))
        amct.quantize_model(graph, "config.json", "record.txt")
        sample.MobileNetV2Evaluator(dataset, calibration_batches=batches).calibration(graph, [OUTPUT])


SERIES: dict[str, tuple[Callable[..., None], list[tuple[int, ...]]]] = {
    "images": (evaluate, [(2000,), (10_000,), (40_000,)]),
    "evaluations": (search, [(5,), (20,), (50,)]),
    "candidates": (search, [(3, 20), (3, 100), (3, 400)]),
    "calibration batches": (calibrate, [(1,), (4,), (16,)]),
    "calibration layers": (calibrate, [(4, 14), (4, 27), (4, 54)]),
}


def main() -> None:
    """Measures every point of every series."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--point", nargs="+", help="measure one point: series and sizes; prints one JSON line")
    arguments = parser.parse_args()
    amct.set_logging_level("error", "error")
    if arguments.point:
        series, *sizes = arguments.point
        start = time.perf_counter()
        SERIES[series][0](*map(int, sizes))
        seconds = time.perf_counter() - start
        print(json.dumps([seconds, peak_memory()]))
        return
    rows = []
    for series, (_, points) in SERIES.items():
        for sizes in points:
            command = [sys.executable, __file__, "--point", series, *map(str, sizes)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds, memory = json.loads(done.stdout.splitlines()[-1])
            rows.append({"series": series, "size": sizes[-1], "seconds": seconds, "peak memory MB": memory})
            print(rows[-1], file=sys.stderr)
    report("endurance", rows, "Bundled model; seconds without imports.")
    publish("endurance.py", rows)


if __name__ == "__main__":
    main()
