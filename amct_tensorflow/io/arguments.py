"""Checks of the arguments of the public functions; messages name the function and the argument."""

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from amct_tensorflow.errors import ArgumentTypeError, ArgumentValueError


def require_type(function: str, argument: str, value: object, expected: type | tuple[type, ...]) -> None:
    """Raises ArgumentTypeError unless ``value`` is an instance of ``expected``; a bool is no int."""
    kinds = expected if isinstance(expected, tuple) else (expected,)
    if isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds):
        return
    names = " or ".join(kind.__name__ for kind in kinds)
    raise ArgumentTypeError(f"{function}: {argument} must be {names}, not {type(value).__name__}.")


def require_path(function: str, argument: str, value: object, may_be_empty: bool = False) -> None:
    """Raises unless ``value`` is a str (or Path) that names something, without NUL characters."""
    require_type(function, argument, value, (str, Path))
    if "\0" in str(value):
        raise ArgumentValueError(f"{function}: {argument} holds a NUL character. Give a path.")
    if not str(value) and not may_be_empty:
        raise ArgumentValueError(f"{function}: {argument} is empty. Give a path.")


def require_names(function: str, argument: str, value: object, may_be_empty: bool = False) -> None:
    """Raises unless ``value`` is a list (or tuple) of str."""
    require_type(function, argument, value, (list, tuple))
    assert isinstance(value, Sequence)
    for item in value:
        if not isinstance(item, str):
            raise ArgumentTypeError(f"{function}: {argument} must hold str, not {type(item).__name__}.")
    if not value and not may_be_empty:
        raise ArgumentValueError(f"{function}: {argument} is empty. Give at least one name.")


def require_graph(function: str, value: object) -> None:
    """Raises unless ``value`` is a tf.Graph."""
    require_type(function, "graph", value, tf.Graph)


def require_positive(function: str, argument: str, value: object) -> None:
    """Raises unless ``value`` is an int above 0."""
    require_type(function, argument, value, int)
    assert isinstance(value, int)
    if value <= 0:
        raise ArgumentValueError(f"{function}: {argument} is {value}; it must be above 0.")
