"""How many layers stay in float, and how many evaluations does it take to find them?

Hard mode: with the algorithms of the original toolkit, and a smooth metric (100 times the mean KL divergence to the
float softmax, below 1.8). And top-1 accuracy with the default target, with those algorithms and with the defaults.
"""

import time

from measuring import ReadyImages, parse_inputs, publish, quantize, report, scratch_folder

SEARCHES = [
    ("PredictiveSearch", "OutputDivergence"),
    ("PredictiveSearch", "CosineSimilarity"),
    ("BinarySearch", "OutputDivergence"),
    ("BinarySearch", "CosineSimilarity"),
]
TASKS = [
    ("hard: 100 KL < 1.8, algorithms of the original", "KL", 1.8, True),
    ("top-1 loss < 0.5, algorithms of the original", "top-1", 0.5, True),
    ("top-1 loss < 0.5 (default)", "top-1", 0.5, False),
]


def main() -> None:
    """Measures and reports."""
    inputs, _ = parse_inputs("layers in float and evaluations of each strategy and sensitivity")
    rows = []
    for task, metric, limit, as_original in TASKS:
        for strategy, sensitivity in SEARCHES:
            evaluator = ReadyImages(inputs, metric, limit)
            with scratch_folder():
                start = time.perf_counter()
                result = quantize(
                    inputs, evaluator, as_original=as_original, strategy=strategy, sensitivity=sensitivity
                )
                seconds = time.perf_counter() - start
            rows.append(
                {
                    "task": task,
                    "strategy": strategy,
                    "sensitivity": sensitivity,
                    "all quantized": float(result.global_metric),
                    "saved": float(result.saved_metric),
                    "met": result.target_met,
                    "float layers": sum(not quantized for quantized in result.roll_back_config.values()),
                    "float MACs %": 100 * result.float_mac_share,
                    "evaluations": result.evaluations,
                    "seconds": seconds,
                    "of that evaluating": sum(evaluator.seconds),
                    "run / float evaluation": seconds / evaluator.seconds[0],
                }
            )
    report("search", rows, f"{len(inputs.images[0])} images, 32 of them for calibration.")
    publish("search.py", rows, inputs=inputs)


if __name__ == "__main__":
    main()
