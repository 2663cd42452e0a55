"""How do other open tools do on the same model and images?

Makes an environment of their own for them (``benchmarks/.peers``), prepares model, images and the float softmax once,
and runs each tool as a process, one after the other, and this project's tool beside them. All are calibrated on the
first 32 images and judged on all; those that control accuracy may lose 0.5 points of top-1. The table of the READMEs is
written if all tools were measured on the default model and images.
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

from measuring import ROOT, Inputs, ReadyImages, mean_kl, parse_inputs, quantize, report, scratch_folder, setting, table

import numpy as np
from pages import write_section

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE / ".peers"
SCRIPTS = ("tflite.py", "nncf_openvino.py", "neural_compressor_tf.py")
NEW = {"strategy": "PredictiveSearch", "sensitivity": "OutputDivergence"}
OWN = [
    ("this tool, defaults of the sample", False, NEW),
    ("this tool, algorithms of the original toolkit", True, NEW),
    ("this tool as the original toolkit: its algorithms, BinarySearch, CosineSimilarity", True, {}),
]
# What each README calls the columns, and says of the measurement.
PAGES = {
    "README.md": (
        ("tool", "top-1", "KL", "layers in float", "evaluations", "seconds"),
        "The float model reaches {top1}. Measured on {setting}.",
    ),
    "README_CN.md": (
        ("工具", "top-1", "KL 散度", "浮点层数", "评估次数", "秒"),
        "浮点模型为 {top1}。{setting}。",
    ),
}


def main() -> None:
    """Measures and reports."""
    inputs, arguments = parse_inputs("other tools on the same model and images", add_time_limit)
    python = make_environment()
    rows = [run_own(inputs, *own) for own in OWN]
    with scratch_folder() as folder:
        top1 = prepare(inputs, folder)
        for script in SCRIPTS:
            rows.extend(run_peer(python, HERE / "peers" / script, folder, arguments.time_limit))
    for row in rows:
        row.setdefault("remark", "")
    report("peers", rows, f"{len(inputs.images[0])} images. 'seconds' is all that the tool does, evaluations included.")
    if inputs.are_default and all("top-1" in row for row in rows):
        write_pages(rows, top1)


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


def prepare(inputs: Inputs, folder: Path) -> float:
    """Writes what the peers' scripts read; returns the accuracy of the float model in percent."""
    images, labels = inputs.images
    evaluator = ReadyImages(inputs, "top-1", 100.0)
    quantize(inputs, evaluator, as_original=False)  # its first evaluation is that of the float model
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "softmax.npy", evaluator.softmax[0])
    shutil.copy(inputs.model, folder / "model.pb")
    return evaluator.top1(evaluator.softmax[0])


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


def write_pages(rows: list[dict[str, Any]], top1: float) -> None:
    """Writes the table into both READMEs, with the accuracy of the float model, date and machine."""
    for page, (columns, sentence) in PAGES.items():
        lines = table([dict(zip(columns, cells(row), strict=True)) for row in rows])
        said = sentence.format(top1=f"{top1:.2f}", setting=setting())
        write_section(ROOT / page, "peers.py", ["", *lines, "", said, ""])


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Returns what stands in a row of the READMEs' table."""
    return (
        f"{row['tool']} ({row['version']})" if "version" in row else row["tool"],
        f"{row['top-1']:.2f}",
        f"{row['KL']:#.2g}",
        f"{row['float_layers']} / {row['layers']}",
        str(row["evaluations"] or ""),
        f"{row['seconds']:.1f}" if row["seconds"] < 10 else f"{row['seconds']:.0f}",
    )


if __name__ == "__main__":
    main()
