"""Keeps memory that is free from counting as used, and Python from searching for garbage where there is none.

What concerns the C library does nothing where that is not glibc.
"""

import ctypes
import gc
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

VARIABLE = "MALLOC_ARENA_MAX"
_TUNABLE = "glibc.malloc.arena_max="
_M_ARENA_MAX = -8  # as malloc.h has it
# What TensorFlow imports of Keras while it is imported itself; it goes on without what is not there.
_OPTIMIZERS = ("keras.src.optimizers", "tf_keras.src.optimizers")


def use_few_arenas() -> None:
    """Lets threads share as many heaps as there are cores, in this process and those that it starts.

    By default they have eight per core, each of which keeps what is free between its blocks: some 70 MB in a run of
    MobileNet V2. To be called by a program and not by a library; a setting of the user's own stands.
    """
    cores = os.cpu_count() or 1
    set_option = _function("mallopt")
    if not _is_set(os.environ) and set_option is not None and set_option(_M_ARENA_MAX, cores):
        os.environ[VARIABLE] = str(cores)


def _is_set(environment: Mapping[str, str]) -> bool:
    """Tells whether the user has said how many heaps there may be, in either way that glibc knows."""
    return VARIABLE in environment or _TUNABLE in environment.get("GLIBC_TUNABLES", "")


def give_memory_back() -> None:
    """Frees graphs that nothing uses any more, and gives free memory back to the system.

    Graphs refer to themselves, so that Python frees them late. What the C library keeps between blocks would be held
    while the next model runs.
    """
    gc.collect()
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def import_tensorflow() -> None:
    """Imports TensorFlow, whose objects Python leaves out of its search for garbage from then on.

    They live as long as the program. To search through them again and again takes half a second while they are made,
    and a second when the program ends. Keras is left to those who use it, which saves half a second more: TensorFlow
    imports it on demand, and at the end of its own import only so that Keras registers its optimizers for SavedModels
    that hold one. To be called by a program and not by a library.
    """
    if "tensorflow" in sys.modules:
        return
    searches = gc.isenabled()
    gc.disable()
    try:
        with _without(_OPTIMIZERS):
            importlib.import_module("tensorflow")
    finally:
        if searches:
            gc.enable()
    gc.freeze()


@contextmanager
def _without(modules: Sequence[str]) -> Iterator[None]:
    """Lets imports of modules fail inside the block, but for those that were imported before."""
    missing = [name for name in modules if name not in sys.modules]
    modules_or_none: dict[str, Any] = sys.modules
    modules_or_none.update(dict.fromkeys(missing))
    try:
        yield
    finally:
        for name in missing:
            sys.modules.pop(name, None)


@contextmanager
def older_objects_left_alone() -> Iterator[None]:
    """Leaves out of Python's search for garbage, inside the block, what is there already.

    TensorFlow's modules hold so many objects that a search through them all takes 0.2 s, and a run searches several
    times. Does nothing if the program has left objects out itself: Python would take them in again with the others.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _function(name: str) -> Any:
    """Returns a function of the C library; None where it has no such function."""
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except (OSError, TypeError):  # on Windows no name stands for the program itself
        return None
