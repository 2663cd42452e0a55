"""Two runs side by side."""

import json
from dataclasses import replace

from reports import make_report

from amct_tensorflow.results.report.differences import dump_differences, find_differences, format_differences

A = make_report()
SETTINGS = replace(A.reproduction, settings={"strategy": "BinarySearch"}, files={"net.pb": "ef" * 32}, versions={})
B = replace(
    A,
    reproduction=SETTINGS,
    outcome=replace(A.outcome, saved=92.0, loss=0.9, target_met=False),
    # The first has another scale, the second is in int8, the last is missing.
    layers=(
        replace(A.layers[0], activation=replace(A.layers[0].activation, scale=0.5)),
        replace(A.layers[1], int8=True, why=None, reason=None),
        *A.layers[2:-1],
    ),
)
TEXT = """\
A: a
B: b

A              B              result
yes            no             target met
92.9           92.9           original model
91.75          91.75          all layers quantized
92.8           92             saved model
0.1            0.9            loss
0.5            0.5            target
-0.35 to 0.55  -0.35 to 0.55  confidence interval
2000           2000           images
3 of 5         1 of 4         layers in float
26.7 %         26.7 %         multiply-accumulates in int8
540.0 kB       540.0 kB       size
3              3              evaluations

A                B                differs
PredictiveSearch BinarySearch     setting strategy
2.21.0           none             version tensorflow
abababababab...  efefefefefef...  SHA-256 net.pb

A      B     scale A  scale B  damage A  damage B  dB A  dB B  layer
float  int8  0.00625  0.00625      0.01      0.01    31    31  block/dw
float  none        -        -         -         -     -     -  odd
int8   int8  0.00625      0.5       0.1       0.1    30    30  block/conv

3 layers differ, 2 do not."""


def test_text():
    found = format_differences(find_differences(A, B, ("a", "b"))).replace("\N{EN DASH}", "-")
    assert [line.split() for line in found.splitlines()] == [line.split() for line in TEXT.splitlines()]


def test_a_run_does_not_differ_from_itself():
    text = format_differences(find_differences(A, A, ("a", "b")))
    assert "Settings do not differ." in text and text.endswith("0 layers differ, 5 do not.")


def test_json():
    found = json.loads(dump_differences(find_differences(A, B, ("a", "b"))))
    assert (found["version"], found["a"], found["equal_layers"]) == (1, "a", 2)
    assert [row["name"] for row in found["settings"]] == ["setting strategy", "version tensorflow", "SHA-256 net.pb"]
    assert [layer["name"] for layer in found["layers"]] == ["block/dw", "odd", "block/conv"]
    assert found["layers"][1]["b"] is None and found["layers"][2]["b"]["scale"] == 0.5
