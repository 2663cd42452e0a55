"""oneDNN's integer kernels, with which TensorFlow for x86 comes."""

from functools import cache

from tensorflow.python.framework import kernels  # there is no public way to ask which kernels there are

CONVOLUTION = "_FusedQuantizedConv2D"
DEPTHWISE_CONVOLUTION = "_FusedQuantizedDepthwiseConv2D"
MATRIX_PRODUCT = "_QuantizedMatMul"


@cache
def has_matrix_product() -> bool:
    """Tells whether there is a product of matrices that yields floats; TensorFlow 2.16 has none."""
    return has_kernel(MATRIX_PRODUCT)


def has_kernel(op: str) -> bool:
    """Tells whether this TensorFlow has a kernel of an op."""
    return len(kernels.get_registered_kernels_for_op(op).kernel) > 0
