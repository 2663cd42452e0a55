"""What does each step gain on dense layers? Each left out, on two transformers, and with attention's products in int8.

One row per way to quantize, for each network (``sentences.py``, ``networks.py``) in a process of its own: the public
steps with a configuration that leaves something out. When all rows of all networks were measured, the tables are
written into ``docs/algorithms.md``.
"""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

from measuring import ROOT, measured_on, report, scratch_folder, table

import numpy as np
import tensorflow as tf
from models import measure_networks, network_arguments, run, signal_to_noise
from networks import Network
from pages import write_section
from processes import is_complete
from sentences import MINILM, Feed, Sentences

import amct_tensorflow as amct
from amct_tensorflow.model.model_file import load_graph

PAGE = ROOT / "docs" / "algorithms.md"
NAMES = [MINILM.name, "ViTTiny"]
Config: TypeAlias = dict[str, Any]


def one_scale_per_layer(config: Config) -> None:
    """Gives all output channels of a layer one scale of weights."""
    for layer in _layers(config):
        if "weight_quant_params" in layer:
            layer["weight_quant_params"]["channel_wise"] = False


def no_balancing(config: Config) -> None:
    """Leaves the channels of what dense layers read as they are."""
    config["input_balancing"] = False


def no_second_moments(config: Config) -> None:
    """Rounds weights to the nearest."""
    config["weight_rounding"] = "nearest"


LEFT_OUT: dict[str, tuple[Callable[[Config], None], ...]] = {
    "nothing": (),
    "a scale per channel": (one_scale_per_layer,),
    "balancing": (no_balancing,),
    "second moments": (no_second_moments,),
    "balancing and second moments": (no_balancing, no_second_moments),
    "all three": (one_scale_per_layer, no_balancing, no_second_moments),
}
WITH_PRODUCTS = ("nothing", "balancing and second moments")
# So many batches judge; of sentences these are 256.
MOST_BATCHES = 8


def main() -> None:
    """Measures each network in a process of its own."""
    arguments = network_arguments("signal over noise of transformers, with each step left out", NAMES)
    networks = measure_networks("dense", __file__, arguments, measure)
    rows = [{"network": network["network"], **row} for network in networks for row in format_rows(network)]
    report("dense", rows)
    if is_complete(networks, NAMES):
        lines = [line for network in networks for line in section(network)]
        write_section(PAGE, Path(__file__).name, [measured_on(), *lines])
    else:
        print(f"{PAGE} is as it was: it shows both networks or none.")


def measure(network: Network | Sentences) -> dict[str, Any]:
    """Returns what each way to quantize a network gives."""
    held_out = network.held_out()[:MOST_BATCHES]
    in_float = evaluate(load_graph(network.model), network, held_out)
    rows = []
    for left_out, with_products in [*((name, False) for name in LEFT_OUT), *((name, True) for name in WITH_PRODUCTS)]:
        with scratch_folder():
            layers = quantize(network, LEFT_OUT[left_out], with_products=with_products)
            found = evaluate(load_graph(Path("net_quantized.pb")), network, held_out)
        rows.append(
            {
                "left_out": left_out,
                "products": "int8" if with_products else "float",
                "layers": layers,
                "signal_to_noise_db": signal_to_noise(network.signal(in_float), network.signal(found)),
                "agreement": network.agreement(in_float, found),
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return {"network": network.name, "rows": rows}


def find_products(model: amct.FloatModel) -> list[str]:
    """Returns the layers that multiply two computed matrices."""
    return [spec.name for spec in model.layers if spec.is_product]


def quantize(network: Network | Sentences, changes: Iterable[Callable[[Config], None]], *, with_products: bool) -> int:
    """Quantizes a network in the current folder; returns how many layers are in int8."""
    graph, feed = load_graph(network.model), network.calibration()
    amct.create_quant_config("config.json", graph)
    config = json.loads(Path("config.json").read_text())
    for change in changes:
        change(config)
    for name in find_products(amct.FloatModel.load(network.model, [network.output])):
        config[name]["quant_enable"] = with_products
    Path("config.json").write_text(json.dumps(config))
    amct.quantize_model(graph, "config.json", "record.txt", [network.output])
    with tf.compat.v1.Session(graph=graph) as session:
        run(session, network, feed)
    amct.save_model(str(network.model), [network.output], "record.txt", "net")
    return sum(layer["quant_enable"] for layer in _layers(config))


def evaluate(graph: tf.Graph, network: Network | Sentences, batches: Iterable[Feed]) -> np.ndarray:
    """Returns the output for all batches."""
    with tf.compat.v1.Session(graph=graph) as session:
        return np.concatenate([run(session, network, batch) for batch in batches])


def _layers(config: Config) -> list[Config]:
    return [value for value in config.values() if isinstance(value, dict) and "quant_enable" in value]


def format_rows(network: dict[str, Any]) -> list[dict[str, str]]:
    """Returns the cells of each row of a network."""
    if "remark" in network:
        return [{"remark": network["remark"]}]
    return [
        {
            "left out": row["left_out"],
            "attention's products": row["products"],
            "layers in int8": str(row["layers"]),
            "signal-to-noise dB": f"{row['signal_to_noise_db']:.1f}",
            "users see": row["agreement"],
        }
        for row in network["rows"]
    ]


def section(network: dict[str, Any]) -> list[str]:
    """Returns the lines of a network in the page."""
    return ["", f"**{network['network']}**:", "", *table(format_rows(network))]


if __name__ == "__main__":
    main()
