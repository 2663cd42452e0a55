"""Memory that was freed is given back before a model is evaluated."""

import os
import sys
from pathlib import Path

import pytest

from amct_tensorflow.search.evaluations import give_back_memory

STATM = Path("/proc/self/statm")
MB = 2**20


def resident():
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="the C library decides for itself")
def test_what_lies_between_pieces_in_use_is_given_back():
    before = resident()
    blocks = [bytes(1000) for _ in range(100_000)]
    kept = blocks[::1000]
    assert resident() - before > 80 * MB
    del blocks
    assert resident() - before > 60 * MB
    give_back_memory()
    assert resident() - before < 20 * MB and len(kept) == 100


def test_a_c_library_that_cannot(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", missing)
    give_back_memory()
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    give_back_memory()
