"""Switches oneDNN's kernels on where they pay and TensorFlow leaves them off.

TensorFlow for x86 comes with them, and has them on by default only where the processor has instructions for products of
bytes (AVX-512 VNNI and its successors). Their float kernels need no such instructions: with AVX2 alone, a batch takes
two thirds of the time, and a quantized model half. They add up in another order, which changes last digits.

Importing this does not import TensorFlow, which reads the setting while it is imported.
"""

import os
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from importlib import import_module

from amct_tensorflow.log import begin_log_with

VARIABLE = "TF_ENABLE_ONEDNN_OPTS"

# NumPy asks the processor itself, as TensorFlow does, but has no public way to tell; its first major version had the
# same under another name.
_NUMPY_MODULES = ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath")


def use_onednn() -> None:
    """Switches oneDNN on where that pays, for this process and those that it starts; the log file says so.

    To be called once, by a program and not by a library, before TensorFlow is imported; afterwards it does nothing.
    """
    if "tensorflow" in sys.modules or not pays(_processor_features(), os.environ):
        return
    os.environ[VARIABLE] = "1"
    begin_log_with(
        "onednn",
        f"oneDNN is switched on ({VARIABLE}=1), as it pays on this processor, on which TensorFlow may leave it off. It "
        "changes last digits; a setting of your own stands.",
    )


def pays(features: Collection[str], environment: Mapping[str, str]) -> bool:
    """Tells whether oneDNN pays, and only a setting is missing.

    Args:
        features: what the processor has, as NumPy calls it: ``AVX2``, ``AVX512VNNI``.
        environment: the environment; the user's own setting stands, whatever it is.
    """
    return VARIABLE not in environment and "AVX2" in features and "AVX512VNNI" not in features


def onednn_is_on() -> bool:
    """Tells whether TensorFlow uses oneDNN's kernels in this process; imports it."""
    from tensorflow.python.util import _pywrap_util_port  # noqa: PLC0415 - there is no public way to ask

    return bool(_pywrap_util_port.IsMklEnabled())


def same_onednn() -> dict[str, str]:
    """Returns the setting with which other processes compute the same last digits as this one."""
    return {VARIABLE: "1" if onednn_is_on() else "0"}


def _processor_features() -> set[str]:
    for name in _NUMPY_MODULES:
        with suppress(ImportError, AttributeError):
            return {feature for feature, present in import_module(name).__cpu_features__.items() if present}
    return set()
