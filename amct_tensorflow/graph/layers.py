"""Which nodes of a graph can be quantized."""

from dataclasses import dataclass

QUANTIZABLE_TYPES = ("Conv2D", "DepthwiseConv2dNative", "MatMul", "AvgPool", "Conv2DBackpropInput")
CHANNEL_WISE_TYPES = ("Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput")


@dataclass(frozen=True)
class LayerSpec:
    """What the configuration must know of a quantizable layer.

    Attributes:
        name: node name.
        op_type: TensorFlow op type, one of ``QUANTIZABLE_TYPES``.
        channel_wise: whether its weights get one scale per output channel by default; False for types that cannot,
            and for convolutions whose filter covers the whole input feature map (they are fully connected layers,
            spec section 12.1).
    """

    name: str
    op_type: str
    channel_wise: bool
