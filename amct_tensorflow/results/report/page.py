"""Renders a report as a page, a single file that needs no other."""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from threading import Thread
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from amct_tensorflow.io.table import plural
from amct_tensorflow.results.file_size import sentences_of
from amct_tensorflow.results.report import wording
from amct_tensorflow.results.report.document import Layer, Report
from amct_tensorflow.results.report.plots import (
    HEIGHT,
    WIDTH,
    Bar,
    along_figure,
    import_matplotlib,
    search_figure,
    sketch_histogram,
    sketch_ranges,
    sorted_figure,
)

REPORT_PAGE = "report.html"
_TEMPLATE = "report.html"
_LOADER = PackageLoader("amct_tensorflow.results.report", "templates")


@contextmanager
def prepared_meanwhile() -> Iterator[None]:
    """Imports what draws figures, and compiles the templates, in a thread beside the block.

    That is half a second, most of a page's time, and TensorFlow evaluates models without Python's lock. A process that
    is forked from this one meanwhile cannot import Matplotlib.
    """
    thread = Thread(target=_prepare)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _prepare() -> None:
    with suppress(Exception):  # which will be raised again, and reported, where the page is made
        import_matplotlib()
        _environment().get_template(_TEMPLATE)


def draw_layers(layers: Sequence[Layer]) -> dict[str, str]:
    """Draws the figures of layers, by name; who draws them again, as the page does, gets those.

    They are most of a page's time. Matplotlib's settings are changed meanwhile, which nobody else may be drawing by.
    """
    bars = tuple(Bar(layer.damage, layer.int8) for layer in layers)
    if all(bar.damage is None for bar in bars):
        return {}
    return {"along": along_figure(bars), "sorted": sorted_figure(bars)}


def render_report(report: Report) -> str:
    """Returns the page of a report; equal reports give equal pages."""
    figures = {"search": search_figure(report), **draw_layers(report.layers)}
    return render(_TEMPLATE, report=report, figures={name: Markup(svg) for name, svg in figures.items()})


def render(template: str, **values: object) -> str:
    """Fills a template; every text in ``values`` is escaped, as names may come from anybody's file."""
    environment = _environment()
    script = _LOADER.get_source(environment, "page.js")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    found = environment.get_template(template).render(
        **values, **_FUNCTIONS, script=Markup(script), script_hash=digest, sketch_size=(WIDTH, HEIGHT)
    )
    # Surrogates, which stand for the bytes of names that are no text, cannot be written.
    return found.encode("utf-8", "backslashreplace").decode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=_LOADER, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(_FILTERS)
    return environment


_FILTERS: Mapping[str, Any] = {
    "number": wording.number,
    "count": wording.count,
    "percent": wording.percent,
    "size": wording.size,
    "breakable": wording.breakable,
    # Those of Jinja call several functions per value, and layers have thousands.
    "min": min,
    "max": max,
}
_FUNCTIONS: Mapping[str, Any] = {
    "verdict": wording.verdict,
    "bounds": wording.bounds,
    "remarks": wording.remarks,
    "plural": plural,
    "file_sentences": sentences_of,
    "damage_meaning": wording.damage_meaning,
    "sketch_histogram": sketch_histogram,
    "sketch_ranges": sketch_ranges,
}
