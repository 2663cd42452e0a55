"""Serializes an evaluator for another process: pickled, with the files of classes that cannot be imported there.

These are the user's program itself, and files that were loaded by their path. Deserialization runs them again, the
program under another name than ``__main__``, as ``multiprocessing`` does. (Compiled code instead would leave TensorFlow
without the source that it makes graphs from.)
"""

import linecache
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from amct_tensorflow.errors import WorkerError, first_line

_PROGRAM = "__main__"
# Python's own name for the program of another process; multiprocessing knows it, also here, where results arrive.
_PROGRAM_THERE = "__mp_main__"


@dataclass(frozen=True)
class _Source:
    """A file that deserialization runs again.

    Attributes:
        name: the name of its module.
        package: the package of the module; empty if it is in none.
        file: its path on the sending side.
        text: its content.
    """

    name: str
    package: str
    file: str
    text: str


@dataclass(frozen=True)
class _Serialized:
    """The serialized form of an object.

    Attributes:
        path: ``sys.path`` of the sending side.
        sources: the files to run again, in this order.
        value: the object, pickled.
    """

    path: list[str]
    sources: list[_Source]
    value: bytes


class _Deserialization:
    """Whether files are being run again at the moment."""

    now = False


def serialize(value: object) -> bytes:
    """Returns an object, with the files that its class needs, as bytes.

    Raises:
        WorkerError: it cannot be pickled, or a file cannot be read.
    """
    modules = dict.fromkeys(one.__module__ for one in reversed(type(value).__mro__))
    sources = [_source(name) for name in modules if _stands_apart(name)]
    try:
        pickled = pickle.dumps(value)
    except Exception as error:
        raise WorkerError(
            f"{type(value).__name__} cannot be sent to other processes: {type(error).__name__}: {first_line(error)}. "
            "Define its class at the top level of a file, and keep graphs, sessions, open files and functions out of "
            "its attributes; or run it in one process."
        ) from error
    return pickle.dumps(_Serialized(list(map(os.path.abspath, sys.path)), sources, pickled))


def deserialize(data: bytes) -> Any:
    """Returns the object; takes over ``sys.path`` and runs the files that its class needs."""
    serialized: _Serialized = pickle.loads(data)
    sys.path[:] = dict.fromkeys([*serialized.path, *sys.path])
    with _deserializing():
        for source in serialized.sources:
            if source.name == _PROGRAM or source.name not in sys.modules:
                _run(source)
    return pickle.loads(serialized.value)


def refuse_while_deserializing() -> None:
    """Refuses to start a run while deserialization runs the user's program again.

    Raises:
        WorkerError: it does.
    """
    if _Deserialization.now:
        raise WorkerError(
            "The program is run once more in each worker, for the class of its evaluator, and would begin anew there. "
            "Put what it does under if __name__ == '__main__':, or the class into a file of its own."
        )


def _stands_apart(name: str) -> bool:
    """Tells whether another process with the same ``sys.path`` could not import a module."""
    top = name.partition(".")[0]
    return top == _PROGRAM or (top not in sys.stdlib_module_names and PathFinder.find_spec(top) is None)


def _source(name: str) -> _Source:
    """Returns the file of a module.

    Raises:
        WorkerError: there is none.
    """
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    try:
        return _Source(name, getattr(module, "__package__", None) or "", str(file), Path(str(file)).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WorkerError(
            f"The source of module {name} cannot be read, so that its classes are not known in other processes. Put "
            "them into a file, or run the evaluator in one process."
        ) from error


def _run(source: _Source) -> None:
    module = ModuleType(_PROGRAM_THERE if source.name == _PROGRAM else source.name)
    module.__file__ = source.file
    module.__package__ = source.package
    # Where the file does not lie on this machine, tracebacks and TensorFlow read it from here.
    linecache.cache[source.file] = (len(source.text), None, source.text.splitlines(keepends=True), source.file)
    sys.modules[source.name] = sys.modules[module.__name__] = module
    exec(compile(source.text, source.file, "exec"), module.__dict__)


@contextmanager
def _deserializing() -> Iterator[None]:
    _Deserialization.now = True
    try:
        yield
    finally:
        _Deserialization.now = False
