"""Memory that is free goes back to the system."""

import ctypes
import gc
import importlib
import os
import subprocess
import sys
import weakref
from contextlib import nullcontext
from pathlib import Path

import pytest
from conftest import ROOT

from amct_tensorflow.io.memory import give_memory_back, import_tensorflow, older_objects_left_alone

HAS_GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")


STATM = Path("/proc/self/statm")
MB = 2**20


class Selfish:
    """Refers to itself, as a graph does."""

    def __init__(self):
        self.myself = self


def test_what_refers_to_itself_is_freed():
    alive = weakref.ref(Selfish())
    give_memory_back()
    assert alive() is None


@pytest.mark.parametrize("fails", [False, True])
def test_only_what_is_newer_is_looked_for(fails):
    older = Selfish()
    before = weakref.ref(older)
    try:
        with older_objects_left_alone():
            del older
            alive = weakref.ref(Selfish())
            give_memory_back()
            assert alive() is None and before() is not None
            if fails:
                raise KeyError
    except KeyError:
        pass
    give_memory_back()
    assert before() is None


def test_what_nothing_used_before_is_freed_first():
    before = weakref.ref(Selfish())
    with older_objects_left_alone():
        assert before() is None


@pytest.fixture
def thawed():
    yield
    gc.unfreeze()


def test_what_the_program_has_left_out_stays_out(thawed):
    gc.freeze()
    before = weakref.ref(Selfish())
    with older_objects_left_alone():
        assert before() is not None
        give_memory_back()
        assert before() is None
    assert gc.get_freeze_count()


@pytest.mark.parametrize("fails", [False, True])
def test_tensorflow_is_imported_without_a_search_for_garbage(monkeypatch, thawed, fails):
    searched = []

    def import_module(name):
        searched.append((name, gc.isenabled()))
        if fails:
            raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    import_tensorflow()  # the tests have imported it
    assert not searched and not gc.get_freeze_count()
    monkeypatch.delitem(sys.modules, "tensorflow")
    with pytest.raises(ImportError) if fails else nullcontext():
        import_tensorflow()
    assert searched == [("tensorflow", False)] and gc.isenabled()
    assert bool(gc.get_freeze_count()) is not fails


def test_keras_is_imported_only_on_demand():
    code = (
        "import sys; from amct_tensorflow.console import import_tensorflow; import_tensorflow()\n"
        "print([name for name in sys.modules if name.startswith('keras')])\n"
        "import tensorflow as tf; print(tf.keras.optimizers.get('sgd').name)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["[]", "sgd"], done.stderr


def resident():
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not HAS_GLIBC, reason="another C library")
def test_what_lies_between_pieces_in_use_is_given_back():
    before = resident()
    blocks = [bytes(1000) for _ in range(100_000)]
    kept = blocks[::1000]
    assert resident() - before > 80 * MB
    del blocks
    assert resident() - before > 60 * MB
    give_memory_back()
    assert resident() - before < 20 * MB and len(kept) == 100


@pytest.mark.skipif(not HAS_GLIBC, reason="another C library")
@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, str(os.cpu_count())),
        ({"MALLOC_ARENA_MAX": "3"}, "3"),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=3"}, "None"),
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_max=9:glibc.malloc.arena_max=3"}, "None"),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_test=9"}, str(os.cpu_count())),
    ],
)
def test_threads_share_heaps_unless_the_user_says_otherwise(own, expected):
    names = ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")
    environment = {**{key: value for key, value in os.environ.items() if key not in names}, **own}
    code = "from amct_tensorflow.console import use_few_arenas; import os; use_few_arenas()\n"
    code += "print(os.environ.get('MALLOC_ARENA_MAX'))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == expected, done.stderr


def test_nothing_is_done_without_such_functions(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    give_memory_back()
