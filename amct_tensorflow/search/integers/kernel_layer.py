"""Describes layers as TensorFlow's integer kernels compute them, and finds those that they can compute.

Spec section 8.3 gives a layer as ``x -> AscendQuant -> op(AscendWeightQuant) -> [BiasAdd] -> AscendDequant``. The
kernels take bytes, ``r + zero_point``, where ``r`` is what AscendQuant yields, relative to the zero point: signed ones,
``q`` itself with the zero point ``offset``, or unsigned ones with ``offset + 128``. The bias makes up for the excess
``zero_point * sum(weights)`` in their sums.

The simulation adds the same integers in float32, which is exact in any order up to 2**24. A layer whose sums may exceed
that has no kernel here, so that both always yield the same.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework import kernels  # there is no public way to ask which kernels there are

from amct_tensorflow.graph.names import QuantizedName
from amct_tensorflow.graph.view import GraphView, Shape, attribute
from amct_tensorflow.ops import trait
from amct_tensorflow.ops.channels import data_format
from amct_tensorflow.ops.sliding import margins, spatial
from amct_tensorflow.ops.traits import IntegerKernel
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS
from amct_tensorflow.quantize.algorithms.kernel_bytes import (
    EXACT_SUMS,
    ByteForm,
    KernelSums,
    kernel_numbers,
)
from amct_tensorflow.quantize.quantized.quantized_layer import QuantizedLayer, read_layers
from amct_tensorflow.quantize.quantized.quantizer_readers import readers_of

CONVOLUTION = "_FusedQuantizedConv2D"
DEPTHWISE_CONVOLUTION = "_FusedQuantizedDepthwiseConv2D"


def has_kernel(op: str) -> bool:
    """Tells whether this TensorFlow has a kernel of an op."""
    return len(kernels.get_registered_kernels_for_op(op).kernel) > 0


_NO_MARGINS = ((0, 0), (0, 0))


@dataclass(frozen=True, eq=False)
class Requantization:
    """How a kernel hands the sums of a layer on as bytes.

    Attributes:
        quantizer: the quantizer that would make these bytes.
        form: how it holds them.
        ranges: of the weights, which tell the kernel what to multiply by; float32 [Cout], see ``kernel_bytes``.
        biases: what the kernel adds then, likewise.
        lowest: the least byte that it yields.
        highest: the greatest byte that it yields.
    """

    quantizer: QuantizedName
    form: ByteForm
    ranges: np.ndarray
    biases: np.ndarray
    lowest: int
    highest: int


@dataclass(frozen=True, eq=False)
class KernelLayer:
    """A layer as an integer kernel computes it.

    Attributes:
        quantized: the layer, as the quantized model has it.
        weights: int8 [h, w, Cin, Cout], or [h, w, C, 1] of a depthwise convolution.
        sums: what it adds up.
        deq_scale: factor from sums to values, float32 [Cout].
        margins: the zeros to pad before and behind height and width, where the kernel would pad wrongly; None if it
            pads as the op does.
        to_bytes: how its sums become the bytes of the next layer; None if they become floats.
    """

    quantized: QuantizedLayer
    weights: np.ndarray
    sums: KernelSums
    deq_scale: np.ndarray
    margins: tuple[tuple[int, int], ...] | None
    to_bytes: Requantization | None = None

    @property
    def node(self) -> NodeDef:
        """The op that multiplies, as the quantized model has it."""
        return self.quantized.node

    @property
    def name(self) -> QuantizedName:
        """The name of the layer."""
        return self.quantized.name

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel has its own filter."""
        return _kernel(self.node) is IntegerKernel.DEPTHWISE_CONVOLUTION

    @property
    def is_matrix(self) -> bool:
        """Whether the data has no height and width."""
        return _kernel(self.node) is IntegerKernel.MATRIX_PRODUCT


def _requantization(view: GraphView, layer: KernelLayer, outputs: Collection[str]) -> Requantization | None:
    """Returns how a kernel hands the sums of a layer on as bytes; None if they would not be those of the simulation.

    Products of matrices yield sums. Of no rows, as where nothing is detected, the kernel makes bytes with another
    number of columns.

    Args:
        view: the quantized model.
        layer: the layer.
        outputs: nodes whose own value is requested.
    """
    dequantizer = layer.quantized.dequantizer
    readers = readers_of(view, dequantizer, outputs, through_moves=False)
    if readers.others or len(readers.quantizers) != 1 or layer.is_matrix:
        return None
    (quantizer,) = readers.quantizers
    grid, clip = quantizer.grid, None if readers.end == dequantizer else readers.clip
    if grid.num_bits != INT8_BITS:
        return None
    numbers, form = kernel_numbers(layer.deq_scale, layer.sums, grid, clip), ByteForm.of(grid)
    if not numbers.exact.all():
        return None
    return Requantization(quantizer.name, form, numbers.ranges, numbers.biases, *form.limits(grid, readers.clip))


def find_kernel_layers(
    view: GraphView, outputs: Collection[str]
) -> tuple[dict[QuantizedName, KernelLayer], dict[QuantizedName, str]]:
    """Finds the layers of a quantized model that integer kernels can compute.

    Args:
        view: the quantized model; knows the shapes of what quantizers read, as far as they are known.
        outputs: nodes whose own value is requested.

    Returns:
        These layers by name, and why the other quantized ones stay in simulation.
    """
    found, others = {}, {}
    for quantized in read_layers(view):
        layer = as_kernel_layer(quantized, view.shape(quantized.quantizer.data))
        if isinstance(layer, str):
            others[quantized.name] = layer
        else:
            found[quantized.name] = replace(layer, to_bytes=_requantization(view, layer, outputs))
    return found, others


def layers_between_floats(layers: Mapping[QuantizedName, KernelLayer]) -> list[QuantizedName]:
    """Returns the depthwise ones of layers that read floats and yield floats; casts would make them slower."""
    in_bytes = {layer.to_bytes.quantizer for layer in layers.values() if layer.to_bytes is not None}
    return [
        name
        for name, layer in layers.items()
        if layer.is_depthwise and layer.to_bytes is None and layer.quantized.quantizer.name not in in_bytes
    ]


def as_kernel_layer(quantized: QuantizedLayer, data: Shape | None) -> KernelLayer | str:
    """Returns how an integer kernel computes a layer, or why none can.

    Args:
        quantized: the layer.
        data: the shape of what it reads, as far as it is known; None if it may have any rank.
    """
    if quantized.input_grid.num_bits != INT8_BITS:
        return f"no integer kernel takes {quantized.input_grid.num_bits} bits"
    node, kernel = quantized.node, _kernel(quantized.node)
    found = _shaped(quantized, data)
    if isinstance(found, str):
        return found
    weights, shape = found
    assert quantized.weights is not None
    sums = KernelSums.of(quantized.input_grid, quantized.op_type.by_channel(quantized.weights), quantized.bias)
    around = margins(node, shape, weights.shape) if kernel is not IntegerKernel.MATRIX_PRODUCT else _NO_MARGINS
    # Bytes of 0 are what the kernel pads with, by the same rules as the op but where the op is told how much.
    form = sums.form
    kernel_pads = (
        form.zero_point == 0
        and attribute(node, "padding").s != b"EXPLICIT"
        and not (form.signed and _pads_signed_bytes_wrongly(node, weights))
    )
    if around is None and not kernel_pads:
        return "how much is padded depends on a size that only a run tells"
    if sums.largest.max(initial=0) >= EXACT_SUMS:
        return "its sums may exceed 24 bits, which float32 holds"
    return KernelLayer(
        quantized=quantized,
        weights=weights,
        sums=sums,
        deq_scale=np.broadcast_to(quantized.deq_scale, sums.bias.shape).astype(np.float32),
        margins=None if kernel_pads or around == _NO_MARGINS else around,
    )


def _pads_signed_bytes_wrongly(node: NodeDef, weights: np.ndarray) -> bool:
    """Tells whether the kernel may make something of what it pads signed bytes with.

    It does where a filter with gaps meets nothing but padding, and where one channel is padded along one axis alone.
    """
    if _kernel(node) is IntegerKernel.MATRIX_PRODUCT:
        return False
    return spatial(node, "dilations") != (1, 1) or weights.shape[2] == 1


def _shaped(quantized: QuantizedLayer, data: Shape | None) -> tuple[np.ndarray, Shape] | str:
    """Returns the weights of a layer as those of a convolution, and the shape of its data; or why no kernel does."""
    node, weights, kernel = quantized.node, quantized.weights, _kernel(quantized.node)
    if weights is None or kernel is None:
        return f"there is no integer kernel for {node.op}"
    is_matrix = kernel is IntegerKernel.MATRIX_PRODUCT
    if data is None or len(data) != (2 if is_matrix else 4):
        return "the rank of its data is not known"
    if not is_matrix:
        return _why_not_convolution(node, data, weights) or (weights, data)
    if attribute(node, "transpose_a").b or attribute(node, "transpose_b").b:
        return "the kernel does not transpose"
    return weights[np.newaxis, np.newaxis], data


def _kernel(node: NodeDef) -> IntegerKernel | None:
    return trait(node.op, IntegerKernel)


def _why_not_convolution(node: NodeDef, data: Shape, weights: np.ndarray) -> str | None:
    if data_format(node) != "NHWC":
        return "the kernel wants the channels last"
    if _kernel(node) is IntegerKernel.CONVOLUTION:
        return "it convolves in groups" if data[-1] != weights.shape[2] else None
    if weights.shape[3] != 1:
        return "its channels have several filters each"
    return "its filters have gaps" if spatial(node, "dilations") != (1, 1) else None
