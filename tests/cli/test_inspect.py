"""The command line, and its command that shows what the tool makes of a model."""

import json
from argparse import ArgumentTypeError

import pytest
from conftest import ROOT
from graphs import build, normal, save, small_net, tf1
from programs import run_program

from amct_tensorflow import __version__
from amct_tensorflow.cli import COMMANDS
from amct_tensorflow.cli.options import input_shapes, output_names

BUNDLED = ROOT / "model" / "mobilenet_v2_0.35_48_fashion_mnist.pb"


def open_net():
    x = tf1.placeholder("float32", [None, None, 3], name="x")
    tf1.matmul(x, normal((3, 2)), name="out")


def test_json_alone_is_on_stdout(workdir):
    done = run_program("-m", "amct_tensorflow", "inspect", BUNDLED, "--json", PYTHONPATH=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads(done.stdout)["summary"]
    assert (summary["layers"], summary["quantizable"], summary["int8_share"]) == (54, 54, 1.0)
    assert summary["multiply_accumulates"] == 3_195_424
    assert list(workdir.iterdir()) == []  # nothing is left behind


def test_the_table(main, capsys, workdir):
    assert main(["inspect", save(build(small_net), workdir / "net.pb")]) == 0
    assert "MACs  share  int8  folded     name\nConv2D " in capsys.readouterr().out


def test_what_the_guide_shows(main, capsys):
    page = (ROOT / "docs" / "guide" / "own_model.md").read_text()
    section = page.split("## What the tool sees in it\n")[1].split("\n## ")[0]
    shown = [line.strip() for line in section.splitlines() if line.startswith("    ") and "python" not in line]
    assert main(["inspect", str(BUNDLED)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(shown) == 9 and set(shown) - {"..."} <= set(printed)


def test_outputs_and_shapes(main, capsys, workdir):
    model = save(build(open_net), workdir / "net.pb")
    assert main(["inspect", model, "--outputs", "out:0", "--input_shape=x:0:1,5,3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["summary"]["multiply_accumulates"] == 5 * 3 * 2 and document["inputs"][0]["shape"] == [1, 5, 3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--outputs", "nothing"], "Output 'nothing' is not a node"),
        (["--input_shape", "y:1,2"], "which is no input"),
        (["--input_shape", "x:1,5,4"], "does not fit"),
    ],
)
def test_one_line_per_error(main, messages, workdir, options, words):
    assert main(["inspect", save(build(open_net), workdir / "net.pb"), *options]) == 1
    (line,) = [line for line in messages if line.startswith("ERROR")]
    assert words in line


def test_a_model_that_is_none(main, messages, workdir):
    assert main(["inspect", "nowhere.pb"]) == 1
    (line,) = messages
    assert line.startswith("ERROR Model nowhere.pb does not exist. Give ")


@pytest.mark.parametrize(
    "arguments",
    [[], ["nothing"], ["inspect"], ["inspect", "m.pb", "--input_shape", "x"], ["inspect", "m.pb", "--outputs"]],
)
def test_wrong_arguments(main, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2 and "usage: amct_tensorflow" in capsys.readouterr().err


def test_version_and_commands(main, capsys):
    for option, text in (("--version", __version__), ("--help", COMMANDS[0].summary)):
        with pytest.raises(SystemExit) as stopped:
            main([option])
        assert stopped.value.code == 0 and text in capsys.readouterr().out


def test_every_command_has_a_file_of_its_name():
    names = [command.name for command in COMMANDS]
    assert len(set(names)) == len(names) > 0
    assert all((ROOT / "amct_tensorflow" / "cli" / f"{name.replace('-', '_')}.py").exists() for name in names)


def test_names_of_outputs():
    assert output_names("a:0; b/c:0;") == ["a", "b/c"] and output_names("d") == ["d"]


def test_shapes_of_inputs():
    assert input_shapes("x:1,224,224,3; a/b:0 : -1,7;") == {"x": (1, 224, 224, 3), "a/b": (None, 7)}


@pytest.mark.parametrize(
    "text", ["x", "x:", ":1,2", "x:1,a", "x:0", "x:-2", "x:1;x:2", f"x:{2**31}", "x:1.5", "x:1,,2"]
)
def test_shapes_that_are_none(text):
    with pytest.raises(ArgumentTypeError, match=r"is no length|of the form"):
        input_shapes(text)


@pytest.mark.parametrize("together", [False, True])
def test_an_option_that_takes_several_may_come_several_times(main, workdir, capsys, together):
    """The first one counts as much as the last one."""

    def make():
        x, y = (tf1.placeholder("float32", None, name=name) for name in "xy")
        tf1.matmul(x, normal((3, 2), 1), name="a")
        tf1.matmul(y, normal((3, 4), 2), name="b")

    save(build(make), workdir / "two.pb")
    options = ["--outputs", "a", "b", "--input_shape", "x:5,3;y:5,3"] if together else [
        "--outputs", "a", "--input_shape", "x:5,3", "--outputs=b", "--input_shape=y:5,3"]  # fmt: skip
    assert main(["inspect", "two.pb", *options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in told["outputs"]] == ["a", "b"]
    assert [layer["output_shape"] for layer in told["layers"]] == [[5, 2], [5, 4]]
