"""The handshake with a worker: it must have the same software, and see the same data."""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from amct_tensorflow import __version__
from amct_tensorflow.errors import WorkerError, first_line
from amct_tensorflow.search.integers.availability import why_no_integer_kernels


@dataclass(frozen=True)
class Handshake:
    """The software and the data of a process.

    Attributes:
        place: the process, as messages name it.
        software: versions by name.
        data: what the evaluator's ``identity`` returns there, as JSON by name; empty if it returns nothing.
        no_integers: why nothing runs in integers there, None if it can.
    """

    place: str
    software: Mapping[str, str]
    data: Mapping[str, str]
    no_integers: str | None = None


def own_handshake(data: Mapping[str, str], *, exact: bool = False) -> Handshake:
    """Returns the handshake of this process; ``exact`` says that nothing is to run in integers."""
    place = f"process {os.getpid()} on {platform.node()}"
    return Handshake(place, _software(), data, "not asked for" if exact else why_no_integer_kernels())


def worker_handshake(evaluator: Any) -> Handshake:
    """Returns the handshake of a worker.

    Raises:
        WorkerError: the evaluator cannot tell what its data is, most likely because this process does not see it.
    """
    handshake = own_handshake({})
    try:
        data = {
            str(name): json.dumps(value, sort_keys=True) for name, value in dict(evaluator.identity() or {}).items()
        }
    except Exception as error:
        raise WorkerError(
            f"The worker {handshake.place} cannot tell what its data is ({type(error).__name__}: {first_line(error)}). "
            f"It was looked for from {Path.cwd()}; the data must lie where every worker sees it, under the same path."
        ) from error
    return replace(handshake, data=data)


def check_handshake(ours: Handshake, theirs: Handshake) -> None:
    """Checks that a worker has the software and the data of this process.

    Raises:
        WorkerError: it has not.
    """
    for name, expected in ours.software.items():
        found = theirs.software.get(name)
        if found != expected:
            raise WorkerError(
                f"The worker {theirs.place} has {name} {found or 'not at all'}, and this process {expected}. Install "
                "the same everywhere."
            )
    if ours.no_integers is None and theirs.no_integers is not None:
        raise WorkerError(
            f"The worker {theirs.place} cannot run models in integers ({theirs.no_integers}), as this process "
            "can. Use --exact (exact=True), so that none does."
        )
    changed = [name for name in {**ours.data, **theirs.data} if ours.data.get(name) != theirs.data.get(name)]
    if changed:
        raise WorkerError(
            f"The {', '.join(changed)} of the worker {theirs.place} differs from that of this process. All must "
            "see the same data under the same path."
        )


def _software() -> dict[str, str]:
    """Returns the versions on which results and serialization depend."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2]), "amct_tensorflow": __version__}
    for package in ("tensorflow", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # TensorFlow comes under other names, too
            found[package] = "unknown"
    return found
