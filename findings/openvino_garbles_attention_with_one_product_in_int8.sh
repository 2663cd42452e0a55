#!/usr/bin/env bash
# OpenVINO 2026.4.1, CPU plugin, on a processor that computes in bfloat16 (AVX-512 with BF16, or AMX).
#
# Behaviour: softmax(q k' / sqrt(8)) v of float inputs of the shape [4, 8, 8]. If both products read FakeQuantizes of
# 256 levels, or neither does, the result is right within what bfloat16 rounds. If one of them does and the other does
# not, the default settings yield values that have little to do with it. With INFERENCE_PRECISION_HINT=f32, or with
# LP_TRANSFORMS_MODE=NO, they are right.
# Seen (signal over noise in dB, against float64; default settings, then f32, then no low-precision transformations):
# neither 51, 140, 51; both 151, 151, 43; q k' alone 6, 141, 50; the product with v alone -7, 151, 45.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import openvino
from openvino import opset13 as ops

SIDE = 8
WIDE, NARROW = np.float32(3 / 127), np.float32(1 / 127)
generator = np.random.default_rng(0)
data = [generator.normal(size=(4, SIDE, SIDE)).astype(np.float32) for _ in range(3)]
core = openvino.Core()


def quantized(tensor, step):
    low, high = (ops.constant(np.float32(end * step)) for end in (-128, 127))
    return ops.fake_quantize(tensor, low, high, low, high, 256)


def rounded(values, step):
    return np.clip(np.rint(values / step), -128, 127) * step


def attention(first, second):
    """Returns the model, with the products in int8 that are asked for."""
    query, key, value = (ops.parameter([-1, SIDE, SIDE], np.float32) for _ in range(3))
    operands = [quantized(each, WIDE) if first else each for each in (query, key)]
    scores = ops.multiply(ops.matmul(*operands, False, True), ops.constant(np.float32(SIDE**-0.5)))
    shares, mixed = ops.softmax(scores, 2), value
    if second:
        shares, mixed = quantized(shares, NARROW), quantized(mixed, WIDE)
    return openvino.Model([ops.result(ops.matmul(shares, mixed, False, False))], [query, key, value])


def expected(first, second):
    """Returns the same in float64."""
    query, key, value = (each.astype(np.float64) for each in data)
    if first:
        query, key = rounded(query, WIDE), rounded(key, WIDE)
    powers = np.exp(query @ key.transpose(0, 2, 1) / np.sqrt(SIDE))
    shares = powers / powers.sum(axis=-1, keepdims=True)
    if second:
        shares, value = rounded(shares, NARROW), rounded(value, WIDE)
    return shares @ value


def decibels(first, second, settings):
    exact = expected(first, second)
    error = core.compile_model(attention(first, second), "CPU", settings)(data)[0] - exact
    return 10 * np.log10(np.mean(exact**2) / np.mean(error**2))


print(f"openvino {openvino.__version__.split('-')[0]}")
if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
    print("This processor has no bfloat16, which the behaviour takes.")
    sys.exit()
changed = False
for name, which in {"neither": (0, 0), "both": (1, 1), "first": (1, 0), "second": (0, 1)}.items():
    settings = ({}, {"INFERENCE_PRECISION_HINT": "f32"}, {"LP_TRANSFORMS_MODE": "NO"})
    default, precise, plain = (decibels(*which, each) for each in settings)
    print(f"{name}: {default:.0f} dB, in float32 {precise:.0f} dB, without the transformations {plain:.0f} dB")
    is_wrong = default < 15
    changed |= precise < 100 or plain < 30 or is_wrong != (sum(which) == 1)
if changed:
    sys.exit("The behaviour has changed.")
PYTHON
