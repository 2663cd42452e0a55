"""Plans an export: all that an exported file is made from.

Some quantizers read ties, as of images of 8 bits scaled to [-1, 1] with a scale of 2 / 255. (Calibration avoids ties,
see ``algorithms.activation_factors``; records of other origin may not.) Runtimes round ties differently: ONNX Runtime
and TensorFlow Lite divide by the scale where AscendQuant multiplies, and OpenVINO goes by the parity of the zero point.
So exported files round the inputs of these quantizers as AscendQuant does, before the quantizer of the runtime.

A sum gets its grid by the same rules as the output of a layer. It stays in float if an operand is in float anyway, such
as the output of a layer that was rolled back, or if no layer follows.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import ExportError, ModelError
from amct_tensorflow.export.batch_sizes import least_shapes
from amct_tensorflow.export.dilation import Dilation, find_dilations
from amct_tensorflow.export.float_reference import make_float_reference
from amct_tensorflow.export.observing import Range, observe
from amct_tensorflow.export.output_grids import (
    Output,
    find_outputs_of_layers,
    grids_of_outputs,
    output_of,
    wide_grids_of_outputs,
)
from amct_tensorflow.graph.graph_runner import GraphRunner
from amct_tensorflow.graph.view import GraphView, full_tensor_name
from amct_tensorflow.log import log_for
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.ops import OP_TYPES, has
from amct_tensorflow.ops.traits import Sum
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS, TIE_MARGIN, ActivationFactors
from amct_tensorflow.quantize.quantized.model_files import node_map_of
from amct_tensorflow.quantize.quantized.node_map import read_node_map
from amct_tensorflow.quantize.quantized.quantized_layer import QuantizedLayer, read_quantized_model
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator


def find_ties(view: GraphView, layers: Sequence[QuantizedLayer], images: Mapping[str, np.ndarray]) -> frozenset[str]:
    """Returns the quantizers that read ties.

    Args:
        view: the quantized model.
        layers: its layers.
        images: per placeholder, some values.
    """
    behind = view.downstream([layer.dequantizer for layer in layers])
    read = (quantizer for layer in layers for quantizer in layer.quantizers)
    first = dict.fromkeys(quantizer for quantizer in read if quantizer.name not in behind)
    tensors = {quantizer: full_tensor_name(quantizer.data) for quantizer in first}
    with GraphRunner(import_graph(view.graph_def, "the quantized model")) as runner:
        feeds = {f"{name}:0": each for name, each in images.items()}
        values = runner.values(dict.fromkeys(tensors.values()), feeds)
    return frozenset(
        quantizer.name for quantizer in first if _are_ties(values[tensors[quantizer]] * quantizer.grid.inverse)
    )


def _are_ties(steps: np.ndarray) -> bool:
    """Tells whether more than half of some values, in steps, are ties up to the precision of float32."""
    return bool(2 * np.count_nonzero(np.abs(steps - np.floor(steps) - 0.5) < TIE_MARGIN / 2) > steps.size)


def find_sums(view: GraphView, layers: Mapping[str, Output], outputs: Collection[str]) -> dict[str, Output]:
    """Returns per sum between layers its output, each after its operands.

    Args:
        view: the quantized model.
        layers: what becomes of the output of each layer.
        outputs: its output operators.
    """
    in_8_bits = {output.end for output in layers.values() if output.is_in_8_bits}
    found = {}
    for node in view.topological():
        if has(node.op, Sum) and in_8_bits.issuperset(_operands(view, node)):
            output = output_of(view, node.name, outputs)
            if output.is_in_8_bits:
                found[str(node.name)] = output
                in_8_bits.add(output.end)
    return found


def _operands(view: GraphView, node: NodeDef) -> list[str]:
    return [str(view.producer(tensor).name) for tensor in node.input[:2]]


# So many images are kept to compare layers on, where the model takes them one by one.
_IMAGES = 8


@dataclass(frozen=True, eq=False)
class ExportPlan:
    """The plan of an export.

    Attributes:
        model: the file of the quantized model.
        view: its nodes.
        inputs: its placeholders.
        outputs: its output operators.
        layers: its quantized layers by name, each after those that it depends on.
        placed: those of them that are to be exported as quantized layers.
        float_layers: layers that are in float in the quantized model, too.
        layer_outputs: per layer, its output.
        sums: per sum between layers to compute in 8 bits, its output; each after its operands.
        output_grids: scale and offset of the layers and sums whose output is in 8 bits.
        wide_grids: scale of the output of layers where a kernel of 16 bits yields it.
        shapes: per placeholder, the smallest shape that the model takes at a time (``least_shapes``).
        images: per placeholder, some images.
        dilations: its dilated convolutions.
        ties: its quantizers that read values in the middle between two levels.
    """

    model: Path
    view: GraphView
    inputs: Sequence[str]
    outputs: Sequence[str]
    layers: Mapping[str, QuantizedLayer]
    placed: frozenset[str]
    float_layers: Sequence[str]
    layer_outputs: Mapping[str, Output]
    sums: Mapping[str, Output]
    output_grids: Mapping[str, ActivationFactors]
    wide_grids: Mapping[str, ActivationFactors]
    shapes: Mapping[str, tuple[int, ...]]
    images: Mapping[str, np.ndarray]
    dilations: Sequence[Dilation]
    ties: frozenset[str]

    @cached_property
    def float_reference(self) -> GraphDef:
        """The same model in float."""
        return make_float_reference(
            self.view, self.layers.values(), self.placed, self.outputs, self.dilations, self.ties
        )

    @cached_property
    def quantized_layers(self) -> dict[str, QuantizedLayer]:
        """The layers that are to be exported as quantized ones, by name."""
        return {name: layer for name, layer in self.layers.items() if name in self.placed}

    @property
    def wide_layers(self) -> list[str]:
        """The layers to be exported as quantized ones that read 16 bits."""
        return [name for name, layer in self.quantized_layers.items() if layer.input_grid.num_bits != INT8_BITS]

    def without(self, names: Collection[str]) -> "ExportPlan":
        """Returns the plan with some more layers in float."""
        return replace(self, placed=self.placed - set(names))


def plan_export(
    model: Path, outputs: Sequence[str], evaluator: CheckedEvaluator, *, sums_in_int8: bool = False
) -> ExportPlan:
    """Reads a quantized model, and observes the ranges that its factors do not tell.

    Args:
        model: its file.
        outputs: its output operators; none for those that it was made for.
        evaluator: its ``calibration`` runs the batches on which ranges are observed.
        sums_in_int8: whether sums between layers are to be computed in 8 bits, too.

    Raises:
        ModelError: the model cannot be read, nothing in it is quantized, or it has no such output.
        ExportError: it has something that no export knows, or no sum for 8 bits although ``sums_in_int8`` asks for it.
        CalibrationError: the evaluator ran no batch.
    """
    quantized = read_quantized_model(model)
    view, layers = quantized.view, quantized.layers
    chosen = _outputs(view, model, outputs)
    dilations = find_dilations(view, chosen)
    found = find_outputs_of_layers(view, layers, chosen, dilations)
    sums = find_sums(view, found, chosen) if sums_in_int8 else {}
    if sums_in_int8 and not sums:
        raise ExportError(
            f"--between int8 has no effect on {model}: it has no Add of what two quantized layers yield, in front of a "
            "third. Leave it out."
        )
    ranges = {each.end: Range() for each in (*found.values(), *sums.values()) if each.is_observed}
    fed = observe(view, chosen, {name: each.observe for name, each in ranges.items()}, evaluator)
    observed = {name: each.grid(name) for name, each in ranges.items()}
    shapes = least_shapes(view, chosen, fed)
    images = {name: values[:_IMAGES] if shapes[name] != values.shape else values for name, values in fed.items()}
    return ExportPlan(
        model=model,
        view=view,
        inputs=list(fed),
        outputs=chosen,
        layers={layer.name: layer for layer in layers},
        placed=frozenset(layer.name for layer in layers),
        float_layers=_float_layers(view, layers),
        layer_outputs=found,
        sums=sums,
        output_grids=grids_of_outputs({**found, **sums}, observed),
        wide_grids=wide_grids_of_outputs(found, observed),
        shapes=shapes,
        images=images,
        dilations=dilations,
        ties=find_ties(view, layers, images),
    )


def _outputs(view: GraphView, model: Path, given: Sequence[str]) -> list[str]:
    """Returns the outputs that are given, or else those that the model was made for.

    The node map beside the model tells them. Where it does not, they are all that nothing reads.
    """
    ends = [name for name, node in view.nodes.items() if node.op != "Placeholder" and not view.consumers(name)]
    noted = _noted_outputs(view, model)
    for name in given:
        if name not in view.nodes:
            raise ExportError(f"{model} has no output {name!r}. Its outputs are: {', '.join(noted or ends)}.")
    if not given and noted is None:
        log_for("export").warning(
            "What %s yields is not noted beside it; all that nothing reads is taken: %s. If that is not all, name the "
            "outputs with --outputs.",
            model, ", ".join(ends),
        )  # fmt: skip
    return list(given or noted or ends)


def _noted_outputs(view: GraphView, model: Path) -> tuple[str, ...] | None:
    """Returns the outputs that the node map beside a model names; None if it is not there, or does not fit."""
    node_map = node_map_of(model)
    if node_map is None or not node_map.is_file():
        return None
    try:
        return read_node_map(node_map, view).outputs
    except ModelError as error:
        log_for("export").warning("%s", error)
        return None


def _float_layers(view: GraphView, layers: Sequence[QuantizedLayer]) -> list[str]:
    """Returns the nodes with constant weights that are not quantized."""
    quantized = {layer.name for layer in layers}
    return [
        str(node.name)
        for node in view.topological()
        if node.op in OP_TYPES and node.name not in quantized and _has_weights(view, node.name)
    ]


def _has_weights(view: GraphView, name: str) -> bool:
    node = view.nodes[name]
    index = OP_TYPES[node.op].weight_input
    return index is not None and view.constant(node.input[index]) is not None
