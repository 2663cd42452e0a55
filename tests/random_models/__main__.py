"""Examines many random models in one process: ``python -m random_models`` in the folder of the tests.

Prints a line of progress now and then, every new kind of fault with the smallest recipe that was found for it, and in
the end how often the package refused what. ``--first SEED --cases 1`` examines one model again, ``--recipe FILE`` what
was printed. What TensorFlow and the runtimes say on their own goes nowhere.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import amct_tensorflow as amct
from random_models.drawing import draw_recipe
from random_models.recipe import Recipe
from random_models.shrinking import shrink
from random_models.stages import Finding, examine

FORMATS = ("tflite", "onnx", "openvino")
_SECONDS_BETWEEN_LINES = 20


def _silence():
    """Sends what C++ code writes to stderr nowhere; what Python writes there stays."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


@contextlib.contextmanager
def _folder():
    """Works in a folder of its own."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def findings_of(recipe, formats=()):
    """Examines a recipe in a folder of its own."""
    with _folder():
        return examine(recipe, formats)


def _is_as_wrong(signature, formats):
    def check(recipe):
        try:
            return any(each.is_fault and each.signature == signature for each in findings_of(recipe, formats))
        except Exception:
            return False

    return check


class Hunt:
    """Goes through seeds, and sums up what was found."""

    def __init__(self, formats, exported_every, *, shrinks=True):
        self._formats = formats
        self._every = exported_every
        self._shrinks = shrinks
        self.faults = defaultdict(list)
        self.refusals = defaultdict(list)

    def examine(self, seed):
        formats = self._formats if seed % self._every == 0 else ()
        try:
            recipe = draw_recipe(seed)
            findings = findings_of(recipe, formats)
        except Exception as error:
            findings, recipe = [Finding("harness", True, f"{type(error).__name__}: {error}")], None
        for finding in findings:
            seen = (self.faults if finding.is_fault else self.refusals)[finding.signature]
            seen.append(seed)
            if finding.is_fault and len(seen) == 1:
                self._show(seed, recipe, finding, formats)

    def _show(self, seed, recipe, finding, formats):
        print(f"\rseed {seed}: {finding.stage}: {finding.text[:400]}")
        if recipe and self._shrinks:
            used = [name for name in formats if name == finding.stage]
            recipe = shrink(recipe, _is_as_wrong(finding.signature, used))
        if recipe:
            print(recipe.text(), flush=True)

    def summary(self):
        for title, table in (("refused", self.refusals), ("FAULTS", self.faults)):
            print(f"{title}: {sum(map(len, table.values()))}")
            for signature, seeds in sorted(table.items(), key=lambda item: -len(item[1])):
                print(f"{len(seeds):6} {signature}   seeds {' '.join(map(str, seeds[:8]))}")


def main():
    parser = argparse.ArgumentParser(prog="random_models", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=200, help="how many models (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument(
        "--exported_every", type=int, default=5, help="which share is exported (default: every %(default)sth)"
    )
    parser.add_argument("--formats", nargs="*", default=FORMATS, choices=FORMATS)
    parser.add_argument("--no_shrinking", action="store_true")
    parser.add_argument("--recipe", metavar="FILE", help="examine the recipe in a file instead; - for stdin")
    arguments = parser.parse_args()
    amct.set_logging_level("error", "error")
    _silence()
    if arguments.recipe:
        text = sys.stdin.read() if arguments.recipe == "-" else Path(arguments.recipe).read_text()
        findings = findings_of(Recipe.parse(text), arguments.formats)
        for each in findings:
            print(f"{each.stage}: {each.text}\n{each.details}")
        return int(any(each.is_fault for each in findings))
    hunt = Hunt(arguments.formats, arguments.exported_every, shrinks=not arguments.no_shrinking)
    start = shown = time.monotonic()
    seed = arguments.first
    try:
        for seed in range(arguments.first, arguments.first + arguments.cases):
            print(f"\rseed {seed} ", end="", flush=True)  # which is what stays there if TensorFlow ends the process
            hunt.examine(seed)
            now, done = time.monotonic(), seed - arguments.first + 1
            if now - shown > _SECONDS_BETWEEN_LINES or done == arguments.cases:
                shown, left = now, (now - start) / done * (arguments.cases - done)
                faults = sum(map(len, hunt.faults.values()))
                print(
                    f"\r{done} of {arguments.cases} models, {faults} faults, {left / 60:.1f} minutes left", flush=True
                )
    except KeyboardInterrupt:
        print(f"\rStopped; go on with --first {seed} (make: FIRST={seed}).")
    hunt.summary()
    return int(bool(hunt.faults))


if __name__ == "__main__":
    sys.exit(main())
