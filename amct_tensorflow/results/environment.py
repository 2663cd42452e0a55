"""What a run ran with, for whoever reads its log later."""

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata

from amct_tensorflow.log import log_for
from amct_tensorflow.version import VERSION

_GIB = 2**30


def log_environment(arguments: Mapping[str, object], hashes: Mapping[str, str]) -> None:
    """Writes to the log file, not to the console, what could explain a result.

    Args:
        arguments: what the caller asked for.
        hashes: per thing that determines the result, its SHA-256.
    """
    logger = log_for("environment", console=False)
    for line in _lines():
        logger.info("%s", line)
    logger.info("Arguments: %s", ", ".join(f"{name}={value!r}" for name, value in arguments.items()))
    for name, value in hashes.items():
        logger.info("SHA-256 of the %s: %s", name, value)


def _lines() -> Iterator[str]:
    yield f"amct_tensorflow {VERSION}, Python {platform.python_version()}, {platform.platform()}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    yield f"Machine: {platform.machine()}, {os.cpu_count()} CPUs, {memory:.0f} GiB of memory"
    yield f"Command: {sys.argv!r}"
    versions = {(each.metadata["Name"] or "?").lower(): each.version for each in metadata.distributions()}
    yield "Packages: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
