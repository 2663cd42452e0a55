"""Changes the engine in thirty places, one at a time, and says which of these faults the tests notice.

Run it as ``make mutants``. Each mutant lives in a copy of the project. The tests of its room run first, then all that
``make test`` runs; the first failure ends its life. A mutant that survives is a piece of code that no test holds.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
_LEFT_OUT = (".venv", ".git", "__pycache__", "outputs", "amct_log")
_LONGEST = 900  # seconds; a test that hangs has noticed something, too


class Mutant(NamedTuple):
    """A fault.

    Attributes:
        before: a piece of code that stands once in the package.
        after: what it becomes.
    """

    before: str
    after: str


MUTANTS = (
    # scales and zero points
    Mutant("clips = np.rint(above / negative) > _STEPS_ABOVE", "clips = np.rint(above / negative) >= _STEPS_ABOVE"),
    Mutant("axis not in OP_TYPES[op_type].channel_axes)", "axis in OP_TYPES[op_type].channel_axes)"),
    Mutant("lowest, highest = min(lowest, 0.0), max(highest, 0.0)", "lowest, highest = min(lowest, 0.0), highest"),
    Mutant(
        "if 2 * distribution.counts[ties].sum() <= distribution", "if distribution.counts[ties].sum() <= distribution"
    ),
    Mutant("if 1 - percentile < _EPSILON:", "if 1 - percentile > _EPSILON:"),
    Mutant("(levels + 0.5) * scales[:, np.newaxis], np.inf)", "(levels + 0.4) * scales[:, np.newaxis], np.inf)"),
    Mutant(
        "place, found, moved = places[best], candidates[best], best > 0",
        "place, found, moved = places[best], candidates[best], False",
    ),
    # weights
    Mutant("for_bias = bias / scale_d / _ROOM", "for_bias = bias / _ROOM"),
    Mutant(
        "served = np.where(bias > 0, np.minimum(usual, by_bias), usual)", "served = np.where(bias > 0, usual, usual)"
    ),
    Mutant("errors[:, k] = wanted[:, k] - integers[:, k]", "errors[:, k] = target - integers[:, k]"),
    Mutant("np.argsort(-variance, axis=1", "np.argsort(variance, axis=1"),
    Mutant("centred = rows - self._origin", "centred = rows"),
    # fusion
    Mutant("weights = (weights * scale).astype(np.float32)", "weights = (weights * np.abs(scale)).astype(np.float32)"),
    Mutant("if not fold_batch_norm and (has(following", "if fold_batch_norm and (has(following"),
    Mutant("chain = best = chain._replace(affine=extended,", "chain = best = chain._replace(affine=affine,"),
    Mutant("while current.name not in keep:", "while True:"),
    # the quantized graph
    Mutant('make_node("highest", "Sub", ["quant_max:output:0"', 'make_node("highest", "Sub", ["quant_min:output:0"'),
    Mutant(
        'make_node("rounded", "Round", ["way:output_false:0"]', 'make_node("rounded", "Floor", ["way:output_false:0"]'
    ),
    # the search
    Mutant("self._right = middle - 1", "self._right = middle"),
    Mutant("upper = min(self._failed)", "upper = max(self._failed)"),
    Mutant("lower + min(max(fraction, 0.0), most) * (upper - lower)", "lower + max(fraction, 0.0) * (upper - lower)"),
    Mutant("if best.judged.satisfied and not itself.judged.satisfied:", "if not itself.judged.satisfied and False:"),
    Mutant("while best in tried:", "while False:"),
    # calibration
    Mutant("if any(value.ndim and len(value) != images for value in batch.values()):", "if False:"),
    Mutant('np.einsum("gi,gio->go", total / self._count', 'np.einsum("gi,gio->go", total'),
    Mutant("/ weights[both] ** (1 - strength)", "/ weights[both] ** strength"),
    Mutant("gets_worse = any(one.mean() < other.mean()", "gets_worse = all(one.mean() < other.mean()"),
    # what is measured, written and read
    Mutant("np.log(p / q) - p + q", "np.log(q / p) - q + p"),
    Mutant("return bool(entries) and all(_only_balances", "return bool(entries) and any(_only_balances"),
    Mutant("return short if np.float32(short) == scale else", "return short if short else"),
)


def find(mutant, package):
    """Returns the file that a mutant changes."""
    files = [path for path in package.rglob("*.py") if path.read_text().count(mutant.before) == 1]
    if len(files) != 1:
        raise SystemExit(f"{mutant.before!r} stands in {len(files)} files; a mutant needs one place.")
    return files[0]


def tests_near(file, copy):
    """Returns the folder of the tests of a file's room; all tests if it has none."""
    tests = copy / "tests" / file.parent.relative_to(copy / "amct_tensorflow")
    return str(tests if tests.is_dir() and tests != copy / "tests" else copy / "tests")


def passes(copy, tests, processes):
    """Runs tests until one fails; tells whether none did."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not campaign"]
    command += ["-n", str(processes), tests]
    environment = {**os.environ, "PYTHONPATH": str(copy), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with suppress(subprocess.TimeoutExpired):
        code = subprocess.run(
            command, cwd=copy, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_LONGEST,
            check=False,
        ).returncode  # fmt: skip
        if code not in (0, 1):
            raise SystemExit(f"pytest ended with exit code {code} in {copy}.")
        return code == 0
    return False


def examine(mutant, copy):
    """Returns what noticed a mutant: the tests of its room, other tests, or None."""
    file = find(mutant, copy / "amct_tensorflow")
    text = file.read_text()
    file.write_text(text.replace(mutant.before, mutant.after))
    try:
        near = tests_near(file, copy)
        if not passes(copy, near, 0):
            return "its room"
        return None if passes(copy, str(copy / "tests"), 2) else "other tests"
    finally:
        file.write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--mutants", type=int, default=len(MUTANTS), help="how many")
    args = parser.parse_args()
    chosen = MUTANTS[args.first : args.first + args.mutants]
    for mutant in chosen:
        find(mutant, ROOT / "amct_tensorflow")
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        shutil.copytree(
            ROOT, copy, ignore=shutil.ignore_patterns(".venv", ".git", "__pycache__", "outputs", "amct_log")
        )
        for number, mutant in enumerate(chosen, args.first):
            begun = time.monotonic()
            noticed = examine(mutant, copy)
            survivors += noticed is None
            what = f"noticed by {noticed}" if noticed else "SURVIVES"
            print(f"{number}: {what}, {time.monotonic() - begun:.0f} s: {mutant.after}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants are noticed.")
    return 0 if not survivors else 1


if __name__ == "__main__":
    sys.exit(main())
