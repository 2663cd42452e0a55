"""The command that compares a quantized model with its original."""

import json

import numpy as np
import pytest
from graphs import SMALL_NET_LAYERS, normal, quantize_small_net


def test_random_values_are_said_aloud(main, capsys, messages):
    assert main(["compare", *quantize_small_net()]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in SMALL_NET_LAYERS)
    said = "compared on random values from -1 to 1 (seed 1), which are no real data"
    assert said in printed and any(said in line for line in messages)


def test_json_of_data(main, capsys):
    np.save("x.npy", normal((2, 12, 12, 3)))
    paths = quantize_small_net()
    assert main(["compare", *paths, "--data", "x.npy", "--data=x.npy", "--outputs=probabilities:0", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["data"] == {"files": ["x.npy", "x.npy"], "batches": 2}
    assert len(document["layers"]) == len(SMALL_NET_LAYERS) and document["outputs"][0]["name"] == "probabilities"
    assert document["original"], document["quantized"] == paths
    assert main(["compare", *paths, "--data", "x.npy", "x.npy", "--batch_num", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["batches"] == 1


def test_values_as_the_device_hands_them_on(main, capsys):
    """They have the 11 bits of float16, so that errors differ a little: some values round to the next integer."""
    np.save("x.npy", normal((2, 12, 12, 3)))
    paths = quantize_small_net()
    errors = []
    for options in ([], ["--float16"]):
        assert main(["compare", *paths, "--data", "x.npy", "--json", *options]) == 0
        errors.append(json.loads(capsys.readouterr().out)["layers"])
    exact, rounded = ({each["name"]: each["in_place"]["sqnr_db"] for each in layers} for layers in errors)
    assert exact != rounded and exact.keys() == rounded.keys()
    assert all(rounded[name] == pytest.approx(ratio, abs=1) for name, ratio in exact.items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "nowhere.npy"], "nowhere.npy cannot be read"),
        (["--outputs", "nothing"], "Output 'nothing' is not a node"),
        (["--node_map", "nowhere.json"], "Node map nowhere.json cannot be read"),
        (["--input_shape", "input:1,5,5,3"], "does not fit"),
    ],
)
def test_one_line_per_error(main, capsys, options, words):
    paths = quantize_small_net()
    capsys.readouterr()
    assert main(["compare", *paths, *options]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if " - INFO - " not in line]
    assert words in line


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["q.pb", "--data", "x.npy", "--data_dir", "bins"],
        ["q.pb", "--data_dir", "bins"],
        ["q.pb", "--data_dir", "bins", "--data_types", "float32"],
        ["q.pb", "--data", "x.npy", "--range", "0", "1"],
        ["q.pb", "--range", "1", "0"],
        ["q.pb", "--range", "nan", "0"],
        ["q.pb", "--seed", "-1"],
    ],
)
def test_wrong_arguments(main, options, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["compare", "net.pb", *options])
    assert stopped.value.code == 2 and "usage: amct_tensorflow compare ORIGINAL" in capsys.readouterr().err


def test_raw_files(main, capsys, workdir):
    paths = quantize_small_net()
    values = normal((3, 2, 12, 12, 3))
    np.savez("x.npz", **{"input:0": np.concatenate(values)})
    (workdir / "bins").mkdir()
    for index, each in enumerate(values):
        each.tofile(f"bins/{index}.bin")
    raw = ["--data_dir", "bins/", "--input_shape", "input:0:2,12,12,3", "--data_type", "float32"]
    documents = []
    for options in (raw, ["--data", "x.npz"]):
        assert main(["compare", *paths, *options, "--json"]) == 0
        documents.append(json.loads(capsys.readouterr().out))
    assert [each["data"]["batches"] for each in documents] == [3, 1]
    one, other = (each["divergence"] for each in documents)
    assert one == pytest.approx(other, rel=1e-3)  # however the images are split into batches
