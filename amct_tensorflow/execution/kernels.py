"""Whether this TensorFlow on this processor multiplies bytes exactly, and faster than floats.

TensorFlow for x86 comes with oneDNN's integer kernels. They are exact where the processor adds up four products of an
unsigned and a signed byte in 32 bits (AVX-512 VNNI, AVX-VNNI, AMX); older ones add pairs of them in 16 bits, which
overflows, and are no faster than with floats.
"""

from functools import cache
from pathlib import Path

import tensorflow as tf
from tensorflow.python.framework import kernels  # there is no public way to ask which kernels there are
from tensorflow.python.util import _pywrap_util_port

CONVOLUTION = "_FusedQuantizedConv2D"
DEPTHWISE_CONVOLUTION = "_FusedQuantizedDepthwiseConv2D"
MATRIX_PRODUCT = "_QuantizedMatMul"

_PROCESSOR = Path("/proc/cpuinfo")
_EXACT = {"avx512_vnni", "avx_vnni", "amx_int8"}


@cache
def obstacle_to_integers() -> str | None:
    """Returns why nothing runs in integers in this process, None if it can."""
    missing = [op for op in (CONVOLUTION, DEPTHWISE_CONVOLUTION) if not _has_kernel(op)]
    if missing:
        return f"this TensorFlow has no {missing[0]}"
    if not _pywrap_util_port.IsMklEnabled():
        return "oneDNN is switched off (TF_ENABLE_ONEDNN_OPTS)"
    if tf.config.list_physical_devices("GPU"):
        return "the model runs on a GPU, and the integer kernels on the processor"
    if not _EXACT & _processor_features():
        return "this processor has no exact products of bytes (VNNI)"
    return None


@cache
def has_matrix_product() -> bool:
    """Tells whether there is a product of matrices that yields floats; TensorFlow 2.16 has none."""
    return _has_kernel(MATRIX_PRODUCT)


def _has_kernel(op: str) -> bool:
    return len(kernels.get_registered_kernels_for_op(op).kernel) > 0


def _processor_features() -> set[str]:
    """Returns what the system says that the processor can do; nothing where it does not say so in a file."""
    try:
        lines = _PROCESSOR.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return set(flags.split())
