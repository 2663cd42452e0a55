"""Reports that no run has made, the page of one in a browser, and what equal runs have in common."""

import json
import os
import re
import shutil
from dataclasses import replace

from amct_tensorflow.results.report import document as d

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJg"
    "gg=="
)
WHY = {
    "unquantizable": "it cannot be quantized: its weights are no constant, but computed",
    "configuration": "the configuration leaves it in float",
    "rolled_back": "rolled back by the search in evaluation 3",
}


def activation(place=0):
    """Scale and clip of an input between -0.5 and 2.0 of which 3 of 16 values lie beyond."""
    return d.Activation(0.00625, -64, (-0.4, 1.19375), d.Histogram(-0.5, 2.0, (1.0, 8.0, 5.0, 0.0, 2.0)), 3 / 16)


def layer(place, name, why=None, channels=16):
    lowest, highest = (tuple(sign * (0.1 + (place * 7 + i) % 11 / 10) for i in range(channels)) for sign in (-1, 1))
    calibrated = why in (None, "rolled_back")
    return d.Layer(
        name=name,
        type="Conv2D",
        int8=why is None,
        why=why,
        reason=WHY.get(why),
        evaluation=3 if why == "rolled_back" else None,
        multiply_accumulates=1000 * (place + 1),
        parameters=64 + place,
        output_shape=(1, 8, 8, None),
        damage=10.0 ** -(1 + place % 7) if calibrated else None,
        sqnr_db=30.0 + place % 9 if calibrated else None,
        uncorrected_sqnr_db=20.0 + place % 9 if calibrated else None,
        activation=activation() if calibrated else None,
        weights=d.Weights((3, 3, 4, channels), (0.01,) * channels, lowest, highest) if calibrated else None,
    )


def make_report(names=("block/conv", "block/dw", "head/fc", "free", "odd"), channels=16, prefix="net"):
    """A report whose second layer was rolled back, and whose last two stay in float for other reasons."""
    reasons = dict.fromkeys(range(len(names)))
    reasons |= {1: "rolled_back", len(names) - 2: "configuration", len(names) - 1: "unquantizable"}
    layers = tuple(layer(place, name, reasons[place], channels) for place, name in enumerate(names))
    macs = [each.multiply_accumulates for each in layers]
    return d.Report(
        version=d.VERSION,
        model=f"{prefix}_quantized.pb",
        outcome=d.Outcome(True, 0.1, 0.5, d.Interval(-0.35, 0.55, 0.95, 2000), 92.9, 91.75, 92.8, False),
        ranking=d.Ranking("OutputDivergence", True),
        evaluations=(
            d.Evaluation(2, (), 0.0, 91.75, 1.15, False, False, False),
            d.Evaluation(3, (names[1],), 0.125, 92.8, 0.1, True, False, True),
        ),
        layers=layers,
        inputs=(d.QuantizedInput("add:1", activation()),),
        float_scalings=(d.FloatScaling("bn", "the configuration asks to keep it"),),
        changed_images=d.ChangedImages(
            2000, 3, 1, 1, (d.ChangedImage(7, "9", "9", "4", PIXEL), d.ChangedImage(3, "2", "1", "2", PIXEL)), None
        ),
        size=d.Size(1_800_000, 540_000, sum(macs), macs[0] + sum(macs[2:-2]), 402_000, 391_000),
        reproduction=d.Reproduction(
            "python run.py --dataset data", {"strategy": "PredictiveSearch"}, {"tensorflow": "2.21.0"},
            "x86_64, 2 CPUs", {"net.pb": "ab" * 32}, {"configuration": "cd" * 32}, 32,
        ),
        tables=(
            d.Table("words", (1000, 64), 256_000, 68_000, True, None),
            d.Table("places", (500, 64), 128_000, 34_000, False, None),
            d.Table("logits", (1000, 64), 256_000, 68_000, False, "'MatMul' (MatMul) reads it, too, and not by rows"),
        ),
        times=(d.StageTime("calibrating", 6.0, 9.5), d.StageTime("everything else", 2.0, 2.25)),
    )  # fmt: skip


def without_times(name, content):
    """A result file without what differs from run to run: the seconds that a report tells."""
    if name == "report.json":
        return json.dumps({key: value for key, value in json.loads(content).items() if key != "times"}).encode()
    if name == "report.html":
        return re.sub(rb'(?s)<section aria-labelledby="times">.*?</section>', b"", content)
    return content


def with_names(report, name):
    """A report in which every text that a stranger may have written is one and the same."""
    shown = tuple(replace(each, label=name, before=name, after=name) for each in report.changed_images.shown)
    exported = (d.ExportedLayer(name, False, name),)
    run = report.reproduction
    return replace(
        report,
        model=name,
        layers=tuple(replace(each, name=name, type=name, reason=each.reason and name) for each in report.layers),
        evaluations=tuple(replace(each, in_float=(name,), metric=name) for each in report.evaluations),
        inputs=tuple(replace(each, name=name) for each in report.inputs),
        float_scalings=tuple(replace(each, name=name, reason=name) for each in report.float_scalings),
        tables=tuple(replace(each, name=name, reason=each.reason and name) for each in report.tables),
        changed_images=replace(report.changed_images, shown=shown, note=name),
        outcome=replace(report.outcome, original=name, all_quantized=name, saved=name),
        reproduction=replace(
            run, command=name, machine=name, settings={name: name}, versions={name: name}, files={name: name},
            digests={name: name},
        ),
        times=tuple(replace(each, stage=name) for each in report.times),
        exports=(d.Export(name, name, 1, 1, {name: 1.0}, {name: None}, 0.5, 0.5, exported),),
        device=d.DeviceVerdict(
            name, name, (d.DeviceFinding(name, name, name, name, name, name, name, None),), 1, 1, None, (name,), name
        ),
    )  # fmt: skip
