"""What does a run for an Ascend NPU gain by layers that start in float, and what does float16 behind layers cost?

One row per network, with float layers for the device or without, and with the values behind each AscendDequant in
float32 or float16. The table is written into ``docs/ascend.md``.
"""

from pathlib import Path
from typing import Any

from measuring import BATCH, ROOT, mean_kl, measured_on, parse_inputs, predict, report, table

import numpy as np
import tensorflow as tf
from networks import REAL, Network
from pages import write_section
from tensorflow.core.framework.graph_pb2 import GraphDef

import amct_tensorflow as amct
from amct_tensorflow.devices.device_run import prepare_for_device
from amct_tensorflow.devices.device_table import ASCEND
from amct_tensorflow.devices.graph_check import check_graph
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.calibration.calibrate import prepare_calibration
from amct_tensorflow.quantize.quantized.ascend_ops import with_float16_values
from amct_tensorflow.quantize.quantized.builder import quantize_graph

PAGE = ROOT / "docs" / "ascend.md"


def main() -> None:
    """Measures the networks with real weights."""
    inputs, _ = parse_inputs("layers in float for the device, and float16 behind layers")
    images = inputs.images[0]
    rows = [row for network in REAL for row in measure(network, images)]
    report("ascend", rows, f"{len(images)} images, {BATCH} of them to calibrate with.")
    if inputs.are_default:
        write_section(PAGE, Path(__file__).name, ["", *table(rows), "", measured_on(), ""])


def measure(network: Network, images: np.ndarray) -> list[dict[str, Any]]:
    """Returns the rows of a network."""
    model = FloatModel.load(network.model, [network.output])
    expected = outputs_of(model.graph_def, network, images)
    config = amct.make_quant_config(model)
    in_float = prepare_for_device(model, config, ASCEND).in_float

    def calibrate(graph: tf.Graph, _outputs: object) -> None:
        with tf.compat.v1.Session(graph=graph) as session:
            session.run(f"{network.output}:0", {f"{network.input}:0": images[:BATCH]})

    prepared = prepare_calibration(model, config, calibrate)
    prepared.run()
    calibration = prepared.result()
    plan = calibration.plan(model.fuse((), calibration.balance), model.outputs)
    rows = []
    for kept in ({}, in_float):
        quantized = quantize_graph(plan.restrict(dict.fromkeys(kept, False))).graph_def
        share = check_graph(quantized, model.outputs).int8_share
        for values, graph_def in (("float32", quantized), ("float16", with_float16_values(quantized))):
            actual = outputs_of(graph_def, network, images)
            rows.append({
                "network": network.name,
                "layers in float for the device": len(kept),
                "MACs in int8 on the device": "?" if share is None else f"{100 * share:.1f} %",
                "values behind layers": values,
                "KL": mean_kl(expected, actual),
                "agrees with float": f"{100 * np.mean(expected.argmax(axis=1) == actual.argmax(axis=1)):.2f} %",
            })  # fmt: skip
    return rows


def outputs_of(graph_def: GraphDef, network: Network, images: np.ndarray) -> np.ndarray:
    """Returns the softmax of a model for images."""
    return predict(import_graph(graph_def, network.name), images, f"{network.input}:0", network.output)


if __name__ == "__main__":
    main()
