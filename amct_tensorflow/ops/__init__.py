"""The op types that can be quantized (spec section 10): one file each, and one line here."""

from amct_tensorflow.ops.avg_pool import AVG_POOL
from amct_tensorflow.ops.batch_matmul import BATCH_MATMUL, BATCH_MATMUL_V2
from amct_tensorflow.ops.conv2d import CONV2D
from amct_tensorflow.ops.conv2d_transpose import CONV2D_TRANSPOSE
from amct_tensorflow.ops.conv3d import CONV3D
from amct_tensorflow.ops.depthwise_conv2d import DEPTHWISE_CONV2D
from amct_tensorflow.ops.matmul import MATMUL
from amct_tensorflow.ops.op_type import OpType
from amct_tensorflow.ops.unquantized import UNQUANTIZED

__all__ = ["OP_TYPES", "UNQUANTIZED", "OpType"]

OP_TYPES: dict[str, OpType] = {
    op_type.name: op_type
    for op_type in (
        CONV2D,
        DEPTHWISE_CONV2D,
        MATMUL,
        AVG_POOL,
        CONV2D_TRANSPOSE,
        CONV3D,
        BATCH_MATMUL,
        BATCH_MATMUL_V2,
    )
}
