"""How long does a whole run of the sample take, in evaluations of the float model?

Both are timed in one process, imports aside: the sample with its defaults, and its evaluator on the float model alone.
"""

import time

import numpy as np
from measuring import OUTPUT, Inputs, parse_inputs, publish, report, scratch_folder

from amct_tensorflow.model.model_file import load_graph

ROUNDS = 3


def main() -> None:
    """Measures and reports."""
    inputs, _ = parse_inputs("time of a whole run of the sample against one evaluation of the float model")
    runs, evaluations = [], []
    with scratch_folder():
        for _ in range(ROUNDS):
            evaluations.append(evaluate(inputs))
            runs.append(run(inputs))
    ratios = np.divide(runs, evaluations)
    row = {
        "whole run s (median)": float(np.median(runs)),
        "float evaluation s (median)": float(np.median(evaluations)),
        "ratio (median)": float(np.median(ratios)),
        "ratios": f"{min(ratios):.1f} to {max(ratios):.1f}",
    }
    report("default_run", [row], f"{ROUNDS} rounds.")
    publish("default_run.py", [row], inputs=inputs)


def run(inputs: Inputs) -> float:
    """Returns the seconds of a whole run with defaults."""
    arguments = inputs.sample.parse_arguments(["--dataset", str(inputs.dataset), "--model", str(inputs.model)])
    start = time.perf_counter()
    assert inputs.sample.run(arguments)
    return time.perf_counter() - start


def evaluate(inputs: Inputs) -> float:
    """Returns the seconds of one evaluation of the float model by the sample's evaluator."""
    dataset = inputs.scan()
    evaluator = inputs.sample.MobileNetV2Evaluator(dataset)
    graph = load_graph(inputs.model)
    start = time.perf_counter()
    evaluator.evaluate(graph, [OUTPUT])
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
