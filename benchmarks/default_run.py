"""How long does a whole run of the sample take, in evaluations of the float model?

Both are timed in one process, imports aside: the sample with its defaults, and its evaluator on the float model alone.
``--profile`` tells instead where the time of one run goes, stage by stage.
"""

import time

import numpy as np
from measuring import OUTPUT, Inputs, parse_inputs, publish, report, scratch_folder

from amct_tensorflow.io.stages import Spent, measured_stages, stage
from amct_tensorflow.model.model_file import load_graph

ROUNDS = 3
EVALUATION = "an evaluation"


def main() -> None:
    """Measures and reports."""
    inputs, arguments = parse_inputs(
        "time of a whole run of the sample against one evaluation of the float model",
        lambda parser: parser.add_argument("--profile", action="store_true", help="tell where the time of a run goes"),
    )
    if arguments.profile:
        profile(inputs)
        return
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


def profile(inputs: Inputs) -> None:
    """Measures the stages of a run, in seconds and in evaluations of the float model, and reports them."""
    with scratch_folder():
        with measured_stages() as clock:
            evaluate(inputs)
            (evaluation,) = (each for each in clock.spent() if each.stage == EVALUATION)
        with measured_stages() as clock:
            run(inputs)
            stages = clock.spent()
    total = Spent("whole run", sum(each.seconds for each in stages), sum(each.processor_seconds for each in stages))
    rows = [
        {
            "stage": name,
            "seconds": seconds,
            "processor seconds": processor_seconds,
            "of an evaluation": f"{seconds / evaluation.seconds:.2f}",
            "of its processor seconds": f"{processor_seconds / evaluation.processor_seconds:.2f}",
        }
        for name, seconds, processor_seconds in (*stages, total)
    ]
    note = f"An evaluation of the float model took {evaluation.seconds:.1f} s, "
    note += f"and {evaluation.processor_seconds:.1f} s of the processor."
    report("default_run_profile", rows, note)


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
    with stage(EVALUATION):
        evaluator.evaluate(graph, [OUTPUT])
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
