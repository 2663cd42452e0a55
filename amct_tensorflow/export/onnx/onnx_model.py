"""Makes the quantized model in ONNX.

    x -> QuantizeLinear -> DequantizeLinear -> Conv(DequantizeLinear(int8 weights), DequantizeLinear(int32 bias))

Activations are uint8 with a zero point of ``offset + 128``, which says the same as int8 with ``offset``: x86 multiplies
uint8 by int8. Both operands of a product of two computed ones are uint8, which all processors multiply exactly.
Activations of 16 bits are int16, which ONNX knows from opset 21 on; without any, models have an older one, which more
runtimes know. Weights have a scale per output channel, wherever ours have. Whatever is no layer stays in float.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from amct_tensorflow.export.export_plan import ExportPlan
from amct_tensorflow.export.onnx.onnx_conversion import convert_to_onnx, with_16_bits
from amct_tensorflow.export.onnx.onnx_editor import OnnxEditor
from amct_tensorflow.export.onnx.onnx_forms import FORMS, INT8_WEIGHTS
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.ops.clips import NO_CLIP, Clip
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS, ActivationFactors
from amct_tensorflow.quantize.quantized.quantized_layer import QuantizedLayer

_POOLS = ("AveragePool", "GlobalAveragePool")
_PRODUCTS = ("MatMul",)
# Runtimes have int8 kernels of these that yield float.
_FLOAT_OUTPUT = ("MatMul", "Gemm")
# ONNX Runtime moves a dequantizer behind nodes that move values, as far as these at most. Where it meets a node with a
# graph inside, such as a loop, it ends the process.
_STOPS = ("Conv", "ConvTranspose", "MatMul", "Gemm", "QuantizeLinear")
_SAME_WEIGHTS = "another layer has the same weights"
# A bias in integers has so many bits in ONNX; a longer one, beside activations of 16 bits, stays in float.
_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class OnnxModel:
    """A quantized model in ONNX.

    Attributes:
        model: the ModelProto.
        weights: per layer with integer weights, the name of their tensor.
        nodes: per quantized layer, its node.
        ends: per quantized layer, the tensor with its output.
        adds: per sum of the plan that is in 8 bits, its node.
        missing: per quantized layer, and per sum of the plan, that stays in float, why.
    """

    model: Any
    weights: Mapping[str, str]
    nodes: Mapping[str, str]
    ends: Mapping[str, str]
    adds: Mapping[str, str]
    missing: Mapping[str, str]


def make_onnx_model(plan: ExportPlan, *, outputs_in_int8: bool) -> OnnxModel:
    """Makes the ONNX model of a plan.

    Args:
        plan: the plan.
        outputs_in_int8: whether outputs of layers are in 8 bits even where a float op reads them, as runtimes need it
            whose int8 kernels yield nothing else.

    Raises:
        ExportError: a library is missing, or the converter does not know an op of the model.
    """
    missing: dict[str, str] = {}
    while True:
        model = convert_to_onnx(plan.float_reference, plan.inputs, plan.outputs)
        writer = _Writer(plan, with_16_bits(model) if plan.wide_layers else model, outputs_in_int8)
        nodes, lost = writer.find_nodes()
        if not lost:
            return writer.write(nodes, missing)
        missing.update(lost)
        plan = plan.without(lost)


class _Writer:
    """Puts the integers of a plan into its float reference in ONNX."""

    def __init__(self, plan: ExportPlan, model: Any, outputs_in_int8: bool) -> None:
        self._plan = plan
        self._editor = OnnxEditor(model)
        self._outputs_in_int8 = outputs_in_int8
        self._dequantized: dict[tuple[str, ActivationFactors], str] = {}
        self._weights: dict[str, str] = {}
        self._ends: dict[str, str] = {}
        self._name_layers_at_outputs()

    def _name_layers_at_outputs(self) -> None:
        """Gives layers without weights their names back, which the converter calls as the output that they yield.

        Nothing else tells which layer such a node is.
        """
        view = GraphView(self._plan.float_reference)
        makers = {tensor: node for node in self._editor.nodes for tensor in node.output}
        for output in self._plan.outputs:
            source = view.nodes[output]
            while source.op == "Identity":
                source = view.producer(source.input[0])
            layer, name = self._plan.quantized_layers.get(source.name), f"{source.name}:0"
            node = makers.get(f"{output}:0")
            if layer is not None and layer.weights is None and node is not None and name not in makers:
                node.output[0] = name
                self._editor.add_node("Identity", [name], f"{output}:0")
                makers[name] = node

    def write(self, nodes: Mapping[str, Any], missing: Mapping[str, str]) -> OnnxModel:
        """Returns the model with the integers.

        Args:
            nodes: per layer, its node.
            missing: what is known of other layers.
        """
        for name, node in nodes.items():
            for index, quantizer in enumerate(self._plan.layers[name].quantizers):
                node.input[index] = self._quantized(node.input[index], quantizer.grid)
        for name, node in nodes.items():
            self._put_integers(self._plan.layers[name], node)
            self._ends[name] = self._end(name, node)
        adds, in_float = self._put_sums_on_grids()
        self._keep_outputs_in_float()
        names = {name: str(node.name) for name, node in nodes.items()}
        return OnnxModel(self._editor.model(), self._weights, names, self._ends, adds, {**missing, **in_float})

    def find_nodes(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Returns per layer the node that computes it: by its weights, or by its output where it has none.

        Where two layers have the same weights, nothing tells them apart, and both stay in float.

        Returns:
            The nodes, and why there is none for other layers.
        """
        by_weights: dict[tuple[str, bytes], list[Any]] = {}
        by_output = {name: node for node in self._editor.nodes for name in node.output}
        for node in self._editor.nodes:
            weights = self._editor.constant(node.input[1]) if len(node.input) > 1 else None
            if weights is not None:
                by_weights.setdefault((node.op_type, _digest(weights)), []).append(node)
        found, missing = {}, {}
        for name, layer in self._plan.quantized_layers.items():
            form = FORMS.get(layer.op_type.name)
            if layer.weights is None:
                node = by_output.get(f"{name}:0")
                ops = _PRODUCTS if layer.is_product else _POOLS
                candidates = [node] if node is not None and node.op_type in ops else []
            elif form is None:
                missing[name] = f"it is not known how ONNX has a {layer.op_type.name}"
                continue
            else:
                candidates = by_weights.get((form.op, _digest(form.layout(layer.float_weights))), [])
            if len(candidates) > 1:
                missing[name] = _SAME_WEIGHTS
            elif not candidates or not self._has_bias(layer, candidates[0]):
                missing[name] = "the converter has changed it"
            else:
                found[name] = candidates[0]
        claims = Counter(map(id, found.values()))  # the converter makes one node of those that read the same, too
        shared = {name: _SAME_WEIGHTS for name, node in found.items() if claims[id(node)] > 1}
        return found, missing | shared

    def _quantized(self, tensor: str, grid: ActivationFactors) -> str:
        """Returns a tensor on a grid; those who ask for the same get the same."""
        key = (tensor, grid)
        if key not in self._dequantized:
            name = f"{tensor}/quantized_{len(self._dequantized)}"
            scale = self._editor.add_constant(f"{name}/scale", np.array(grid.scale, np.float32))
            zero_point = self._editor.add_constant(f"{name}/zero_point", _zero_point(grid))
            self._editor.add_node("QuantizeLinear", [tensor, scale, zero_point], name)
            dequantized = f"{name}/dequantized"
            self._dequantized[key] = self._editor.add_node("DequantizeLinear", [name, scale, zero_point], dequantized)
        return self._dequantized[key]

    def _keep_outputs_in_float(self) -> None:
        """Quantizes in front of a Transpose what is also an output, and was quantized behind it.

        ONNX Runtime moves a quantizer from behind a Transpose to the front of it, and there an output of the model gets
        the quantized values, too. Of a quantizer that stands in front already it leaves the output alone.
        """
        grids = {dequantized.removesuffix("/dequantized"): grid for (_, grid), dequantized in self._dequantized.items()}
        for node in [each for each in self._editor.nodes if each.op_type == "Transpose"]:
            readers = self._editor.readers(node.output[0])
            if self._editor.is_output(node.input[0]) and len(readers) == 1 and readers[0].output[0] in grids:
                node.input[0] = self._quantized(node.input[0], grids[readers[0].output[0]])

    def _put_integers(self, layer: QuantizedLayer, node: Any) -> None:
        if layer.weights is None:
            return
        form = FORMS[layer.op_type.name]
        name = self._weights[layer.name] = INT8_WEIGHTS.format(layer.name)
        node.input[1] = self._integers(name, form.layout(layer.weights), layer.weight_scale, form.channel_axis)
        if layer.op_type.name == "MatMul" and layer.bias is not None:
            self._take_bias_in(layer, node)
        if node.op_type in ("Conv", "Gemm") and len(node.input) > 2 and layer.bias is not None:
            # The scale that the format defines for a bias: that of the data times that of the weights.
            scale = np.float32(layer.input_grid.scale) * layer.weight_scale
            if self._is_bias_of(layer, node.input[2]) and np.all(np.abs(layer.bias) <= _INT32.max):
                node.input[2] = self._integers(f"{layer.name}/int32_bias", layer.bias.astype(np.int32), scale, 0)

    def _has_bias(self, layer: QuantizedLayer, node: Any) -> bool:
        """Tells whether a node adds the bias of its layer, or an Add does, and not the sum of it and something else."""
        if layer.bias is None or not layer.bias.any():
            return True
        held = [*(self._editor.constant(name) for name in node.input[2:]), *self._added]
        bias = layer.float_bias
        return any(each is not None and each.size == bias.size and np.allclose(each.ravel(), bias) for each in held)

    @cached_property
    def _added(self) -> list[np.ndarray]:
        """The constants that the converted model adds to anything."""
        adds = [node for node in self._editor.nodes if node.op_type == "Add"]
        values = (self._editor.constant(name) for node in adds for name in node.input)
        return [value for value in values if value is not None]

    def _is_bias_of(self, layer: QuantizedLayer, tensor: str) -> bool:
        bias = self._editor.constant(tensor)
        return bias is not None and np.array_equal(bias, layer.float_bias)

    def _take_bias_in(self, layer: QuantizedLayer, node: Any) -> None:
        """Makes a product of matrices and the Add of its bias a Gemm, which runtimes have an int8 kernel of."""
        readers = self._editor.readers(node.output[0])
        if len(readers) != 1 or readers[0].op_type != "Add" or self._editor.is_output(node.output[0]):
            return
        (biased,) = readers
        others = [name for name in biased.input if name != node.output[0]]
        if len(others) == 1 and self._is_bias_of(layer, others[0]):
            node.op_type = "Gemm"
            node.input.append(others[0])
            node.output[0] = biased.output[0]
            self._editor.remove(biased)

    def _integers(self, name: str, values: np.ndarray, scale: np.ndarray, axis: int) -> str:
        integers = self._editor.add_constant(name, np.ascontiguousarray(values))
        per_channel = scale.size > 1
        factor = self._editor.add_constant(f"{name}/scale", scale if per_channel else scale.reshape(()))
        # ONNX Runtime makes an int8 kernel of a Gemm only where the zero points are written.
        zeros = np.zeros(scale.shape if per_channel else (), values.dtype)
        zero_point = self._editor.add_constant(f"{name}/zero_point", zeros)
        attributes = {"axis": axis} if per_channel else {}
        inputs = [integers, factor, zero_point]
        return self._editor.add_node("DequantizeLinear", inputs, f"{name}/dequantized", **attributes)

    def _end(self, name: str, node: Any) -> str:
        """Puts the output of a layer on its grid, where it has one; returns the tensor that holds it."""
        tensor, grid = str(node.output[0]), self._plan.output_grids.get(name)
        readers = self._editor.readers(tensor)
        has_weights = self._plan.layers[name].weights is not None
        if has_weights and node.op_type == "MatMul" and len(readers) == 1 and readers[0].op_type == "Add":
            tensor = str(readers[0].output[0])
            readers = self._editor.readers(tensor)
        yields_int8 = self._outputs_in_int8 and self._plan.layers[name].input_grid.num_bits == INT8_BITS
        is_wanted = yields_int8 or self._plan.layer_outputs[name].grid is not None
        if grid is None or not is_wanted or node.op_type in _FLOAT_OUTPUT:
            clips, _ = self._clips(tensor)
            return str(clips[-1].output[0]) if clips else tensor
        return self._hand_on(tensor, grid)

    def _put_sums_on_grids(self) -> tuple[dict[str, str], dict[str, str]]:
        """Puts the sums of the plan on their grids; returns the names of their nodes, and why others are in float."""
        adds = {name: node for node in self._editor.nodes if node.op_type == "Add" for name in node.output}
        on_grid, in_float = {}, {}
        for name in self._plan.sums:
            node = adds.get(f"{name}:0")
            if node is None:
                in_float[name] = "the converter has changed it"
            elif not set(self._dequantized.values()).issuperset(node.input):
                in_float[name] = "what it adds is in float"
            else:
                self._hand_on(str(node.output[0]), self._plan.output_grids[name])
                on_grid[name] = str(node.name)
        return on_grid, in_float

    def _clips(self, tensor: str) -> tuple[list[Any], Clip]:
        """Returns the nodes behind a tensor that clip it, each of which alone reads the one before, and how they do."""
        found: list[Any] = []
        together = NO_CLIP
        while not self._editor.is_output(tensor):
            readers = self._editor.readers(tensor)
            clip = self._clip(readers[0], tensor) if len(readers) == 1 else None
            if clip is None:
                break
            found, together, tensor = [*found, readers[0]], together.then(clip), str(readers[0].output[0])
        return found, together

    def _clip(self, node: Any, tensor: str) -> Clip | None:
        """Returns how a node clips a tensor; None if it does something else, or its bounds are computed."""
        if node.op_type == "Relu":
            return Clip(0, np.inf)
        if node.op_type == "Clip":
            bounds = [*(self._bound(name) for name in node.input[1:]), None, None]
            is_known = all(bound is not None or not name for name, bound in zip(node.input[1:], bounds, strict=False))
            lowest, highest = (bound if bound is not None else np.inf for bound in bounds[:2])
            return Clip(lowest if np.isfinite(lowest) else -np.inf, highest) if is_known else None
        if node.op_type not in ("Min", "Max") or len(node.input) != 2:
            return None
        (bound,) = (self._bound(name) for name in node.input if name != tensor)
        if bound is None:
            return None
        return Clip(-np.inf, bound) if node.op_type == "Min" else Clip(bound, np.inf)

    def _bound(self, tensor: str) -> float | None:
        """Returns the value of a constant with a single element."""
        value = self._editor.constant(tensor)
        return float(value.reshape(())) if value is not None and value.size == 1 else None

    def _hand_on(self, tensor: str, grid: ActivationFactors) -> str:
        """Puts a tensor on a grid, behind its clips unless the grid clips alike; returns the tensor to read."""
        clips, together = self._clips(tensor)
        if clips:
            end = str(clips[-1].output[0])
            if grid.repeats(together) and not self._editor.is_output(end):
                for node in clips:
                    self._editor.remove(node)
                self._editor.redirect(end, tensor)
                self._move_quantizers(end, tensor)
            else:
                self._on_grid(tensor, grid)
                return end
        return self._on_grid(tensor, grid)

    def _move_quantizers(self, old: str, new: str) -> None:
        """Notes that quantizers of one tensor read another one now."""
        for (tensor, grid), dequantized in list(self._dequantized.items()):
            if tensor == old:
                self._dequantized[new, grid] = self._dequantized.pop((tensor, grid), dequantized)

    def _on_grid(self, tensor: str, grid: ActivationFactors) -> str:
        """Makes all readers of a tensor read it on a grid."""
        if self._editor.is_output(tensor) or self._editor.reaches_inner_graph(tensor, _STOPS):
            return tensor
        dequantized = self._quantized(tensor, grid)
        quantized = dequantized.removesuffix("/dequantized")
        self._editor.redirect(tensor, dequantized, exempt=[quantized])
        return dequantized


def _zero_point(grid: ActivationFactors) -> np.ndarray:
    """Returns the zero point of a grid, whose type is that of the integers."""
    return np.array(grid.offset + 128, np.uint8) if grid.num_bits == INT8_BITS else np.array(grid.offset, np.int16)


def _digest(values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values).tobytes()
