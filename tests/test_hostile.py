"""Models and records that were made to do harm: one clear error, or a run as if nothing was wrong, soon."""

import resource
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from graphs import build, normal, small_net, tf1
from programs import run_program
from small_sample import SAMPLE

import amct_tensorflow as amct
from amct_tensorflow.errors import AmctError, ModelError, RecordError
from amct_tensorflow.model.model_file import import_graph, load_graph, read_model
from amct_tensorflow.quantize.record.record_file import read_record

OUTPUT = "probabilities"


def save(graph_def):
    Path("net.pb").write_bytes(graph_def.SerializeToString())
    return "net.pb"


def prepare_and_convert(graph_def):
    """Does everything that does not need data."""
    model = save(graph_def)
    graph = load_graph(model)
    amct.create_quant_config("config.json", graph)
    amct.quantize_model(graph, "config.json", "taps.txt")
    record = ""
    for name, layer_type in (("conv/Conv2D", True), ("dw/depthwise", True), ("pool/AvgPool", False)):
        weights = "scale_w: 0.5 offset_w: 0" if layer_type else ""
        record += f'record {{ key: "{name}" value {{ scale_d: 0.5 offset_d: -128 {weights} }} }}\n'
    Path("record.txt").write_text(record)
    amct.convert_model(model, [OUTPUT], "record.txt", "net")
    return read_model("net_quantized.pb").graph_def


@pytest.mark.parametrize("length", [5_000, pytest.param(100_000, marks=pytest.mark.campaign)])
def test_a_long_chain_of_identities(workdir, length):
    """Between a layer's weights and the layer, and behind the output."""
    graph_def = build(small_net)
    (conv,) = (node for node in graph_def.node if node.name == "conv/Conv2D")
    before = conv.input[1]
    for index in range(length):
        node = graph_def.node.add(name=f"chain/{index}", op="Identity", input=[before])
        node.attr["T"].type = tf.float32.as_datatype_enum
        before = node.name
    conv.input[1] = before
    start = time.monotonic()
    quantized = prepare_and_convert(graph_def)
    assert time.monotonic() - start < 120
    nodes = {node.name: node for node in quantized.node}
    assert nodes[nodes["conv/Conv2D"].input[1]].op == "AscendWeightQuant"


def test_cycles(workdir):
    graph_def = build(small_net)
    nodes = {node.name: node for node in graph_def.node}
    nodes["conv/Conv2D"].input[0] = "dw/Relu6"
    with pytest.raises(ModelError):
        prepare_and_convert(graph_def)
    nodes["conv/Conv2D"].input[0] = "conv/Conv2D"
    with pytest.raises(ModelError):
        prepare_and_convert(graph_def)
    nodes["conv/Conv2D"].input[0] = "input"
    nodes["conv/weights/read"].input[0] = "conv/weights/read"
    with pytest.raises(ModelError):
        prepare_and_convert(graph_def)
    nodes["conv/weights/read"].input[0] = "conv/weights"
    nodes["conv/weights"].input.append("^probabilities")
    with pytest.raises(ModelError):
        prepare_and_convert(graph_def)


def test_two_nodes_of_one_name(workdir):
    graph_def = build(small_net)
    graph_def.node.add().CopyFrom(graph_def.node[3])
    with pytest.raises(ModelError, match="two nodes named"):
        prepare_and_convert(graph_def)


@pytest.mark.parametrize("name", ["AscendQuant", "AscendWeightQuant", "AscendDequant", "AscendAntiQuant"])
def test_a_function_library_that_takes_our_names(workdir, name):
    """Even if nothing calls the function; it would be called by the nodes that quantization adds."""
    graph_def = build(small_net)
    graph_def.library.function.add().signature.name = name
    Path("record.txt").write_text('record { key: "pool/AvgPool" value { scale_d: 0.5 offset_d: 0 } }')
    with pytest.raises(ModelError, match=f"function library .* defines '{name}'"):
        amct.convert_model(save(graph_def), [OUTPUT], "record.txt", "net")
    assert not Path("net_quantized.pb").exists()


@pytest.mark.parametrize("sizes", [[2**40, 2**20], [2**62, 4, 1, 1], [-5, 3], [2**31] * 4])
def test_gigantic_declared_shapes_take_no_memory(workdir, sizes):
    graph_def = build(small_net)
    (weights,) = (node for node in graph_def.node if node.name == "conv/weights")
    shape = weights.attr["value"].tensor.tensor_shape
    shape.Clear()
    for size in sizes:
        shape.dim.add(size=size)
    weights.attr["value"].tensor.tensor_content = b""
    weights.attr["value"].tensor.float_val.append(1.0)  # stands for every element
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AmctError):
        prepare_and_convert(graph_def)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def test_a_large_shape_filled_with_one_value(workdir):
    """A hundred bytes that would become gigabytes."""
    graph_def = build(small_net)
    (weights,) = (node for node in graph_def.node if node.name == "conv/weights")
    tensor = weights.attr["value"].tensor
    tensor.Clear()
    tensor.dtype = tf.float32.as_datatype_enum
    for size in (3, 3, 3, 2**31 - 1):
        tensor.tensor_shape.dim.add(size=size)
    tensor.float_val.append(1.0)
    with pytest.raises(AmctError):
        prepare_and_convert(graph_def)


def with_control_edges():
    """A layer that waits for others, constants that wait for the input, and an output that waits for a side branch."""
    small_net()
    graph = tf1.get_default_graph()
    find = graph.get_operation_by_name
    with tf.control_dependencies([find("dw/depthwise")]):
        side = tf.constant(1.0, name="side")
    find("project/Conv2D")._add_control_input(side.op)
    find("conv/weights")._add_control_input(find("input"))
    find("pool/AvgPool")._add_control_input(find("conv/Relu6"))


def test_control_edges_are_kept(workdir):
    quantized = prepare_and_convert(build(with_control_edges))
    graph = import_graph(quantized, "quantized")
    with tf1.Session(graph=graph) as session:
        probabilities = session.run(f"{OUTPUT}:0", {"input:0": normal((2, 12, 12, 3))})
    assert np.isfinite(probabilities).all()


NAMES = [
    "..",
    "../../etc/passwd",
    "a/../b",
    "/abs",
    "a\nb",
    "\x1b[2J",
    "a\x00b",
    "a" * 100_000,
    "ü",
    "a b",
    "$(reboot)",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_are_no_paths_and_move_no_cursor(workdir, name, capsys):
    """Of a layer, and of a prefix; TensorFlow refuses most of them."""
    graph_def = build(small_net)
    for node in graph_def.node:
        node.name = name if node.name == "conv/Conv2D" else node.name
        for index, text in enumerate(node.input):
            node.input[index] = name if text == "conv/Conv2D" else text
    Path("outside").mkdir()
    before = sorted(Path("outside").iterdir())
    try:
        prepare_and_convert(graph_def)
    except AmctError as error:
        assert len(str(error)) < 400_000
    assert sorted(Path("outside").iterdir()) == before
    assert {path.name for path in Path().iterdir()} <= {
        "outside", "net.pb", "config.json", "taps.txt", "record.txt", "net_quantized.pb", "net_quant.json", "amct_log",
    }  # fmt: skip
    error = capsys.readouterr().err
    assert all(line.isprintable() for line in error.splitlines())


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0", "-1", "1e-300", "1e39"])
@pytest.mark.parametrize("field", ["scale_d", "scale_w"])
def test_factors_that_are_no_numbers(workdir, field, value):
    factors = {"scale_d": "0.5", "scale_w": "0.5"} | {field: value}
    Path("record.txt").write_text(
        f'record {{ key: "conv/Conv2D" value {{ scale_d: {factors["scale_d"]} offset_d: 0 '
        f"scale_w: {factors['scale_w']} offset_w: 0 }} }}"
    )
    with pytest.raises(RecordError, match=field):
        read_record("record.txt")


def test_the_sample_shows_no_escape_sequence(workdir):
    """Not even those in its arguments and in the names of files."""
    (workdir / "data").mkdir()
    (workdir / "data" / "\x1b[2Jevil\n").write_bytes(b"no records")
    model = ROOT / "model" / "mobilenet_v2_0.35_48_fashion_mnist.pb"
    for arguments in (["--dataset", "data", "--model", str(model)], ["--dataset", "\x1b[31mred\n"]):
        done = run_program(SAMPLE, *arguments)
        ours = [line for line in done.stderr.splitlines() if "[AMCT]" in line]
        assert done.returncode == 1 and ours and all(line.isprintable() for line in ours)
        assert "Traceback" not in done.stderr
