"""What of a graph is quantized, and what scales or shifts channels in float.

All of it is counted in the data flow to the outputs, whoever wrote the graph and whatever engine quantized it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

BATCH_NORMS = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
SHIFTS = frozenset({"Add", "AddV2", "Sub", "BiasAdd"})
EITHER = (0, 1)
WEIGHTS = {  # op types whose constants are weights, and at which inputs
    "Conv2D": (1,),
    "DepthwiseConv2dNative": (1,),
    "Conv2DBackpropInput": (1,),
    "Conv3D": (1,),
    "MatMul": EITHER,
    "BatchMatMul": EITHER,
    "BatchMatMulV2": EITHER,
    "BatchMatMulV3": EITHER,
    "Einsum": EITHER,
}
POOLING = "AvgPool"
DEQUANTIZER = "AscendDequant"


@dataclass(frozen=True)
class Contents:
    """What a graph holds.

    Attributes:
        layers: convolutions and matrix products with constant weights, and average poolings; those inside functions
            count each time that the function is called.
        quantized: layers in int8.
        scalings: FusedBatchNorm, and products or quotients in float of data and a constant of several elements. What
            is computed from constants alone is a constant. A BatchNorm in small ops has one of them.
        shifts: FusedBatchNorm, and sums or differences likewise; the bias inside a quantized layer is none.
        constant_rsqrt: ``1 / sqrt(variance + epsilon)`` that is computed anew from constants in each run.
    """

    layers: int
    quantized: int
    scalings: int
    shifts: int
    constant_rsqrt: int


def contents(graph: tf.Graph, outputs: Sequence[str]) -> Contents:
    """Counts what the outputs of a graph need."""
    varying = find_varying(graph)
    needed = find_needed(graph, outputs)
    calls = count_layers_of_functions(graph)
    return Contents(
        layers=sum(_is_layer(operation, varying) or calls.get(_called(operation.node_def), 0) for operation in needed),
        quantized=sum(operation.type == DEQUANTIZER for operation in needed),
        scalings=sum(_is_scaling(operation, varying) for operation in needed),
        shifts=sum(_is_shift(operation, varying) for operation in needed),
        constant_rsqrt=sum(operation.type == "Rsqrt" and operation not in varying for operation in needed),
    )


def find_varying(graph: tf.Graph) -> set[tf.Operation]:
    """Returns the operations whose values are not computed from constants alone."""
    sources = [operation for operation in graph.get_operations() if not operation.inputs or _is_fed(operation)]
    waiting = [operation for operation in sources if operation.type != "Const"]
    found: set[tf.Operation] = set()
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting.extend(consumer for tensor in operation.outputs for consumer in tensor.consumers())
    return found


def find_needed(graph: tf.Graph, outputs: Sequence[str]) -> set[tf.Operation]:
    """Returns the operations whose values flow into the outputs."""
    waiting = [graph.get_operation_by_name(name) for name in outputs]
    found: set[tf.Operation] = set()
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting.extend(tensor.op for tensor in operation.inputs)
    return found


def count_layers_of_functions(graph: tf.Graph) -> dict[str, int]:
    """Returns per function of the graph how many layers it holds, those of the functions that it calls included."""
    functions = {function.signature.name: function for function in graph.as_graph_def().library.function}

    def count(name: str) -> int:
        nodes = functions[name].node_def if name in functions else ()
        return sum(node.op in WEIGHTS or node.op == POOLING or count(_called(node)) for node in nodes)

    return {name: count(name) for name in functions}


def _called(node: tf.compat.v1.NodeDef) -> str:
    return node.attr["f"].func.name if "f" in node.attr else ""


def _is_fed(operation: tf.Operation) -> bool:
    return operation.type == "PlaceholderWithDefault"


def _is_layer(operation: tf.Operation, varying: set[tf.Operation]) -> bool:
    if operation not in varying:
        return False
    constant = {index for index, tensor in enumerate(operation.inputs) if tensor.op not in varying}
    return operation.type == POOLING or bool(constant.intersection(WEIGHTS.get(operation.type, ())))


def _is_scaling(operation: tf.Operation, varying: set[tf.Operation]) -> bool:
    if operation.type in BATCH_NORMS:
        return True
    constants = _constants_of_channels(operation, varying)
    return (operation.type == "Mul" and len(constants) == 1) or (operation.type == "RealDiv" and constants == [1])


def _is_shift(operation: tf.Operation, varying: set[tf.Operation]) -> bool:
    if operation.type in BATCH_NORMS:
        return True
    inside_layer = {consumer.type for consumer in operation.outputs[0].consumers()} == {DEQUANTIZER}
    return operation.type in SHIFTS and len(_constants_of_channels(operation, varying)) == 1 and not inside_layer


def _constants_of_channels(operation: tf.Operation, varying: set[tf.Operation]) -> list[int]:
    """Returns which inputs of an operation in float on data are constants of several elements."""
    if operation not in varying or operation.outputs[:1] == [] or not operation.outputs[0].dtype.is_floating:
        return []
    return [
        index
        for index, tensor in enumerate(operation.inputs)
        if tensor.op not in varying and tensor.shape.num_elements() != 1
    ]
