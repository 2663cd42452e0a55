"""Files of strangers: whatever is in them, only errors of our own come out, soon and with little memory.

``FUZZ_CASES`` says how many cases each parser gets: more in ``make test-all``, and many more in ``make fuzz``.
"""

import contextlib
import io
import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from conftest import load_script
from graphs import build, small_net
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reports import make_report
from tfjs_models import write_graph_model, write_layers_model

import amct_tensorflow as amct
from amct_tensorflow.data import DatasetError, scan_records
from amct_tensorflow.errors import AmctError
from amct_tensorflow.graph.view import GraphView, static_shapes
from amct_tensorflow.io.publishing import JOURNAL, finish
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.fusion import fuse
from amct_tensorflow.model.layers import find_layers
from amct_tensorflow.model.model_file import import_graph, read_model
from amct_tensorflow.quantize.calibration.calibrator import CalibrationResult, Calibrator
from amct_tensorflow.quantize.calibration.layer_analysis import LayerAnalysis
from amct_tensorflow.quantize.calibration.observers import ActivationSummary
from amct_tensorflow.quantize.config.json_file import read_config
from amct_tensorflow.quantize.config.simplified import read_simplified
from amct_tensorflow.quantize.quantized.builder import quantize_graph
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.quantize.record.corrections import corrections_path, read_corrections, write_corrections
from amct_tensorflow.quantize.record.factors import LayerCorrection, LayerFactors
from amct_tensorflow.quantize.record.record_file import dump_record, read_record
from amct_tensorflow.results.report.page import render_report
from amct_tensorflow.results.report.report_files import read_exports
from amct_tensorflow.results.report.report_json import dump_report, read_report
from amct_tensorflow.search.evaluator import Evaluation
from amct_tensorflow.search.run_key import RunKey, digest
from amct_tensorflow.search.state import SearchState

sample = load_script("src/mobilenet_v2_accuracy_based_auto_calibration.py")
writer = load_script("src/images_to_tfrecords.py")

CASES = int(os.environ.get("FUZZ_CASES", "50"))
MOST_THAT_ARE_ALWAYS_THE_SAME = 1000
fuzz = settings(
    max_examples=CASES, deadline=20_000, database=None, derandomize=CASES <= MOST_THAT_ARE_ALWAYS_THE_SAME,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip

slow_fuzz = settings(fuzz, max_examples=max(CASES // 8, 20))  # each case builds a pipeline

GRAPH_DEF = build(small_net)
MODEL = GRAPH_DEF.SerializeToString(deterministic=True)
GRAPH = import_graph(GRAPH_DEF, "small net")
VIEW = GraphView(GRAPH_DEF, static_shapes(GRAPH))
LAYERS = find_layers(VIEW)
OP_TYPES = VIEW.op_types()
FUSED_LAYERS = fuse(VIEW).layers
FACTORS = {"conv/Conv2D": LayerFactors(0.5, -128, (0.25,) * 8), "pool/AvgPool": LayerFactors(0.5, 3)}
HOSTILE = [b"\x00", b"\xff" * 9, b"NaN", b"1e999", b"-1", b"[" * 2000, b'"', b"\x1b[2J", b"../../x", b"\n", b"9" * 400]


@st.composite
def mutations(draw, valid):
    """Bytes that a stranger might send: noise, or what is valid with a few changes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(draw(st.sampled_from(valid)) if isinstance(valid, list) else valid)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from([0, 0, 1, 2, 8, 64, len(data)]))
        other = draw(st.integers(0, len(data)))
        data[start : start + length] = draw(
            st.one_of(st.binary(max_size=8), st.sampled_from(HOSTILE), st.just(bytes(data[other : other + 40])))
        )
    return bytes(data)


def values():
    """Anything that JSON can hold."""
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    )


@st.composite
def documents(draw, valid):
    """A valid JSON document with something in it replaced, added or removed; or one cut and patched as bytes."""
    if draw(st.booleans()):
        return draw(mutations(json.dumps(valid).encode()))
    document = json.loads(json.dumps(valid))
    for _ in range(draw(st.integers(1, 3))):
        where = document
        while isinstance(where, (dict, list)) and where:
            keys = list(where) if isinstance(where, dict) else range(len(where))
            key = draw(st.sampled_from(keys))
            if isinstance(where[key], (dict, list)) and where[key] and draw(st.integers(0, 4)):
                where = where[key]
                continue
            if draw(st.integers(0, 3)) == 0 and isinstance(where, dict):
                del where[key]
            else:
                where[key] = draw(values())
            break
    return json.dumps(document).encode()


@contextlib.contextmanager
def only_own_errors(*more):
    with contextlib.suppress(AmctError, *more):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


# --------------------------------------------------------------------------------------------------------- Parsers


@given(data=mutations(MODEL))
@fuzz
def test_graph_def(folder, data):
    (folder / "net.pb").write_bytes(data)
    with only_own_errors():
        graph_def = read_model(folder / "net.pb").graph_def
        graph = import_graph(graph_def, "net.pb")
        amct.create_quant_config(str(folder / "from_graph.json"), graph)
        fuse(GraphView(graph_def), keep=["probabilities"])


@pytest.fixture(scope="module", params=["graph", "layers"])
def web(request, folder):
    """A TensorFlow.js model in a folder of its own, and its JSON."""
    path = folder / f"web_{request.param}"
    if request.param == "graph":
        write_graph_model(path, GRAPH_DEF, {"scores": "probabilities:0"}, ["input"])
    else:
        layer = {"name": "a", "units": 3, "activation": "relu", "batch_input_shape": [None, 4]}
        config = {"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": layer}]}}
        weights = {"a/kernel": np.ones((4, 3), np.float32), "a/bias": np.ones(3, np.float32)}
        write_layers_model(path, config, "2.10.0", weights)
    return path, json.loads((path / "model.json").read_text())


@given(data=st.data())
@slow_fuzz
def test_tfjs(web, data):
    path, valid = web
    (path / "model.json").write_bytes(data.draw(documents(valid)))
    with only_own_errors():
        read_model(path)


OPS = ["Conv2D", "MatMul", "AvgPool", "Const", "Identity", "Placeholder", "BiasAdd", "FusedBatchNorm", "Relu6", "Add",
       "DepthwiseConv2dNative", "Mul", "Merge", "Switch", "NextIteration", "Enter", "Exit", "AscendQuant", "NoSuchOp",
       "VariableV2", "PyFunc", "ReadFile", "Conv2DBackpropInput", "Squeeze", "Reshape", ""]  # fmt: skip
NAMES = [node.name for node in GRAPH_DEF.node] + ["", "../x", "a\nb", "\x1b[2J", "x" * 5000, "conv", "^conv/Conv2D"]


@st.composite
def graphs(draw):
    """The small net after changes to nodes, edges, attributes and shapes."""
    graph_def = tf.compat.v1.GraphDef.FromString(MODEL)
    for _ in range(draw(st.integers(1, 4))):
        node = draw(st.sampled_from(graph_def.node))
        change = draw(
            st.sampled_from(["op", "name", "input", "edge", "control", "attribute", "shape", "copy", "order"])
        )
        if change == "op":
            node.op = draw(st.sampled_from(OPS))
        elif change == "name":
            node.name = draw(st.sampled_from(NAMES))
        elif change == "input" and node.input:
            node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from(NAMES))
        elif change == "edge":
            node.input.append(draw(st.sampled_from(NAMES)) + draw(st.sampled_from(["", ":0", ":7", ":99999999999"])))
        elif change == "control":
            node.input.insert(draw(st.integers(0, len(node.input))), "^" + draw(st.sampled_from(NAMES)))
        elif change == "attribute" and node.attr:
            other = draw(st.sampled_from([one for one in graph_def.node if one.attr]))
            value = other.attr[draw(st.sampled_from(sorted(other.attr)))]
            node.attr[draw(st.sampled_from(sorted(node.attr)))].CopyFrom(value)
        elif change == "shape":
            sizes = draw(st.lists(st.sampled_from([-2, -1, 0, 1, 3, 2**20, 2**40, 2**62]), max_size=5))
            shapes = [node.attr["value"].tensor.tensor_shape] if "value" in node.attr else [node.attr["shape"].shape]
            shapes[0].Clear()
            for size in sizes:
                shapes[0].dim.add(size=size)
        elif change == "copy":
            graph_def.node.add().CopyFrom(node)
        elif change == "removal":
            del graph_def.node[draw(st.integers(0, len(graph_def.node) - 1))]
    return graph_def.SerializeToString()


@given(data=graphs())
@fuzz
def test_graph(folder, data):
    (folder / "graph.pb").write_bytes(data)
    with only_own_errors():
        model = FloatModel.load(folder / "graph.pb", ["probabilities"])
        amct.create_quant_config(str(folder / "of_graph.json"), model.graph)
        config = read_config(folder / "of_graph.json", model.layers, model.op_types)
        Calibrator(model, config, lambda _: None, for_search=True)
        factors = {name: LayerFactors(0.5, -128, (0.25,)) for name in config.enabled_layers()}
        fused = model.fuse(factors)
        weighted = {name for name, layer in fused.layers.items() if layer.weights is not None}
        factors = {name: LayerFactors(0.5, -128, (0.25,) if name in weighted else ()) for name in factors}
        quantized = quantize_graph(QuantizationPlan(fused, factors, {}, model.outputs))
        import_graph(quantized.graph_def, "the quantized model")


@given(data=mutations(dump_record(FACTORS).encode()))
@fuzz
def test_record(folder, data):
    (folder / "record.txt").write_bytes(data)
    with only_own_errors():
        for factors in read_record(folder / "record.txt").values():
            assert 0 < factors.scale_d < np.inf and -128 <= factors.offset_d <= 127


@given(data=mutations(dump_record(FACTORS).encode()))
@fuzz
def test_record_for_a_model(folder, data):
    """What converts is finite."""
    (folder / "net.pb").write_bytes(MODEL)
    (folder / "record.txt").write_bytes(data)
    with only_own_errors():
        amct.convert_model(str(folder / "net.pb"), ["probabilities"], str(folder / "record.txt"), str(folder / "out"))


@pytest.fixture(scope="module")
def config(folder):
    amct.create_quant_config(str(folder / "valid.json"), GRAPH)
    return json.loads((folder / "valid.json").read_text())


@given(data=st.data())
@fuzz
def test_config(folder, config, data):
    (folder / "config.json").write_bytes(data.draw(documents(config)))
    with only_own_errors():
        read_config(folder / "config.json", LAYERS, OP_TYPES)


CFG = b"""batch_num: 2 skip_layers: "conv/Conv2D" common_config: { arq_quantize: { channel_wise: true }
ifmr_quantize: { search_range_start: 0.8 search_range_end: 1.2 search_step: 0.02 } } override_layer_types: {
layer_type: "DepthwiseConv2dNative" calibration_config: { hfmg_quantize: { num_of_bins: 4096 } } }
tensor_quantize: { layer_name: "probabilities" input_index: 0 }"""


@given(data=mutations(CFG))
@fuzz
def test_simplified_configuration(folder, data):
    (folder / "my.cfg").write_bytes(data)
    with only_own_errors():
        read_simplified(str(folder / "my.cfg"), LAYERS, OP_TYPES)


CORRECTION = LayerCorrection(np.linspace(-1, 1, 8), np.ones((3, 3, 3, 8), np.int8))


@given(data=st.data())
@fuzz
def test_corrections(folder, data):
    record = folder / "corrected.txt"
    write_corrections(record, FACTORS, {"conv/Conv2D": CORRECTION}, FUSED_LAYERS)
    valid = json.loads(corrections_path(record).read_text())
    corrections_path(record).write_bytes(data.draw(documents(valid)))
    with only_own_errors():
        for correction in read_corrections(record, FACTORS, FUSED_LAYERS).values():
            assert all(np.isfinite(values).all() for values in correction.parts().values())


KEY = RunKey({"model": "0", "configuration": "1"})


@pytest.fixture(scope="module")
def state(folder):
    """A folder with the state of a run."""
    found = SearchState.begin(folder / "state", KEY, {})
    found.add_evaluation(None, Evaluation(0.5, 1.0, np.array([0.0, 1.0])))
    analyses = {name: LayerAnalysis(0.9, 10, 0.01, 0.02) for name in FACTORS}
    corrections = dict.fromkeys(FACTORS, CORRECTION)
    found.add_calibration(
        CalibrationResult(
            FACTORS, corrections, analyses, ({"input:0": np.ones((2, 3), np.float32)},),
            summaries={name: ActivationSummary(-1.0, 2.0, np.ones(4)) for name in FACTORS}, images=2,
        )
    )  # fmt: skip
    predictions = np.array(["cat", "dog"])
    found.add_evaluation(["conv/Conv2D"], Evaluation({"top1": 1.5}, 1.0, None, image_predictions=predictions))
    return folder / "state"


def resume(folder):
    """Takes up a state; a damaged one is not used, and no error comes out."""

    def check(calibration):
        parts = [values for correction in calibration.corrections.values() for values in correction.parts().values()]
        assert all(np.isfinite(values).all() for values in parts)

    return SearchState.resume(folder, KEY, {}, check)


def test_an_intact_state_is_used(state):
    found = resume(state)
    assert found.evaluation(None).metric == 0.5 and found.evaluation(["conv/Conv2D"]).metric == {"top1": 1.5}
    assert found.calibration.factors == FACTORS and found.calibration.images == 2
    assert found.calibration.batches[0]["input:0"].tolist() == [[1, 1, 1]] * 2


@given(data=st.data())
@fuzz
def test_state(folder, state, data):
    copy = folder / "damaged"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(state, copy)
    (copy / "state.json").write_bytes(data.draw(documents(json.loads((state / "state.json").read_text()))))
    resume(copy)


@given(data=st.data())
@fuzz
def test_arrays_of_a_state(folder, state, data):
    """Whoever sends them sends the matching digests as well."""
    arrays = data.draw(mutations((state / "calibration.npz").read_bytes()))
    resume(replace_arrays(state, folder / "damaged arrays", arrays))


def replace_arrays(state, copy, arrays):
    """Copies a state, with other arrays of the calibration and the digest that belongs to them."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(state, copy)
    (copy / "calibration.npz").write_bytes(arrays)
    document = (copy / "state.json").read_text()
    old = digest((state / "calibration.npz").read_bytes())
    (copy / "state.json").write_text(document.replace(old, digest(arrays)))
    return copy


def packed(compress=False, **members):
    stream = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(stream, **members)
    return stream.getvalue()


def encrypted(data):
    """Sets the flag of every member that says that a password is needed."""
    for header, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        parts = data.split(header)
        flagged = [part[: offset - 4] + bytes([part[offset - 4] | 1]) + part[offset - 3 :] for part in parts[1:]]
        data = header.join([parts[0], *flagged])
    return data


ARRAYS = {
    "encrypted": (encrypted, "password required"),
    "compressed": (lambda data: packed(True, names=np.array(["a"]), **{"0": np.zeros(1)}), "is compressed"),
    "no archive": (lambda data: b"PK", "BadZipFile"),
    "no names": (lambda data: packed(**{"0": np.zeros(1)}), "does not hold the arrays"),
    "fewer": (lambda data: packed(names=np.array(["a", "b"]), **{"0": np.zeros(1)}), "does not hold the arrays"),
    "objects": (lambda data: packed(names=np.array(["a"]), **{"0": np.array([{}])}), "allow_pickle"),
    "text": (
        lambda data: packed(names=np.array(["bias conv/Conv2D"]), **{"0": np.array(["1.0"])}),
        "no array of numbers",
    ),
    "a batch too many": (
        lambda data: packed(names=np.array(["batch -1 input:0"]), **{"0": np.zeros(1)}), "other batches",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "words"), ARRAYS.values(), ids=ARRAYS)
def test_arrays_that_are_not_used(folder, state, messages, damage, words):
    copy = replace_arrays(state, folder / "other arrays", damage((state / "calibration.npz").read_bytes()))
    assert resume(copy).calibration is None
    assert any(words in line and str(copy) in line and "Starting from the beginning" in line for line in messages)


def test_a_fault_of_our_own_does_not_pass_for_a_damaged_state(state, monkeypatch):
    monkeypatch.setattr(amct.search.state, "parse_record", lambda text, source: {}["renamed"])
    with pytest.raises(KeyError):
        resume(state)


@given(data=st.data())
@fuzz
def test_journal(folder, data):
    out = folder / "journal"
    out.mkdir(exist_ok=True)
    valid = [str(out / "a"), str(out / "b"), str(folder / "valid")]
    (folder / "valid").write_text("stays")
    (out / JOURNAL).write_bytes(data.draw(documents(valid)))
    before = {path for path in folder.iterdir() if path.is_file()}
    finish(out, [out / "a", out / "b"])
    assert (folder / "valid").read_text() == "stays"
    assert {path for path in folder.iterdir() if path.is_file()} == before
    assert not (out / JOURNAL).exists()


def png(level):
    return tf.io.encode_png(np.full((4, 4, 3), level, np.uint8)).numpy()


EXAMPLE = writer.serialize_example({"image/encoded": png(80), "image/class/label": 1})


@given(data=mutations(EXAMPLE))
@slow_fuzz
def test_example(folder, data):
    """In a file that is sound, so that it comes to parsing and decoding."""
    file = folder / "examples" / "validation-0"
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as records:
        records.write(data)
    with contextlib.suppress(DatasetError):
        dataset = scan_records([str(file)], sample.FEATURES)
        error = dataset.find_undecodable(lambda features: sample.preprocess(features["image/encoded"], 4, 4))
        assert str(file) in str(error) or "did it change" in str(error)


@given(data=st.data())
@slow_fuzz
def test_tfrecord_file(folder, data):
    file = folder / "records" / "validation-0"
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as records:
        for _ in range(2):
            records.write(EXAMPLE)
    file.write_bytes(data.draw(mutations(file.read_bytes())))
    with contextlib.suppress(DatasetError):
        scan_records([str(file)], sample.FEATURES)


WORDS = ["--dataset", "--model", "--keyword", "--batch_size", "--num_images", "--expected_acc_loss", "--resume", "d",
         "0", "-1", "nan", "1e400", "9" * 30, "--config_defination", "--strategy", "BinarySearch", "\x1b[2J", "../..",
         "", "--", "-h", "=", "--batch_size=7", "\u0663"]  # fmt: skip


@given(arguments=st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=8))
@fuzz
def test_arguments(arguments):
    for parse in (sample.parse_arguments, writer.parse_arguments):
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            try:
                parse(arguments)
            except SystemExit as end:
                assert end.code in (0, 2)


@given(data=mutations(b"a.png 1\nb c.png, 2\n"))
@fuzz
def test_list_of_images(folder, data):
    (folder / "list").write_bytes(data)
    with contextlib.suppress(writer.InputError):
        writer.images_in_list(folder / "list", None)


REPORT = json.loads(dump_report(make_report()))


@given(data=st.data())
@slow_fuzz
def test_report(folder, data):
    (folder / "report.json").write_bytes(data.draw(documents(REPORT)))
    with contextlib.suppress(AmctError):
        render_report(read_report(folder))


@given(data=st.data())
@slow_fuzz
def test_exports(folder, data):
    layers = [{"name": "a", "int8": False, "reason": "b", "snr_db": 1.5}]
    export = {"format": "x", "file": "y", "simulation": {"top1": 1.0}, "kl": 0.5, "layers": layers}
    (folder / "net_export_x.json").write_bytes(data.draw(documents(export)))
    read_exports(folder, "net_quantized.pb")
