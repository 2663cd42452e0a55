"""Describes with what a run ran, and how to reproduce its result."""

import hashlib
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from amct_tensorflow import __version__
from amct_tensorflow.io.onednn import onednn_is_on
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for, printable
from amct_tensorflow.quantize.config.schema import QuantConfig
from amct_tensorflow.results.report.document import Reproduction
from amct_tensorflow.search.run_key import RunKey

_GIB = 2**30


def log_environment(arguments: Mapping[str, object], hashes: Mapping[str, str]) -> None:
    """Logs, to the file only, the arguments, versions and hashes of a run.

    Args:
        arguments: the arguments of the caller.
        hashes: the SHA-256 of whatever determines the result, by name.
    """
    logger = log_for("environment", console=False)
    for line in _lines():
        logger.info("%s", line)
    logger.info("Arguments: %s", ", ".join(f"{name}={value!r}" for name, value in arguments.items()))
    for name, value in hashes.items():
        logger.info("SHA-256 of the %s: %s", name, value)


def _lines() -> Iterator[str]:
    yield f"amct_tensorflow {__version__}, Python {platform.python_version()}, {platform.platform()}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    yield f"Machine: {platform.machine()}, {plural(os.cpu_count() or 1, 'CPU')}, {memory:.0f} GiB of memory"
    yield f"oneDNN: {_ONEDNN[onednn_is_on()]}"
    yield f"Command: {sys.argv!r}"
    found = [each.metadata for each in metadata.distributions()]  # each access parses it anew
    versions = {(each["Name"] or "?").lower(): each["Version"] for each in found}
    yield "Packages: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


_ONEDNN = {True: "on", False: "off"}
_PACKAGES = ("tensorflow", "numpy", "protobuf")
_ASKED = ("outputs", "strategy", "sensitivity", "device", "free_roll_back", "raise_costless")
# Options that a result does not depend on, and how many arguments follow each.
_WITHOUT_EFFECT = {"--resume": 0, "--num_workers": 1, "--ray": 1}
_CONFIGURED = (
    "batch_num", "activation_offset", "do_fusion", "fakequant_precision_mode", "bias_correction", "weight_rounding",
    "range_refinement", "input_balancing",
)  # fmt: skip


def describe_reproduction(
    original: Mapping[str, str],
    config: QuantConfig,
    key: RunKey,
    asked: Mapping[str, object],
    model_file: Path,
    quantized: bytes,
    images: int | None,
) -> Reproduction:
    """Returns how to reproduce a result.

    Args:
        original: SHA-256 of the file of the float model, by its path; empty if it has none.
        config: what was asked for.
        key: what determines the result.
        asked: the arguments of the run, by name.
        model_file: where the quantized model goes.
        quantized: what stands in it.
        images: number of calibration images.
    """
    settings = {name: _said(asked[name]) for name in _ASKED if name in asked}
    settings |= {name: _said(getattr(config, name)) for name in _CONFIGURED}
    settings["layers to quantize"] = f"{len(config.enabled_layers())} of {len(config.layers)}"
    return Reproduction(
        command=printable(command_line(sys.orig_argv, Path(sys.executable).parent)),
        settings=settings,
        versions=_versions(),
        machine=f"{platform.machine()}, {plural(os.cpu_count() or 1, 'CPU')}",
        files={**original, model_file.name: hashlib.sha256(quantized).hexdigest()},
        digests=dict(key.named),
        calibration_images=images,
    )


def command_line(arguments: Sequence[str], programs: Path) -> str:
    """Returns a command as a user would type it.

    Paths of Python and of programs in its environment are left out, as are options that do not change the result.
    """
    python, *rest = _with_effect(arguments)
    if rest and Path(rest[0]).parent == programs:
        return shlex.join([Path(rest[0]).name, *rest[1:]])
    return shlex.join([Path(python).name, *rest])


def _with_effect(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments that a result depends on."""
    kept: list[str] = []
    skipped = 0
    for argument in arguments:
        name, given, _ = argument.partition("=")
        if skipped:
            skipped -= 1
        elif name in _WITHOUT_EFFECT:
            skipped = 0 if given else _WITHOUT_EFFECT[name]
        else:
            kept.append(argument)
    return kept


def _said(value: object) -> str:
    """Returns an argument as text; of a user's object only its class."""
    if isinstance(value, (str, int, float)) or value is None:
        return str(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_said, value))
    return type(value).__name__


def _versions() -> dict[str, str]:
    found = {"amct_tensorflow": __version__, "Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # as of a TensorFlow that has another name on an index
            found[name] = "unknown"
    return {**found, "oneDNN": _ONEDNN[onednn_is_on()]}


def digest_of_file(path: str | Path) -> dict[str, str]:
    """Returns the SHA-256 of a file by its path; nothing if there is no such file."""
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return {}
    return {str(path): digest.hexdigest()}
