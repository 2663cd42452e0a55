"""Conv3D: filters [depth, height, width, channels in, channels out].

Two restrictions are those of the original toolkit (spec section 10): no dilation along the depth, and no zero point for
the activations. The second is taken from its sibling for PyTorch: a zero point that the compiler does not know of would
be right in simulation, and wrong on the device. In NCDHW the channel axis of AscendDequant is not defined.
"""

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.ops.op_type import OpType, data_format
from amct_tensorflow.ops.sliding import CONVOLUTION_FORM, convolve, pads, products_of_convolution, spatial


def _restriction(node: NodeDef) -> str | None:
    if spatial(node, "dilations")[0] > 1:
        return "it is dilated along its depth"
    if data_format(node) != "NHWC":
        return "its data format is NCDHW, for which AscendDequant knows no channel axis"
    return None


CONV3D = OpType(
    name="Conv3D",
    reference=convolve,
    weight_input=1,
    weight_rank=5,
    input_axis=3,
    channel_axes=(4,),
    output_rank=5,
    zero_point=False,
    restriction=_restriction,
    pads=pads,
    products=products_of_convolution,
    matrix_form=CONVOLUTION_FORM,
)
