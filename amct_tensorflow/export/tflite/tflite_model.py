"""Makes the quantized model in TensorFlow Lite.

The float reference has no quantizers, and the converter knows algebra: a bias in front of a dense layer goes through
its weights into its bias, and a scale into its weights; so does a scale behind it, as of the queries of attention. That
is right in float, and wrong once the integers of both layers are put back. So a maximum with the least float stands in
each of these places, which changes no value, and which no rule of the converter's knows. They are taken out again
before the integers come in.

TensorFlow's converter converts the float reference; no quantization of its own takes part. Its int8 kernels yield int8,
so that each needs a grid for its output. Where float ops read the output of a dense layer, such a grid would round once
more than the simulation does. There the layer is a dense layer of data in float and weights in int8, whose kernels find
the range of each row, quantize the row to 8 bits, multiply integers, and yield float. With both ends of the grid as two
more values of each row, which zeros multiply, that range is the grid's, and the integers are ours:

    QUANTIZE --> PADV2 (-128) --> PADV2 (127) --> DEQUANTIZE --> FULLY_CONNECTED [out, in + 2]

Any other layer without a grid, or of which there is no int8 kernel, computes in float from the same integers: its
weights stay int8 in the file, and are brought back when the model is loaded.

A layer that reads 16 bits gets the kernel for int16 beside weights of int8, whose sums and biases are int64. So does
one that reads 8 bits if 16 bits of its output are read: its input is brought to int16 in the same steps, which changes
no integer but that the zero point is taken off. XNNPACK has no such kernels, and leaves them to those built in.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.export.export_plan import ExportPlan
from amct_tensorflow.export.tflite.tflite_conversion import convert_to_tflite
from amct_tensorflow.export.tflite.tflite_editor import TfliteEditor
from amct_tensorflow.export.tflite.tflite_forms import DENSE, FORMS, INT8_WEIGHTS, Form
from amct_tensorflow.export.tflite.tflite_padding import pad_in_front_of_long_strides
from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView, data_inputs, full_tensor_name
from amct_tensorflow.ops import affine, trait
from amct_tensorflow.ops.effects import keeps_order
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS, INT16_BITS, ActivationFactors
from amct_tensorflow.quantize.quantized.quantized_layer import QuantizedLayer

_LEAST = np.array(np.finfo(np.float32).min)
_SCALINGS = (affine.PRODUCT, affine.QUOTIENT)


def with_barriers(plan: ExportPlan) -> GraphDef:
    """Returns the float reference of a plan with a barrier on every tensor that is to be quantized."""
    editor = GraphEditor(GraphView(plan.float_reference))
    barriers: dict[str, str] = {}
    for name, layer in plan.quantized_layers.items():
        for index, quantizer in zip(layer.op_type.operands, layer.quantizers, strict=True):
            data = editor.node(name).input[index]
            key = full_tensor_name(data)
            if key not in barriers:
                barriers[key] = _barrier(editor, quantizer.name, data, like=name)
            editor.replace_input(name, index, barriers[key])
    for scaling, index in _scalings_behind(plan):
        data = editor.node(scaling).input[index]
        editor.replace_input(scaling, index, _barrier(editor, scaling, data, like=scaling))
    return editor.graph_def_for(plan.outputs)


def _barrier(editor: GraphEditor, scope: str, tensor: str, like: str) -> str:
    """Adds a barrier behind a tensor, in a scope, on the device of a node; returns its name."""
    barrier = editor.unique_name(f"{scope}/barrier")
    least = editor.add(make_const(editor.unique_name(f"{barrier}/least"), _LEAST), like=like)
    return editor.add(make_node(barrier, "Maximum", [tensor, least], T=tf.float32), like=like)


def _scalings_behind(plan: ExportPlan) -> Iterator[tuple[str, int]]:
    """Yields the products and quotients of a constant and what they alone read of a layer, which is that input of them.

    The converter folds no others. A barrier there would keep it from seeing a Gelu, which reads its input twice.
    """
    view = GraphView(plan.float_reference)
    for layer in plan.quantized_layers.values():
        readers = view.readers(layer.dequantizer)
        while len(readers) == 1 and keeps_order(readers[0]):
            readers = view.readers(readers[0].name)
        if len(readers) == 1 and trait(readers[0].op, affine.PerChannelAffine) in _SCALINGS:
            inputs = data_inputs(readers[0].input)
            varying = [index for index, tensor in enumerate(inputs) if view.constant(tensor) is None]
            if len(varying) == 1:
                yield str(readers[0].name), varying[0]


def remove_barriers(editor: TfliteEditor) -> None:
    """Takes the barriers out of a converted model."""
    for operator in list(editor.operators):
        if editor.op_type(operator) == "MAXIMUM":
            data, least = (int(index) for index in operator.inputs)
            if editor.constant(least) == _LEAST.tobytes():
                editor.bypass(operator, data)


# The least versions of the op types that take int8; of DEQUANTIZE also the one that takes a scale per channel.
_QUANTIZE, _DEQUANTIZE, _DEQUANTIZE_PER_CHANNEL, _ADD = 1, 2, 5, 2
# Likewise of those that take int16.
_WIDE_QUANTIZE, _WIDE_DEQUANTIZE = 2, 3
# The least of QUANTIZE that takes int8 on one grid to another one.
_REQUANTIZE = 2
# Op types that do nothing but move values, and the least versions of them that take int8.
_MOVING = {"MAX_POOL_2D": 2, "PAD": 2, "RESHAPE": 1, "SQUEEZE": 1, "TRANSPOSE": 2}

# What is found by its output, and the least version of a product of two computed operands that takes int8.
_WITHOUT_WEIGHTS = ("AVERAGE_POOL_2D", "BATCH_MATMUL")
_OF_TWO_COMPUTED = 2
# The least version of FULLY_CONNECTED that takes a zero point of data that it quantizes itself.
_DYNAMIC = 9
_MOST_PADDED_AXES = 5
# The ends of a grid of 8 bits.
_ENDS = (-128, 127)

# XNNPACK refuses to load a file in which a step of a layer's sums is as many steps of its output, in any channel.
_MOST_STEPS = 256
# Kernels for int16 multiply a sum by less than this.
_MOST_STEPS_OF_WIDE = 1 << 7
# Before 2.19, the kernel for int16 took one scale for all channels where its data has more than two axes.
_PRODUCT = "FULLY_CONNECTED"
_PRODUCTS_ARE_RIGHT = tuple(map(int, tf.__version__.split(".")[:2])) >= (2, 19)
_CHANGED = "the converter has changed it"
_SAME_WEIGHTS = "another layer has the same weights"


@dataclass(frozen=True)
class TfliteModel:
    """A quantized model in TensorFlow Lite.

    Attributes:
        content: the flatbuffer.
        ends: per quantized layer that was found, the name of the tensor with its output.
        in_float: per quantized layer, and per sum of the plan, that computes in float, why.
        wide: per quantized layer that computes in 16 bits, why.
    """

    content: bytes
    ends: Mapping[str, str]
    in_float: Mapping[str, str]
    wide: Mapping[str, str]


def make_tflite_model(plan: ExportPlan) -> TfliteModel:
    """Makes the TensorFlow Lite model of a plan, for as much at a time as its shapes say.

    Raises:
        ExportError: the converter does not know an op of the model.
    """
    missing: dict[str, str] = {}
    while True:
        writer = _Writer(
            plan, convert_to_tflite(with_barriers(plan), plan.shapes, list(plan.inputs), list(plan.outputs))
        )
        operators, lost = writer.find_operators()
        if not lost:
            return writer.write(operators, missing)
        missing.update(lost)
        plan = plan.without(lost)


class _Writer:
    """Puts the integers of a plan into its float reference in TensorFlow Lite."""

    def __init__(self, plan: ExportPlan, content: bytes) -> None:
        self._plan = plan
        self._editor = TfliteEditor(content)
        remove_barriers(self._editor)
        pad_in_front_of_long_strides(self._editor)
        self._quantized: dict[tuple[int, ActivationFactors], int] = {}
        self._floats: dict[tuple[int, ActivationFactors], int] = {}
        self._with_ends: dict[tuple[int, ActivationFactors], int] = {}
        self._handed_on: dict[int, int] = {}  # from the float tensor of an output to its integers
        self._ends: dict[str, str] = {}

    def write(self, operators: Mapping[str, Any], missing: Mapping[str, str]) -> TfliteModel:
        """Returns the model with the integers.

        Args:
            operators: per layer, its operator.
            missing: what is known of other layers.
        """
        yielding_float = {name for name, operator in operators.items() if self._yields_float(name, operator)}
        in_float = {
            name: reason
            for name, operator in operators.items()
            if name not in yielding_float
            if (reason := self._reason(name) or self._why_no_wide_kernel(name, operator))
        }
        integer = operators.keys() - yielding_float - in_float.keys()
        wide = {name: reason for name in operators if name in integer and (reason := self._why_wide(name))}
        for name, operator in operators.items():
            if name in integer:
                grids = self._plan.wide_grids if name in wide else self._plan.output_grids
                self._ends[name] = self._hand_on(operator, grids[name])
            else:
                self._ends[name] = self._editor.name(int(operator.outputs[0]))
        in_float.update(self._add_in_int8())
        self._move_in_int8()
        for name, operator in operators.items():
            if name in integer:
                self._compute_in_integers(self._plan.layers[name], operator, is_wide=name in wide)
            elif name in yielding_float:
                self._compute_to_float(self._plan.layers[name], operator)
            else:
                self._compute_in_float(self._plan.layers[name], operator)
        return TfliteModel(self._editor.content(), self._ends, {**in_float, **missing}, wide)

    def find_operators(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Returns per layer the operator that computes it, and why there is none for other layers."""
        by_weights: dict[tuple[str, bytes], list[Any]] = {}
        by_output: dict[str, list[Any]] = {}
        for operator in self._editor.operators:
            op_type = self._editor.op_type(operator)
            if op_type in _WITHOUT_WEIGHTS:
                by_output.update({name: [operator] for name in self._editor.name(operator.outputs[0]).split(";")})
            weights = self._editor.constant(operator.inputs[1]) if len(operator.inputs) > 1 else None
            if weights is not None:
                by_weights.setdefault((op_type, weights), []).append(operator)
        found, missing = {}, {}
        for name, layer in self._plan.quantized_layers.items():
            form = None if layer.weights is None else FORMS.get(layer.op_type.name)
            if layer.weights is None:
                candidates = by_output.get(name, [])
            elif form is None:
                missing[name] = f"there is no int8 kernel of {layer.op_type.name}"
                continue
            else:
                weights = np.ascontiguousarray(form.layout(layer.float_weights)).tobytes()
                candidates = by_weights.get((form.op, weights), [])
            if len(candidates) != 1:
                missing[name] = _SAME_WEIGHTS if candidates else _CHANGED
            elif form is not None and not self._account_for_bias(layer, form, candidates[0]):
                missing[name] = _CHANGED
            else:
                found[name] = candidates[0]
        claims = Counter(map(id, found.values()))
        missing.update({name: _SAME_WEIGHTS for name, operator in found.items() if claims[id(operator)] > 1})
        return found, missing

    def _account_for_bias(self, layer: QuantizedLayer, form: Form, operator: Any) -> bool:
        """Makes an operator add the bias of its layer, all of it and nothing else; tells whether that can be."""
        expected = np.zeros(1, np.float32) if layer.bias is None else layer.float_bias
        index = int(operator.inputs[form.bias]) if len(operator.inputs) > form.bias else -1
        held = np.zeros(1, np.float32) if index == -1 else self._editor.values(index)
        if held is None or held.any():
            return held is not None and np.array_equal(held, expected)
        return not expected.any() or self._editor.take_in_add(operator, form.bias, expected)

    def _yields_float(self, name: str, operator: Any) -> bool:
        """Tells whether a layer is a dense one whose output an int8 kernel would round once more, or has no grid.

        Data of more axes than PADV2 takes is left to the int8 kernel.
        """
        layer, output = self._plan.layers[name], self._plan.layer_outputs[name]
        is_dense = layer.weights is not None and FORMS.get(layer.op_type.name) is DENSE
        is_narrow = layer.input_grid.num_bits == INT8_BITS
        is_read_in_float = output.grid is None and output.end not in self._summed_in_int8
        can_be_padded = self._editor.rank(int(operator.inputs[0])) <= _MOST_PADDED_AXES
        return is_dense and is_narrow and is_read_in_float and can_be_padded

    @cached_property
    def _summed_in_int8(self) -> set[str]:
        """The nodes whose values the sums of the plan add in 8 bits."""
        view = self._plan.view
        return {str(view.producer(tensor).name) for name in self._plan.sums for tensor in view.nodes[name].input[:2]}

    def _reason(self, name: str) -> str | None:
        """Returns why a layer computes in float; None if it does not."""
        layer = self._plan.layers[name]
        if layer.weights is None and not layer.is_product:
            return "its output is finer than the scale of its input, to which the int8 kernel rounds"
        is_wide = self._why_wide(name) is not None
        if layer.is_product and (is_wide or self._plan.layer_outputs[name].grid is None):
            return "its output is not read in 8 bits, which alone an int8 kernel of two computed operands yields"
        grid = (self._plan.wide_grids if is_wide else self._plan.output_grids).get(name)
        if grid is None:
            return "its output stays in float, which no int8 kernel yields"
        steps = layer.deq_scale / np.float32(grid.scale)
        taker, most = ("the kernel", _MOST_STEPS_OF_WIDE) if is_wide else ("XNNPACK", _MOST_STEPS)
        if not np.all(steps < most):
            return f"a step of its sums is {steps.max():.0f} steps of its output; {taker} takes less than {most}"
        return None

    def _why_wide(self, name: str) -> str | None:
        """Returns why a layer needs a kernel of 16 bits; None if it does not."""
        if self._plan.layers[name].input_grid.num_bits == INT16_BITS:
            return "it reads 16 bits"
        return "16 bits of its output are read" if self._plan.layer_outputs[name].is_wide else None

    def _why_no_wide_kernel(self, name: str, operator: Any) -> str | None:
        """Returns why the kernel of 16 bits that a layer needs is wrong here; None if it is right, or not needed."""
        layer = self._plan.layers[name]
        form = None if layer.weights is None else FORMS.get(layer.op_type.name)
        if _PRODUCTS_ARE_RIGHT or form is None or self._why_wide(name) is None or form.op != _PRODUCT:
            return None
        axes = len(self._editor.tensor(int(operator.inputs[form.data])).shape)
        is_right = axes <= 2 or self._plan.layers[name].weight_scale.size == 1
        return None if is_right else "its data has more than two axes, of which this version multiplies 16 bits wrongly"

    def _add_in_int8(self) -> dict[str, str]:
        """Lets the sums of the plan add integers; returns why those do not that cannot."""
        adds = {
            name: operator
            for operator in self._editor.operators
            if self._editor.op_type(operator) == "ADD"
            for name in self._editor.name(operator.outputs[0]).split(";")
        }
        in_float = {}
        for name in self._plan.sums:
            operator = adds.get(name)
            if operator is None:
                in_float[name] = _CHANGED
            elif not all(self._is_in_8_bits(index) for index in operator.inputs):
                in_float[name] = "what it adds is in float"
            else:
                operator.inputs = [self._handed_on[int(index)] for index in operator.inputs]
                self._hand_on(operator, self._plan.output_grids[name])
                self._editor.set_version(operator, _ADD)
        return in_float

    def _is_in_8_bits(self, tensor: int) -> bool:
        """Tells whether a float tensor is made of one of int8."""
        integers = self._handed_on.get(int(tensor))
        return integers is not None and self._editor.grid(integers).num_bits == INT8_BITS

    def _move_in_int8(self) -> None:
        """Lets operators that only move what is handed on in 8 bits move the integers, by which nothing is rounded."""
        for operator in list(self._editor.operators):
            op_type = self._editor.op_type(operator)
            if op_type in _MOVING and self._is_in_8_bits(operator.inputs[0]):
                integers = operator.inputs[0] = self._handed_on[int(operator.inputs[0])]
                self._hand_on(operator, self._editor.grid(integers))
                self._editor.set_version(operator, _MOVING[op_type])

    def _hand_on(self, operator: Any, grid: ActivationFactors) -> str:
        """Lets an operator yield integers on a grid, from which the float tensor is made that it yielded before.

        Returns:
            The name of the tensor of integers.
        """
        end = int(operator.outputs[0])
        integers = self._editor.add_tensor_like(end, f"{self._editor.name(end)}/int{grid.num_bits}", grid)
        operator.outputs = [integers]
        self._editor.add_operator("DEQUANTIZE", _dequantize(grid), [integers], end)
        self._quantized[end, grid] = self._handed_on[end] = integers
        self._floats[end, grid] = end
        return self._editor.name(integers)

    def _compute_in_integers(self, layer: QuantizedLayer, operator: Any, *, is_wide: bool) -> None:
        if layer.weights is None:
            for index, quantizer in enumerate(layer.quantizers):
                operator.inputs[index] = self._on_grid(int(operator.inputs[index]), quantizer.grid)
            self._editor.set_version(operator, _OF_TWO_COMPUTED)
            return
        form = FORMS[layer.op_type.name]
        data, grid = int(operator.inputs[form.data]), layer.input_grid
        if is_wide and grid.num_bits != INT16_BITS:
            data, grid = self._float_on_grid(data, grid), ActivationFactors(grid.scale, 0, INT16_BITS)
        operator.inputs[form.data] = self._on_grid(data, grid)
        operator.inputs[1] = self._weights(layer, form)
        # The scale that the format defines for a bias: that of the data times that of the weights. Where there is none,
        # zeros stand: some kernels want one, and a float one may have been left there.
        scale = np.float32(layer.input_grid.scale) * self._weight_scale(layer, form)
        kind = np.dtype(np.int64 if is_wide else np.int32)
        bias = np.zeros(layer.channels, kind) if layer.bias is None else layer.bias.astype(kind)
        integers = self._editor.add_integers(f"{layer.name}/{kind.name}_bias", bias, scale, 0)
        operator.inputs = [*operator.inputs[: form.bias], integers]
        self._editor.set_version(operator, form.wide_version if is_wide else form.version)

    def _compute_in_float(self, layer: QuantizedLayer, operator: Any) -> None:
        if layer.weights is None:
            for index, quantizer in enumerate(layer.quantizers):
                operator.inputs[index] = self._float_on_grid(int(operator.inputs[index]), quantizer.grid)
            return
        form = FORMS[layer.op_type.name]
        operator.inputs[form.data] = self._float_on_grid(int(operator.inputs[form.data]), layer.input_grid)
        weights = self._weights(layer, form)
        brought_back = self._editor.add_float_like(int(operator.inputs[1]), f"{layer.name}/float_weights")
        version = _DEQUANTIZE_PER_CHANNEL if self._weight_scale(layer, form).size > 1 else _DEQUANTIZE
        self._editor.add_operator("DEQUANTIZE", version, [weights], brought_back)
        operator.inputs[1] = brought_back

    def _compute_to_float(self, layer: QuantizedLayer, operator: Any) -> None:
        """Lets a dense layer quantize its data itself, to the grid of the layer, and yield float."""
        operator.inputs[0] = self._float_with_ends(int(operator.inputs[0]), layer.input_grid)
        operator.inputs[1] = self._weights(layer, FORMS[layer.op_type.name], more_inputs=len(_ENDS))
        operator.builtinOptions.asymmetricQuantizeInputs = True
        self._editor.set_version(operator, _DYNAMIC)

    def _weights(self, layer: QuantizedLayer, form: Form, more_inputs: int = 0) -> int:
        """Returns the integers of a layer; those of a dense layer with zeros for some more inputs."""
        assert layer.weights is not None
        scale = self._weight_scale(layer, form)
        values = form.layout(layer.weights)
        if more_inputs:
            values = np.pad(values, [(0, 0), (0, more_inputs)])
        return self._editor.add_integers(INT8_WEIGHTS.format(layer.name), values, scale, form.channel_axis)

    def _weight_scale(self, layer: QuantizedLayer, form: Form) -> np.ndarray:
        if form.per_channel and layer.weight_scale.size == 1:
            return np.broadcast_to(layer.weight_scale, (layer.channels,))
        return layer.weight_scale

    def _on_grid(self, tensor: int, grid: ActivationFactors) -> int:
        """Returns the integers of a float tensor on a grid; those who ask for the same get the same."""
        key = (tensor, grid)
        if key not in self._quantized:
            name = f"{self._editor.name(tensor)}/int{grid.num_bits}_{len(self._quantized)}"
            self._quantized[key] = self._editor.add_tensor_like(tensor, name, grid)
            if tensor in self._handed_on:  # straight from the integers, without floats in between
                self._editor.add_operator("QUANTIZE", _REQUANTIZE, [self._handed_on[tensor]], self._quantized[key])
            else:
                self._editor.add_operator("QUANTIZE", _quantize(grid), [tensor], self._quantized[key])
        return self._quantized[key]

    def _float_on_grid(self, tensor: int, grid: ActivationFactors) -> int:
        """Returns a float tensor rounded to a grid."""
        key = (tensor, grid)
        if key not in self._floats:
            integers = self._on_grid(tensor, grid)
            self._floats[key] = self._editor.add_float_like(tensor, f"{self._editor.name(integers)}/float")
            self._editor.add_operator("DEQUANTIZE", _dequantize(grid), [integers], self._floats[key])
        return self._floats[key]

    def _float_with_ends(self, tensor: int, grid: ActivationFactors) -> int:
        """Returns a float tensor rounded to a grid, with both ends of the grid behind the values of each row."""
        key = (tensor, grid)
        if key not in self._with_ends:
            integers = self._on_grid(tensor, grid)
            for end in _ENDS:
                integers = self._editor.append_level(integers, f"{self._editor.name(integers)}/and_{end}", end)
            brought_back = self._editor.add_float_like(integers, f"{self._editor.name(integers)}/float")
            self._editor.add_operator("DEQUANTIZE", _DEQUANTIZE, [integers], brought_back)
            self._with_ends[key] = brought_back
        return self._with_ends[key]


def _quantize(grid: ActivationFactors) -> int:
    """Returns the version of what brings floats to a grid."""
    return _QUANTIZE if grid.num_bits == INT8_BITS else _WIDE_QUANTIZE


def _dequantize(grid: ActivationFactors) -> int:
    """Returns the version of what brings them back."""
    return _DEQUANTIZE if grid.num_bits == INT8_BITS else _WIDE_DEQUANTIZE
