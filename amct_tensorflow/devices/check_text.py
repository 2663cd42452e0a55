"""Formats a check as text and as JSON (docs/file_formats.md)."""

import json
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

from amct_tensorflow.devices.ascend_rules import Evidence, Level
from amct_tensorflow.devices.graph_check import DeviceCheck, Finding
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import printable

_WIDTH = 120
# To be raised when a key changes its meaning or goes; new ones may come.
VERSION = 1


def verdict(check: DeviceCheck) -> str:
    """Returns in one line what is expected on the device."""
    counts = [(level.value, len(check.of_level(level))) for level in Level]
    found = ", ".join(plural(count, word) for word, count in counts)
    share = "an unknown share" if check.int8_share is None else f"{100 * check.int8_share:.1f} %"
    if not check.is_quantized:
        return f"{found}; nothing is quantized; {share} of the multiply-accumulates could be in int8 on the NPU"
    layers = plural(len(check.in_fp16), "layer")
    runs = "runs" if len(check.in_fp16) == 1 else "run"
    whole = f"{check.matched} of {check.chains} chains matched"
    return f"{found}; {whole}; in int8 on the NPU: {share} of the multiply-accumulates; {layers} {runs} in fp16"


def format_check(check: DeviceCheck, model: str, width: int | None = None) -> str:
    """Returns a check as lines of text.

    Args:
        check: the check.
        model: what was checked.
        width: where lines are broken; None for a usual width.
    """
    groups: dict[str, list[Finding]] = {}
    for finding in check.findings:
        groups.setdefault(finding.rule, []).append(finding)
    blocks = [
        [f"model   {model}", f"device  {check.device}"],
        *(list(_group(found, width or _WIDTH)) for found in groups.values()),
        [line for each in check.remarks for line in wrap(f"remark: {each}", width or _WIDTH)],
        ["To compile it:", f"  {check.command}"],
        wrap(f"{verdict(check)}. By public rules; nothing was tried with ATC.", width or _WIDTH),
    ]
    return "\n\n".join("\n".join(map(printable, block)) for block in blocks if block)


def _group(findings: Sequence[Finding], width: int) -> Iterator[str]:
    """Yields the lines of the findings by one rule."""
    first = findings[0]
    yield from wrap(f"{first.level}: {first.text} [{first.rule}; {told(first.evidence)}]", width)
    for finding in findings:
        share = "" if finding.share is None else f" ({100 * finding.share:.1f} % of the multiply-accumulates)"
        node = f"{finding.node}: " if finding.node else ""
        yield f"  {node}{finding.detail}{share}"
    yield from wrap(f"What to do: {first.remedy}", width, initial_indent="  ", subsequent_indent="  ")


def told(evidence: Sequence[Evidence]) -> str:
    """Returns how sure a rule is, in words."""
    return "; ".join(f"{each.certainty}, {each.year}" for each in evidence)


def dump_check(check: DeviceCheck, model: str) -> str:
    """Returns a check as JSON."""
    return json.dumps(document_of(check, model), indent=1)


def document_of(check: DeviceCheck, model: str) -> dict[str, Any]:
    """Returns a check, as JSON has it."""
    return {
        "version": VERSION,
        "model": model,
        "device": check.device,
        "is_quantized": check.is_quantized,
        "findings": [_finding(each) for each in check.findings],
        "summary": {
            **{f"{level.value}s": len(check.of_level(level)) for level in Level},
            "chains": check.chains,
            "matched": check.matched,
            "int8_share": check.int8_share,
            "in_fp16": list(check.in_fp16),
        },
        "command": check.command,
        "remarks": list(check.remarks),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "level": finding.level,
        "node": finding.node,
        "rule": finding.rule,
        "text": finding.text,
        "detail": finding.detail,
        "remedy": finding.remedy,
        "evidence": [{"certainty": e.certainty, "source": e.source, "year": e.year} for e in finding.evidence],
        "share": finding.share,
    }
