"""How long does it take to rank all layers by how they move the model's output, and how much memory?

The unit is one evaluation of the float model on all images. The memory is measured for half of the layers and for all.
"""

import json
import subprocess
import sys
import time

from measuring import BATCH, INPUT, OUTPUT, Inputs, parse_inputs, peak_memory, predict, publish, report, scratch_folder

import tensorflow as tf

import amct_tensorflow as amct
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.calibration.calibrator import Calibrator
from amct_tensorflow.quantize.config.json_file import read_config
from amct_tensorflow.search.sensitivity.layer_scores import LayerScores
from amct_tensorflow.search.sensitivity.measures import OutputDivergenceSensitivity


def main() -> None:
    """Measures each number of layers in a process of its own, for the sake of the peak memory."""
    inputs, arguments = parse_inputs(
        "time and memory of the output-level ranking",
        lambda parser: parser.add_argument("--layers", type=int, help="rank so many layers, and print one JSON line"),
    )
    if arguments.layers is not None:
        print(json.dumps(measure(inputs, arguments.layers)))
        return
    rows = []
    for layers in (0, 13, 27, 54):
        command = [sys.executable, __file__, "--model", inputs.model, "--dataset", inputs.dataset, "--layers", layers]
        done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    report("ranking", rows, f"{len(inputs.images[0])} images in an evaluation, {BATCH} for the ranking.")
    publish("ranking.py", rows, inputs=inputs)


def measure(inputs: Inputs, layers: int) -> dict[str, float]:
    """Evaluates the float model, then calibrates and ranks."""
    images = inputs.images[0]
    model = FloatModel.load(inputs.model, [OUTPUT])
    start = time.perf_counter()
    predict(import_graph(model.graph_def, inputs.model), images)
    evaluation = time.perf_counter() - start
    with scratch_folder():
        amct.create_quant_config("config.json", model.graph)
        config = read_config("config.json", model.layers, model.view.op_types())
    kept = config.enabled_layers()[:layers] if layers else config.enabled_layers()
    config = config.with_enabled({name: name in kept for name in config.enabled_layers()})
    calibrator = Calibrator(model, config, lambda _: None, for_search=True)
    with tf.compat.v1.Session(graph=model.graph) as session:
        session.run(f"{OUTPUT}:0", {INPUT: images[:BATCH]})
    calibration = calibrator.check_complete()
    scores = LayerScores(model.outline, calibration.plan(calibrator.fused, model.outputs), calibration)
    before = peak_memory()
    start = time.perf_counter()
    if layers:
        scores.ranking(OutputDivergenceSensitivity())
    seconds = time.perf_counter() - start
    return {
        "layers": layers,
        "seconds": seconds,
        "float evaluations": seconds / evaluation,
        "peak memory MB": peak_memory(),
        "more than before MB": peak_memory() - before,
    }


if __name__ == "__main__":
    main()
