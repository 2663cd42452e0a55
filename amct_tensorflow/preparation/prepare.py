"""Bringing a float graph into the one form that fusion and quantization know, whatever wrote it."""

from collections.abc import Sequence
from pathlib import Path

from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.preparation.prepared import PreparedGraph


def prepare(view: GraphView, outputs: Sequence[str], source: str | Path) -> PreparedGraph:
    """Prepares a graph."""
    return PreparedGraph(view, {})
