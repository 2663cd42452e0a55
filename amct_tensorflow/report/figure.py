"""Figures of Matplotlib as SVG that belongs into a page: in its colours, with its fonts, told to screen readers."""

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_INCHES = (7.2, 3.0)

# Stand-ins, as Matplotlib knows no variables of CSS: each becomes the variable of its name.
TEXT, LINE, GOOD, BAD, INT8, FLOAT = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_VARIABLES = {TEXT: "text", LINE: "line", GOOD: "good", BAD: "bad", INT8: "int8", FLOAT: "float"}
_SETTINGS: Any = {  # of a type that newer versions of Matplotlib have a name for
    "svg.fonttype": "none",  # text stays text
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def draw(name: str, description: str, paint: Callable[["Axes"], None]) -> str:
    """Draws a figure; equal figures give equal text.

    Args:
        name: tells its ids from those of other figures in the page.
        description: what a screen reader says instead of it.
        paint: draws into the axes.

    Returns:
        An ``svg`` element.
    """
    # Matplotlib takes half a second to be imported, and only a report needs it.
    from matplotlib import rc_context  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    stream = io.BytesIO()
    with rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=_INCHES, layout="constrained", facecolor="none")
        paint(figure.subplots())
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return _for_page(stream.getvalue(), name, description)


def _for_page(svg: bytes, name: str, description: str) -> str:
    """Returns an SVG file as an element of a page."""
    root = ElementTree.fromstring(svg)  # what Matplotlib has just written
    for part in [child for child in root if child.tag.endswith("metadata")]:
        root.remove(part)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
        if f"{{{_XLINK}}}href" in element.attrib:
            element.set("href", element.attrib.pop(f"{{{_XLINK}}}href"))
        for key, value in element.attrib.items():
            element.set(key, _of_page(key, value, name))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    for style in root.findall(".//style"):
        style.text = ""  # it would hold for the whole page, which says the same for all figures
    root.set("role", "img")
    root.set("aria-label", description)
    return ElementTree.tostring(root, encoding="unicode")


def _of_page(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return value.replace("#", f"#{name}-")
    if key == "style":
        return re.sub(r"#0\d0\d0\d", lambda match: f"var(--{_VARIABLES[match[0]]})", value)
    return re.sub(r"url\(#", f"url(#{name}-", value)
