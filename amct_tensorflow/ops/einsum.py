"""Parses the equations of Einsum."""

from collections.abc import Sequence
from typing import NamedTuple

_ELLIPSIS = "..."


class Equation(NamedTuple):
    """One label per axis; axes with the same label are multiplied, and summed up if the output lacks it.

    Attributes:
        operands: per operand the labels of its axes.
        output: those of the result.
    """

    operands: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]


def parse_equation(text: str, ranks: Sequence[int]) -> Equation | None:
    """Reads an equation such as ``...ab,bc->...ac``.

    Args:
        text: the equation.
        ranks: number of axes of every operand. What an ellipsis stands for is labelled from the right, since that is
            how TensorFlow aligns the axes of several.

    Returns:
        The equation without ellipses; None if it does not fit the operands, or leaves the output to be guessed.
    """
    left, arrow, right = text.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or len(terms) != len(ranks):
        return None
    named = [len(term.replace(_ELLIPSIS, "")) for term in terms]
    hidden = [rank - count for rank, count in zip(ranks, named, strict=True)]
    if any(count < 0 or (count > 0 and _ELLIPSIS not in term) for count, term in zip(hidden, terms, strict=True)):
        return None
    operands = tuple(_labels(term, count) for term, count in zip(terms, hidden, strict=True))
    return Equation(operands, _labels(right, max(hidden)))


def _labels(term: str, hidden: int) -> tuple[str, ...]:
    before, ellipsis, behind = term.partition(_ELLIPSIS)
    between = [f"{_ELLIPSIS}{index}" for index in reversed(range(hidden))] if ellipsis else []
    return (*before, *between, *behind)
