"""JSON files that we write, and read again after anybody may have changed them.

Whatever stands there, nothing but ``ContentError`` comes out; so a reader catches that one, and no error of our own
code passes for a damaged file.
"""

import json
import math
from typing import Any, TypeVar

from amct_tensorflow.errors import ContentError

T = TypeVar("T")


def parse_json(data: bytes) -> Any:
    """Parses JSON text.

    Raises:
        ContentError: it is none, is nested too deeply, or holds a number too long to be read.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:  # also that it is no text (UnicodeDecodeError)
        raise ContentError(f"{type(error).__name__}: {str(error)[:200]}") from error


def expect(kind: type[T], value: object, name: str) -> T:
    """Returns ``value`` if it is of a type; true and false are no integers.

    Raises:
        ContentError: it is not, perhaps because it is missing; ``name`` says in the message what.
    """
    if type(value) is not kind:
        raise ContentError(f"{name} is missing" if value is None else f"{name} is no {kind.__name__}")
    return value


def finite_or_none(value: float) -> float | None:
    """Returns a number as it is written: JSON knows neither infinity nor NaN, which become null."""
    return value if math.isfinite(value) else None
