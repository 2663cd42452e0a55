"""Accuracy-based automatic quantization of any model, from the command line."""

import json
import signal
import time
from pathlib import Path

import pytest
from conftest import ROOT
from evaluators import COSTLY, DERIVED, JUDGING, ORIGINAL, SLOW, WORDY
from graphs import SMALL_NET_LAYERS, build, save, small_net
from programs import Program

RUN = [
    "auto-calibrate",
    "net.pb",
    "--evaluator",
    "e.py",
    "--strategy",
    "BinarySearch",
    "--sensitivity=CosineSimilarity",
]


@pytest.fixture
def evaluator(workdir):
    save(build(small_net), workdir / "net.pb")
    return (workdir / "e.py").write_text


def errors_on_console(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if " - ERROR - " in line or "Traceback" in line]


def test_a_target_that_is_met(main, evaluator, capsys, messages):
    evaluator(COSTLY)
    assert main([*RUN, "--target", "0.5", "--save_dir", "out/net", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    in_float = document["layers_in_float"]
    assert document["layers"] == len(SMALL_NET_LAYERS) and "dw/depthwise" in in_float
    assert document["target_met"] and document["loss"] == pytest.approx((document["layers"] - len(in_float)) / 10)
    assert document["original_metric"] == 100 and document["global_metric"] == pytest.approx(94.5)
    assert document["model_file"] == "out/net_quantized.pb" and Path(document["model_file"]).exists()
    names = {path.name for path in Path("out").iterdir()}
    assert {"config.json", "record.txt", "net_quantized.pb", "net_quant.json"} <= names
    assert any("The outputs of net.pb are taken to be probabilities." in line for line in messages)


def test_the_page_describes_every_key(main, evaluator, capsys):
    page = (ROOT / "docs" / "file_formats.md").read_text().split("## auto-calibrate --json\n")[1].split("\n## ")[0]
    evaluator(COSTLY)
    assert main([*RUN, "--target", "9", "--json"]) == 0
    assert {key for key in json.loads(capsys.readouterr().out) if f"`{key}`" not in page} == set()


def test_a_device_of_the_users(main, evaluator, capsys):
    evaluator(COSTLY)
    Path("npu.json").write_text('{"name": "npu", "rungs": {"int8": 1, "a16w8": 1.5, "float": 6}}')
    command = [*RUN, "--target", "9", "--save_dir", "out/net", "--device", "npu.json", "--json"]
    assert main([*command, "--raise_costless", "no"]) == 0
    assert json.loads(capsys.readouterr().out)["rungs"] == dict.fromkeys(SMALL_NET_LAYERS, "int8")
    settings = json.loads(Path("out/report.json").read_text())["reproduction"]["settings"]
    assert settings["device"] == "npu (int8 1, a16w8 1.5, float 6)" and settings["raise_costless"] == "False"
    assert main(command) == 0
    rungs = json.loads(capsys.readouterr().out)["rungs"]
    assert rungs == {**dict.fromkeys(SMALL_NET_LAYERS, "int8"), "pool/AvgPool": "float"}


@pytest.mark.parametrize(
    ("device", "words"), [("npu", "no device 'npu'; use generic"), ("none.json", "cannot be read")]
)
def test_devices_that_are_none(main, evaluator, capsys, device, words):
    evaluator(COSTLY)
    with pytest.raises(SystemExit) as ended:
        main([*RUN, "--device", device])
    assert ended.value.code == 2 and words in capsys.readouterr().err


def test_a_target_that_is_missed(main, evaluator, capsys):
    evaluator(COSTLY)
    assert main([*RUN, "--target", "0.05", "--outputs", "probabilities:0"]) == 3
    assert Path("outputs/accuracy_based_auto_calibration/net_quantized.pb").exists()
    assert capsys.readouterr().out == ""  # all that is said is on the console and in the log file


def test_an_error_grows(main, evaluator):
    evaluator(COSTLY.replace("100.0 - len", "0.0 + len").replace("- 5 *", "+ 5 *"))
    assert main([*RUN, "--target", "0.5", "--lower_is_better", "--save_dir", "out/net"]) == 0


def test_the_evaluator_may_say_itself(main, evaluator, messages):
    evaluator(JUDGING)
    assert main([*RUN, "--save_dir", "out/net"]) == 0
    assert main([*RUN, "--save_dir", "out/net", "--target", "60"]) == 0
    assert any("--target 60 counts, not metric_eval() of MyEvaluator" in line for line in messages)


def test_what_was_evaluated_is_not_evaluated_again(main, evaluator, capsys):
    evaluator(COSTLY)
    assert main([*RUN, "--target", "0.5", "--save_dir", "out/net", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main([*RUN, "--target", "0.5", "--save_dir", "out/net", "--resume", "--json"]) == 0
    done = capsys.readouterr()
    assert json.loads(done.out) == first and f"({first['evaluations']} of them in the earlier run)" in done.err


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        (DERIVED, [], "MyEvaluator does not implement metric_eval(). Give the most that may be lost: --target"),
        (ORIGINAL, ["--target", "1"], "derive MyEvaluator from"),
        (WORDY, ["--target", "1"], "a number, not str"),
        (DERIVED, ["--target", "1", "--outputs", "nothing"], "Output 'nothing' is not a node"),
        (DERIVED, ["--target", "1", "--batch_num", "2"], "batch"),
        (DERIVED.replace('"input:0"', '"inputs:0"'), ["--target", "1"], "MyEvaluator.evaluate failed on the original"),
    ],
)
def test_one_line_per_error_and_no_result(main, evaluator, capsys, text, options, words):
    evaluator(text)
    assert main([*RUN, *options, "--save_dir", "out/net"]) == 1
    (line,) = errors_on_console(capsys)
    assert words in line
    assert not Path("out").exists() or not [path for path in Path("out").iterdir() if path.name[0] != "."]


@pytest.mark.parametrize(
    "options",
    [
        ["--target", "-1"],
        ["--target", "nan"],
        ["--lower_is_better"],
        ["--calibration_config", "a.cfg", "--batch_num", "2"],
        ["--strategy", "Guess"],
    ],
)
def test_wrong_arguments(main, options, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*RUN, *options])
    assert stopped.value.code == 2 and "usage: amct_tensorflow auto-calibrate MODEL" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_interrupted(evaluator, number, code):
    evaluator(SLOW)
    program = Program("-m", "amct_tensorflow", *RUN, "--target", "1", PYTHONPATH=ROOT)
    while not Path("begun").exists() and program.returncode is None:
        time.sleep(0.1)
    program.send_signal(number)
    assert program.wait() == code and "Traceback" not in program.stderr
    assert program.stderr.strip().endswith(
        "Interrupted. Give the same command with --resume to go on; nothing is evaluated twice."
    )


@pytest.mark.parametrize("option", [["--num_workers", "2"], ["--ray", "auto"]], ids=["processes", "ray"])
def test_an_evaluator_that_cannot_be_shared_out(main, evaluator, capsys, option):
    evaluator(DERIVED)
    assert main([*RUN, "--target", "1", "--save_dir", "out/net", *option]) == 1
    (line,) = errors_on_console(capsys)
    assert "MyEvaluator has no evaluate_share()" in line and "without --num_workers and --ray" in line
    assert not Path("out").exists()


def test_no_workers_at_all_are_refused(main, evaluator, capsys):
    evaluator(DERIVED)
    with pytest.raises(SystemExit) as end:
        main([*RUN, "--target", "1", "--num_workers", "0"])
    assert end.value.code == 2 and "--num_workers" in capsys.readouterr().err
