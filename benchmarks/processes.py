"""Each network in a process of its own, so that none meets the memory, the threads or the caches of another."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from measuring import environment

from amct_tensorflow.io.files import write_atomically


def measure_each(
    benchmark: str, names: Sequence[str], measure: Callable[[str], dict[str, Any]], figures: Path | None
) -> list[dict[str, Any]]:
    """Measures networks one after the other, and shows each result when it is there.

    Args:
        benchmark: what the file of figures calls it.
        names: the networks.
        measure: returns the figures of one; see ``run_apart``.
        figures: JSON file to which those of all networks so far are written; None for none.
    """
    rows = []
    for name in names:
        rows.append(measure(name))
        print(rows[-1], file=sys.stderr, flush=True)
        if figures:
            content = {"benchmark": benchmark, **environment(), "rows": rows}
            write_atomically(figures, json.dumps(content, indent=2) + "\n", announce=False)
    return rows


def run_apart(network: str, program: str, *arguments: str) -> dict[str, Any]:
    """Runs a program, and returns the object that it prints as its last line.

    Returns:
        The object; if the program fails, one that names the network and has a ``remark`` instead of figures.
    """
    done = subprocess.run([sys.executable, program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"network": network, "remark": lines[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def is_complete(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> bool:
    """Tells whether every network was measured, and none failed."""
    return [row["network"] for row in rows] == list(names) and not any("remark" in row for row in rows)
