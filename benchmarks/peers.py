"""How do other open tools do on the same model and images?

Makes an environment of their own for them (``benchmarks/.peers``), prepares model, images and the float softmax once,
and runs each tool as a process, one after the other, and this project's tool beside them. All are calibrated on the
first 32 images and judged on all; those that control accuracy may lose 0.5 points of top-1.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Inputs, ReadyImages, mean_kl, parse_inputs, quantize, report, scratch_folder

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE / ".peers"
SCRIPTS = ("tflite.py", "nncf_openvino.py", "neural_compressor_tf.py")
OWN = [
    ("this tool, defaults of the sample", False, {"strategy": "PredictiveSearch", "sensitivity": "OutputDivergence"}),
    ("this tool, algorithms of AMCT", True, {"strategy": "PredictiveSearch", "sensitivity": "OutputDivergence"}),
    ("this tool as AMCT: its algorithms, BinarySearch, CosineSimilarity", True, {}),
]


def main() -> None:
    """Measures and reports."""
    inputs, arguments = parse_inputs("other tools on the same model and images", add_time_limit)
    python = make_environment()
    rows = [run_own(inputs, *own) for own in OWN]
    with scratch_folder() as folder:
        prepare(inputs, folder)
        for script in SCRIPTS:
            rows.extend(run_peer(python, HERE / "peers" / script, folder, arguments.time_limit))
    for row in rows:
        row.setdefault("remark", "")
    report("peers", rows, f"{len(inputs.images[0])} images. 'seconds' is all that the tool does, evaluations included.")


def add_time_limit(parser: argparse.ArgumentParser) -> None:
    """Adds the limit for tools that search."""
    parser.add_argument("--time_limit", type=float, default=300, help="seconds that a peer may search (default: 300)")


def make_environment() -> Path:
    """Returns the Python of the peers' environment, which is made unless it is there and complete."""
    python, stamp = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "installed"
    requirements = HERE / "peers" / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != requirements.read_text():
        print("Installing the peers into", ENVIRONMENT)
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
        stamp.write_text(requirements.read_text())
    return python


def prepare(inputs: Inputs, folder: Path) -> None:
    """Writes what the peers' scripts read."""
    images, labels = inputs.images
    evaluator = ReadyImages(inputs, "top-1", 100.0)
    quantize(inputs, evaluator, as_original=False)  # its first evaluation is that of the float model
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "softmax.npy", evaluator.softmax[0])
    shutil.copy(inputs.model, folder / "model.pb")


def run_own(inputs: Inputs, tool: str, as_original: bool, options: dict[str, str]) -> dict[str, Any]:
    """Runs this project's tool."""
    evaluator = ReadyImages(inputs, "top-1", 0.5)
    with scratch_folder():
        start = time.perf_counter()
        result = quantize(inputs, evaluator, as_original=as_original, **options)
        seconds = time.perf_counter() - start
    configuration = result.roll_back_config
    # Evaluations are in the order of the search; the one that was saved is recognised by its metric.
    saved = [softmax for softmax in evaluator.softmax[1:] if evaluator.top1(softmax) == result.saved_metric][-1]
    return {
        "tool": tool,
        "seconds": seconds,
        "float_layers": sum(not quantized for quantized in configuration.values()),
        "layers": len(configuration),
        "evaluations": result.evaluations,
        "top-1": float(result.saved_metric),
        "KL": mean_kl(evaluator.softmax[0], saved),
    }


def run_peer(python: Path, script: Path, folder: Path, time_limit: float) -> list[dict[str, Any]]:
    """Runs a peer's script; returns the rows that it printed, or one that says that it failed."""
    print("Running", script.name, flush=True)
    command = [python, script, folder, str(time_limit)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    rows = [json.loads(line.removeprefix("RESULT ")) for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        rows.append({"tool": script.stem, "remark": f"failed with exit code {done.returncode}"})
    return rows


if __name__ == "__main__":
    main()
