"""Sphinx makes a site of the project's pages, and of the docstrings of its public names: ``make docs``.

Sphinx reads Markdown by MyST and docstrings by autodoc, both are released several times a year, and its pages and its
search work without a network. The site has the folders of the project, so that a link is the same in both.
"""

import os
import re

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from sphinx.application import Sphinx

project = "amct_tensorflow"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = ["*.md", "docs/*.md", "docs/guide/*.md", "benchmarks/README.md", "data/README.md", "model/README.md"]
root_doc = "docs/index"

myst_heading_anchors = 4

autodoc_member_order = "bysource"
napoleon_use_ivar = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False

html_theme = "alabaster"
html_theme_options = {
    "page_width": "1060px",
    "sidebar_width": "240px",
    "font_family": "sans-serif",
    "font_size": "15px",
    "show_powered_by": False,
}
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
toc_object_entries = False  # names of objects would fill the list of pages beside each page
html_static_path = ["site.css"]
html_css_files = ["site.css"]


def setup(app: Sphinx) -> None:
    """Changes pages on the way into the site."""
    app.connect("source-read", add_contents)
    app.connect("source-read", show_diagrams_as_text)


def add_contents(_app: Sphinx, page: str, source: list[str]) -> None:
    """Makes a hidden table of contents of the links in each section of the first page."""
    if page == root_doc:
        sections = ["In short", *re.split(r"(?m)^## (.*)$", source[0])]
        for caption, text in zip(sections[::2], sections[1::2], strict=True):
            pages = re.findall(r"\]\(([\w/.]+)\.md\)", text)
            source[0] += "\n".join(["\n```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""])


def show_diagrams_as_text(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Takes diagrams for text: what draws them would be fetched from the network."""
    source[0] = source[0].replace("```mermaid", "```text")
