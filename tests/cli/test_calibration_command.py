"""The original's commands: calibration, which does all steps in one go, and convert."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from evaluators import DERIVED, ORIGINAL
from graphs import SMALL_NET_LAYERS, build, normal, quantize_small_net, save, small_net, tf1

REQUIRED = ["--model", "net.pb", "--outputs", "probabilities:0", "--save_path"]


@pytest.fixture(autouse=True)
def files(workdir):
    """A model, an evaluator of each kind, and the images of both as a raw file."""
    save(build(small_net), workdir / "net.pb")
    Path("original.py").write_text(ORIGINAL)
    Path("derived.py").write_text(DERIVED)
    Path("bins").mkdir()
    np.random.default_rng(9).normal(size=(8, 12, 12, 3)).astype("float32").tofile("bins/0.bin")


def saved(path):
    return {node.name: node for node in tf1.GraphDef.FromString(Path(path).read_bytes()).node}


def quantized_layers(path):
    return [node for node in saved(path).values() if node.op == "AscendDequant"]


RAW = ["--data_dir", "bins/", "--input_shape=input:0:8,12,12,3", "--data_type", "float32"]


def test_all_ways_to_give_data_lead_to_the_same_model(main, messages, capsys):
    assert main(["calibration", *REQUIRED, "raw/net", *RAW]) == 0
    assert "INFO The model is saved in raw/net_quantized.pb" in messages
    assert main(["calibration", *REQUIRED, "own/", "--evaluator", "original.py"]) == 0
    assert sorted(path.name for path in Path("raw").iterdir()) == ["net_quant.json", "net_quantized.pb"]
    assert Path("raw/net_quantized.pb").read_bytes() == Path("own/quantized.pb").read_bytes()
    assert len(quantized_layers("own/quantized.pb")) == len(SMALL_NET_LAYERS)
    assert capsys.readouterr().out == ""


def test_it_is_the_model_of_the_steps_on_their_own(main):
    """The same images, calibrated by quantize_model and saved by save_model."""
    normal((8, 12, 12, 3), 9).tofile("bins/0.bin")
    _, steps = quantize_small_net()
    assert main(["calibration", *REQUIRED, "command", *RAW]) == 0
    assert Path(steps).read_bytes() == Path("command_quantized.pb").read_bytes()


def test_a_derived_evaluator_gets_names_of_operators(main):
    assert main(["calibration", *REQUIRED, "out/net", "--evaluator", "derived.py", "--feature", "x"]) == 0
    assert len(quantized_layers("out/net_quantized.pb")) == len(SMALL_NET_LAYERS)


def test_a_configuration(main, messages):
    Path("a.cfg").write_text('batch_num: 1\nskip_layers: "conv/Conv2D"\n')
    options = [*RAW, "--calibration_config", "a.cfg", "--batch_num", "2"]
    assert main(["calibration", *REQUIRED, "out/net", *options]) == 0
    assert len(quantized_layers("out/net_quantized.pb")) == len(SMALL_NET_LAYERS) - 1
    assert "WARNING --batch_num has no effect; set batch_num in a.cfg." in messages


def test_balancing(main, messages):
    """The original's calibration does what quantize_preprocess does, too, where the configuration asks for it."""
    Path("a.cfg").write_text("common_config: { dmq_balancer: { migration_strength: 0.5 } }\n")
    assert main(["calibration", *REQUIRED, "out/net", *RAW, "--calibration_config", "a.cfg"]) == 0
    scales = [node.attr["scale"].f for node in saved("out/net_quantized.pb").values() if node.op == "AscendQuant"]
    assert main(["calibration", *REQUIRED, "plain", *RAW]) == 0
    plain = [node.attr["scale"].f for node in saved("plain_quantized.pb").values() if node.op == "AscendQuant"]
    assert len(scales) == len(plain) and scales != plain


@pytest.mark.parametrize(("width", "told"), [(16, True), (512, False)])
def test_a_file_that_is_larger_than_expected_is_told_what_it_consists_of(main, messages, workdir, width, told):
    def wide():
        tf.matmul(tf1.placeholder("float32", [None, width], "x"), normal((width, width)), name="out")

    save(build(wide), workdir / "wide.pb")
    normal((4, width), 1).tofile("bins/0.bin")
    data = ["--data_dir", "bins/", f"--input_shape=x:0:4,{width}", "--data_type", "float32"]
    assert main(["calibration", "--model", "wide.pb", "--outputs", "out:0", "--save_path", "out/net", *data]) == 0
    is_large = Path("out/net_quantized.pb").stat().st_size > 0.3 * Path("wide.pb").stat().st_size
    lines = [line for line in messages if "The quantized file takes" in line]
    assert is_large == told == bool(lines)
    assert all("It consists of " in line and "ops, attributes and functions" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([*RAW, "--batch_num", "2"], "2 batches"),
        ([*RAW[:2], "--input_shape", "input:9,12,12,3", *RAW[3:]], "bins/0.bin"),
        ([*RAW[:2], "--input_shape", "inputs:8,12,12,3", *RAW[3:]], "inputs"),
        (["--evaluator", "nowhere.py"], "nowhere.py is no file"),
        (["--evaluator", "original.py", "--batch_num", "2"], "batch"),
        ([*RAW, "--calibration_config", "nowhere.cfg"], "nowhere.cfg"),
    ],
)
def test_one_line_per_error_and_no_result(main, capsys, options, words):
    assert main(["calibration", *REQUIRED, "out/net", *options]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if " - ERROR - " in line or "Traceback" in line]
    assert len(lines) == 1 and words in lines[0]
    assert list(Path("out").iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--data_dir", "bins/"],
        [*RAW, "--evaluator", "original.py"],
        [*RAW, "--batch_num", "0"],
    ],
)
def test_wrong_arguments(main, options, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["calibration", *REQUIRED, "out/net", *options])
    assert stopped.value.code == 2 and "usage: amct_tensorflow calibration" in capsys.readouterr().err


def test_short_help(main, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["calibration", "--h"])
    assert stopped.value.code == 0 and "--data_types" in capsys.readouterr().out


def test_convert_with_a_record(main, messages):
    quantize_small_net()
    assert main(["convert", *REQUIRED, "out/net", "--record_file", "record.txt"]) == 0
    assert "INFO The model is saved in out/net_quantized.pb" in messages
    assert len(quantized_layers("out/net_quantized.pb")) == len(SMALL_NET_LAYERS)


def test_convert_without_outputs(main, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["convert", "--model", "net.pb", "--save_path", "out"])
    assert stopped.value.code == 2 and "--outputs" in capsys.readouterr().err


def test_convert_of_a_model_that_was_trained_for_quantization(main, messages, workdir):
    def fake_quantized():
        x = tf.quantization.fake_quant_with_min_max_vars(tf1.placeholder("float32", [None, 4], "x"), -1.0, 1.0)
        weights = tf.quantization.fake_quant_with_min_max_vars(normal((4, 2)), -2.0, 2.0, narrow_range=True)
        tf.matmul(x, weights, name="out")

    save(build(fake_quantized), workdir / "qat.pb")
    assert main(["convert", "--model", "qat.pb", "--outputs", "out:0", "--save_path", "out/qat"]) == 0
    assert "INFO The model is saved in out/qat_quantized.pb" in messages
    assert len(quantized_layers("out/qat_quantized.pb")) == 1


def test_convert_of_a_float_model_without_a_record(main, capsys):
    assert main(["convert", *REQUIRED, "out/net"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if " - ERROR - " in line]
    assert "net.pb" in line and not Path("out").exists()
