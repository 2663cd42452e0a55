"""Names of the original, the prepared, the fused and the quantized graph: the type checker tells them apart."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

# Lines that take one name for another end with a comment that says so; the others are right.
PROGRAM = """
from amct_tensorflow.graph.names import FusedName, LayerName, OriginalName, PreparedName, QuantizedName, RecordKey
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.fusion import FusedGraph
from amct_tensorflow.model.layers import layer_names
from amct_tensorflow.model.preparation.prepared import PreparedGraph
from amct_tensorflow.quantize.config.schema import QuantConfig
from amct_tensorflow.quantize.quantized.builder import QuantizedGraph
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.quantize.record.record_file import read_record


def confuse(
    model: FloatModel, graph: PreparedGraph, fused: FusedGraph, plan: QuantizationPlan, quantized: QuantizedGraph,
    config: QuantConfig,
    original: OriginalName, prepared: PreparedName, node: FusedName, layer: LayerName, key: RecordKey,
) -> None:
    graph.original_names(prepared)
    graph.original_names(original)  # an original name is no prepared one
    graph.original_names(node)  # a fused name is no prepared one
    model.original_upstream([prepared])
    model.original_upstream([original])  # an original name is no prepared one
    fused.originals([node])
    fused.originals([prepared])  # a prepared name is no fused one
    fused.originals(fused.prepared_values())  # a prepared name is no fused one
    fused.tail_of(layer)
    fused.tail_of(original)  # the file may call a layer otherwise
    fused.tail_of(fused.tail_of(layer))  # a node of a layer is no layer
    fused.layers[key]  # a record may call a layer otherwise
    fused.layers[layer_names(model.layers)[key]]
    QuantizationPlan(fused, read_record("record.txt"), {}, ())  # a record may call a layer otherwise
    model.fuse(config.unfused_layers(), fused.balance)
    model.fuse([original])  # the file may call a layer otherwise
    model.original.nodes[original]
    model.original.nodes[prepared]  # a prepared name is no original one
    model.view.consumers(prepared)
    model.view.consumers(original)  # an original name is no prepared one
    fused.view.nodes[node]
    fused.view.nodes[prepared]  # a prepared name is no fused one
    quantized.origins[QuantizedName(layer)]
    quantized.origins[node]  # a fused name is no quantized one
    model.fuse(fused.layers[layer].absorbed)  # absorbed nodes are original ones
"""


@pytest.mark.campaign
def test_no_name_is_taken_for_that_of_another_graph(tmp_path):
    program = tmp_path / "confuse.py"
    program.write_text(PROGRAM)
    options = ["--config-file", "pyproject.toml", "--no-error-summary", "--hide-error-context", program]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *options], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    refused = {int(line.split(":")[1]) for line in run.stdout.splitlines() if ": error:" in line}
    expected = {number for number, line in enumerate(PROGRAM.splitlines(), 1) if "  # " in line}
    assert refused == expected, run.stdout + run.stderr
