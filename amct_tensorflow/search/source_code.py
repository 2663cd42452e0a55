"""Reads the code of the user's classes, so that a resumed run notices that it has changed."""

import inspect
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, FunctionType

from amct_tensorflow.log import log_for

_OURS = __name__.partition(".")[0]
_PLAIN = (str, bytes, int, float, complex, type(None), type(Ellipsis))


def code_of(cls: type, role: str) -> str:
    """Returns the code of a class and of its bases outside the package, as text that is the same in every process.

    This is the text of their files, which also hold the helpers and constants of methods. Without files, as in an
    interactive session, it is the bytecode of methods and of the functions that they call.

    Args:
        cls: the class.
        role: what messages call it.
    """
    classes = [one for one in cls.__mro__ if one.__module__.partition(".")[0] not in ("builtins", _OURS)]
    texts = [text for one in classes for text in _written(one) or _compiled(one, role)]
    return json.dumps(list(dict.fromkeys(texts)))  # of several classes in one file, the file once


def parameters_of(instance: object) -> str:
    """Returns the attributes of an object that are plain values, as text that is the same in every process."""
    attributes = getattr(instance, "__dict__", {})
    return json.dumps([[name, _describe(attributes[name])] for name in sorted(attributes)])


def _written(cls: type) -> list[str]:
    """Returns the text of the files of a class's methods, if they can be read."""
    files = {function.__code__.co_filename for function in _functions(cls)}
    texts = [text for file in sorted(files) if (text := _read(file))]
    if not files:  # nothing but attributes
        text = _read(getattr(sys.modules.get(cls.__module__), "__file__", None) or "")
        # The module of a class that exec() made may be another's.
        texts = [text] if f"class {cls.__name__}" in text else []
    return texts


def _read(file: str) -> str:
    with suppress(OSError, ValueError):
        return Path(file).read_text(encoding="utf-8")
    return ""


def _compiled(cls: type, role: str) -> list[str]:
    log_for("state").info(
        "The source of %s %s cannot be read; its compiled code has to tell whether it has changed.",
        role, cls.__name__,
    )  # fmt: skip
    attributes = [f"{name}={_describe(vars(cls)[name])}" for name in sorted(vars(cls)) if not name.startswith("__")]
    return [*attributes, *_describe_functions(_functions(cls), set())]


def _functions(cls: type) -> Iterator[FunctionType]:
    """Yields the undecorated functions of the methods and properties of a class."""
    for value in vars(cls).values():
        accessors = (value.fget, value.fset) if isinstance(value, property) else (getattr(value, "__func__", value),)
        for accessor in accessors:
            function = inspect.unwrap(accessor) if callable(accessor) else None
            if isinstance(function, FunctionType):
                yield function


def _describe_functions(functions: Iterable[FunctionType], seen: set[FunctionType]) -> Iterator[str]:
    """Yields the code and the constants of functions, and those of the functions in their module that they call."""
    for function in functions:
        if function in seen:
            continue
        seen.add(function)
        yield _describe((function.__code__, function.__defaults__, function.__kwdefaults__))
        used = [function.__globals__.get(name) for name in _names(function.__code__)]
        beside = [value for value in used if getattr(value, "__globals__", None) is function.__globals__]
        yield _describe(tuple(used))
        yield from _describe_functions(filter(inspect.isfunction, beside), seen)


def _names(code: CodeType) -> list[str]:
    inner = [name for value in code.co_consts if isinstance(value, CodeType) for name in _names(value)]
    return [*code.co_names, *inner]


def _describe(value: object) -> str:
    """Returns a text for a plain value or compiled code; an empty one for any other object."""
    if isinstance(value, CodeType):
        return f"{value.co_code.hex()} {value.co_names} {_describe(value.co_consts)}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_describe, value))})"
    if isinstance(value, frozenset):
        return f"{{{', '.join(sorted(map(_describe, value)))}}}"
    if isinstance(value, _PLAIN):
        return repr(value)
    with suppress(TypeError, ValueError, RecursionError):
        return json.dumps(value, sort_keys=True)
    return ""
