"""Writes a part of a quantized model for TensorFlow Lite, so that it yields what the simulation does, to the bit.

A layer whose values are quantized right behind it computes in int8, a step per channel:

    clip(rint(sum * factor) + zero point)

XNNPACK adds products of bytes in 32 bits, multiplies by one float and rounds once, halves to even. The simulation does
the same, as TensorFlow multiplies the factors of an AscendDequant and of the AscendQuant right behind it into one. So
it does with several of them that multiply by the same factor, as they do so once.

Any other layer computes with the same integers as floats, which add up exactly up to 2^24, and a product behind it
makes values of the sums. What stands between layers is computed in floats, op by op, as in the simulation.
"""

from collections.abc import Collection

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.lite.python import schema_py_generated as schema

from amct_tensorflow.graph.view import GraphView, attribute, parse_tensor_name
from amct_tensorflow.ops import trait
from amct_tensorflow.ops.clips import RELU, RELU6, Clips
from amct_tensorflow.ops.sliding import beyond, margins, spatial
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.quantize.algorithms.scales import SMALLEST_SCALE
from amct_tensorflow.quantize.quantized.ascend_ops import QUANT
from amct_tensorflow.quantize.quantized.quantized_layer import Quantizer, read_quantizer
from amct_tensorflow.quantize.quantized.quantizer_readers import readers_of
from amct_tensorflow.search.integers.kernel_layer import KernelLayer
from amct_tensorflow.search.lite.lite_model import LiteModel
from amct_tensorflow.search.lite.lite_region import LiteRegion

# XNNPACK refuses a step of 256.
_LARGEST_FACTOR = 64.0
_CLIPS = {RELU: "RELU", RELU6: "RELU6"}


def translate(view: GraphView, region: LiteRegion, outputs: Collection[str]) -> bytes:
    """Returns a part of a model as the content of a file, for one image at a time.

    Args:
        view: the quantized model.
        region: the part; the file takes and yields the same tensors, of the layers it yields sums.
        outputs: nodes whose own value is requested.
    """
    return _Translation(view, region, outputs).content()


class _Translation:
    """Translates the nodes of a part in turn; their tensors are kept by node."""

    def __init__(self, view: GraphView, region: LiteRegion, outputs: Collection[str]) -> None:
        self._view = view
        self._region = region
        self._outputs = outputs
        self._model = LiteModel()
        self._values: dict[str, int] = {}  # of quantizers, their integers relative to the zero point
        self._bytes: dict[str, int] = {}  # the same in int8
        self._sums: dict[str, int] = {}
        self._scaled: dict[str, int] = {}  # what a quantizer rounds, where that is a product of sums

    def content(self) -> bytes:
        inputs = [self._model.floats(self._shape(name)) for name in self._region.inputs]
        self._values.update(zip(self._region.inputs, inputs, strict=True))
        for node in self._region.nodes:
            self._translate(node)
        outputs = self._region.outputs
        yields_sums = self._region.yields_sums
        return self._model.content(
            inputs, [self._sums[name] if yields_sums(name) else self._value_of(name) for name in outputs]
        )

    def _shape(self, name: str) -> tuple[int, ...]:
        return (1, *self._region.shapes[f"{name}:0"])

    def _translate(self, node: NodeDef) -> None:
        if node.name in self._region.layers:
            self._convolve(self._region.layers[node.name])
            return
        if node.name in self._bytes:  # the layer in front of the quantizer yields them
            return
        if node.name in self._scaled:
            self._bytes[node.name] = self._rounded(self._scaled[node.name], read_quantizer(node).grid)
            return
        values = [self._value_of(parse_tensor_name(text).node) for text in node.input]
        clips = trait(node.op, Clips)
        if node.op == QUANT:
            quantizer = read_quantizer(node)
            scaled = self._times(values[0], np.array(quantizer.grid.inverse, np.float32))
            self._bytes[node.name] = self._rounded(scaled, quantizer.grid)
        elif clips is not None:
            output = self._model.floats(self._shape(node.name))
            self._values[node.name] = self._model.add(_CLIPS[clips], 1, values, output)
        else:
            output = self._model.floats(self._shape(node.name))
            self._values[node.name] = self._model.add("ADD", 1, values, output, schema.AddOptionsT())

    def _value_of(self, name: str) -> int:
        """Returns the values of a node as floats."""
        if name not in self._values:
            if name in self._sums:
                self._values[name] = self._times(self._sums[name], self._region.layers[name].deq_scale)
            else:
                output = self._model.floats(self._shape(name))
                data = [self._bytes[name]]
                self._values[name] = self._model.add("DEQUANTIZE", 2, data, output, schema.DequantizeOptionsT())
        return self._values[name]

    def _bytes_of(self, quantizer: Quantizer) -> int:
        """Returns what a quantizer yields in int8; what comes from outside, and is integers, is converted."""
        if quantizer.name not in self._bytes:
            self._bytes[quantizer.name] = self._rounded(self._values[quantizer.name], quantizer.grid)
        return self._bytes[quantizer.name]

    def _rounded(self, values: int, grid: ActivationFactors) -> int:
        output = self._model.integers(self._model.shape(values), grid.offset)
        return self._model.add("QUANTIZE", 1, [values], output, schema.QuantizeOptionsT())

    def _times(self, values: int, factors: np.ndarray) -> int:
        output = self._model.floats(self._model.shape(values))
        return self._model.add("MUL", 1, [values, self._model.constant(factors)], output, schema.MulOptionsT())

    def _convolve(self, layer: KernelLayer) -> None:
        name, read = str(layer.quantized.dequantizer), layer.quantized.quantizer
        quantizers = self._only_readers(name)
        steps = layer.deq_scale * quantizers[0].grid.inverse if quantizers else None
        grids = {quantizer.grid for quantizer in quantizers}
        if steps is not None and len(grids) == 1 and steps.min() >= SMALLEST_SCALE and steps.max() <= _LARGEST_FACTOR:
            integers = self._model.integers(self._shape(name), grids.pop().offset)
            result = self._convolution(layer, self._bytes_of(read), integers, steps)
            self._bytes.update((quantizer.name, result) for quantizer in quantizers)
            return
        result = self._convolution(layer, self._value_of(read.name), self._model.floats(self._shape(name)), None)
        self._sums[name] = result
        if steps is not None:
            scaled = self._times(result, steps)
            self._scaled.update((quantizer.name, scaled) for quantizer in quantizers)

    def _only_readers(self, name: str) -> tuple[Quantizer, ...]:
        """Returns the quantizers of this part that multiply the values of a layer by one factor; none if others do."""
        readers = readers_of(self._view, name, self._outputs, through_moves=False)
        are_here = all(f"{quantizer.name}:0" in self._region.shapes for quantizer in readers.quantizers)
        factors = {quantizer.grid.inverse for quantizer in readers.quantizers}
        return (
            readers.quantizers if are_here and len(factors) == 1 and not readers.others and readers.end == name else ()
        )

    def _convolution(self, layer: KernelLayer, data: int, output: int, steps: np.ndarray | None) -> int:
        """Adds a convolution of bytes that yields bytes, in steps of its sums, or of floats that yields sums."""
        if layer.is_depthwise:
            op_type, axis, weights = "DEPTHWISE_CONV_2D", 3, layer.weights[np.newaxis, ..., 0]
            options = schema.DepthwiseConv2DOptionsT()
            options.depthMultiplier = 1
        else:
            op_type, axis, weights = "CONV_2D", 0, np.moveaxis(layer.weights, -1, 0)
            options = schema.Conv2DOptionsT()
        options.strideH, options.strideW = spatial(layer.node, "strides")
        options.dilationHFactor, options.dilationWFactor = spatial(layer.node, "dilations")
        options.padding = schema.Padding.SAME if self._pads_itself(layer, data) else schema.Padding.VALID
        if options.padding == schema.Padding.VALID:
            data = self._padded(layer, data)
        bias, version = layer.sums.added, 1 if steps is None else 3
        if steps is None:
            constants = [self._model.constant(each.astype(np.float32)) for each in (weights, bias)]
        else:
            constants = [self._model.constant(weights, steps, axis), self._model.constant(bias.astype(np.int32), steps)]
        return self._model.add(op_type, version, [data, *constants], output, options)

    def _pads_itself(self, layer: KernelLayer, data: int) -> bool:
        """Tells whether a convolution of TensorFlow Lite pads as the layer does.

        XNNPACK pads wrongly where the strides skip the end of an axis.
        """
        axes = zip(
            self._model.shape(data)[1:3], layer.weights.shape, spatial(layer.node, "strides"),
            spatial(layer.node, "dilations"), strict=False,
        )  # fmt: skip
        reaches_the_end = all(
            beyond(length, (size - 1) * dilation + 1, stride) >= 0 for length, size, stride, dilation in axes
        )
        return attribute(layer.node, "padding").s == b"SAME" and reaches_the_end

    def _padded(self, layer: KernelLayer, data: int) -> int:
        """Adds the zeros around the data of a layer, if there are any."""
        margin = margins(layer.node, self._model.shape(data), layer.weights.shape)
        assert margin is not None  # all sizes are known
        around = np.array([(0, 0), *margin, (0, 0)], np.int32)
        if not around.any():
            return data
        shape = [int(size) for size in self._model.shape(data) + around.sum(axis=1)]
        output = self._model.like(data, shape)
        return self._model.add("PAD", 2, [data, self._model.constant(around)], output, schema.PadOptionsT())
