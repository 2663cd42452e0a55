"""Reads and writes ``<prefix>_quant.json``, which maps quantized nodes to original ones (spec section 5.2)."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import ContentError, ModelError
from amct_tensorflow.graph.names import OriginalName, PreparedName, QuantizedName
from amct_tensorflow.graph.view import CONTROL, GraphView, full_tensor_name, parse_tensor_name
from amct_tensorflow.io.contents import decode
from amct_tensorflow.model.fusion import DividedTensor
from amct_tensorflow.quantize.quantized.ascend_ops import QUANT
from amct_tensorflow.quantize.quantized.builder import QuantizedGraph

_ORIGINALS = "_datadump_original_op_names"
_VALUE = "_datadump_origin_name"


class _Names(msgspec.Struct, frozen=True):
    s: tuple[OriginalName, ...] = ()


class _Value(msgspec.Struct, frozen=True):
    """The value of an attribute: one of these."""

    list: _Names | UnsetType = UNSET
    s: PreparedName | UnsetType = UNSET
    i: int | UnsetType = UNSET


class _Attribute(msgspec.Struct, frozen=True):
    key: str
    value: _Value


class _Output(msgspec.Struct, frozen=True):
    attr: tuple[_Attribute, ...] = ()


class _Divided(msgspec.Struct, frozen=True):
    """Values of the prepared graph, divided by factors; ``shape`` is that of the factors."""

    tensor: str
    shape: tuple[int, ...]
    factors: tuple[float, ...]


class _Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A node.

    Three keys are of our own: ``balanced_origin`` for balanced channels, and two for nodes that the model's file hides
    in a function, which are called here as inlining calls them.
    """

    id: int = 0
    name: QuantizedName
    type: str = ""
    input: tuple[str, ...] = ()
    attr: tuple[_Attribute, ...] = ()
    inlined_activation_name: PreparedName | UnsetType | None = UNSET
    inlined_origin_name: PreparedName | UnsetType = UNSET
    balanced_origin: _Divided | UnsetType = UNSET
    output_desc: tuple[_Output, ...] | UnsetType = UNSET


class _Graph(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    output: tuple[str, ...] | UnsetType = UNSET
    op: tuple[_Operation, ...]


class _Document(msgspec.Struct, frozen=True):
    graph: tuple[_Graph, ...]


@dataclass(frozen=True)
class NodeMap:
    """The origins of the nodes of a quantized model.

    Attributes:
        originals: per node, the original nodes that it stands for.
        values: per node, the node of the prepared graph whose output it reproduces; nodes without one are left out.
        absorbed: per AscendQuant that repeats activations, the last of them in the prepared graph; None if that has
            other values.
        divided: per node whose output 0 has values of the prepared graph divided by factors, and per AscendQuant that
            reads such, these values; the files of earlier versions do not tell.
        outputs: the output operators asked for; None in the files of earlier versions.
    """

    originals: Mapping[QuantizedName, tuple[OriginalName, ...]]
    values: Mapping[QuantizedName, PreparedName]
    absorbed: Mapping[QuantizedName, PreparedName | None]
    divided: Mapping[QuantizedName, DividedTensor]
    outputs: tuple[str, ...] | None


def read_node_map(path: str | Path, view: GraphView) -> NodeMap:
    """Reads the node map of a quantized model.

    Args:
        path: the file.
        view: the model that it has to fit.

    Raises:
        ModelError: there is no such file, it holds no node map, or that of another model.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(
            f"Node map {path} cannot be read ({error.strerror or error}). It tells which tensors of the two models "
            "correspond, and is written beside the quantized model; give its path with --node_map."
        ) from error
    try:
        graphs = decode(data, _Document).graph
        if not graphs:
            raise ContentError("it has no graph")
        operations = graphs[0].op
        originals = {operation.name: _originals(operation) for operation in operations}
        values = {operation.name: value for operation in operations if (value := _value(operation)) is not UNSET}
        absorbed = {operation.name: name for operation in operations if (name := _absorbed(operation)) is not UNSET}
        divided = {
            operation.name: _divided(operation.name, operation.balanced_origin)
            for operation in operations
            if operation.balanced_origin is not UNSET
        }
    except ContentError as error:
        raise ModelError(f"{path} holds no node map: {error}. Give the one written with the model.") from error
    if originals.keys() != view.nodes.keys():
        raise ModelError(
            f"{path} lists other nodes than the quantized model has. Give the one written together with it."
        )
    listed = graphs[0].output
    outputs = None if listed is UNSET else tuple(parse_tensor_name(each).node for each in listed)
    if not set(outputs or ()) <= view.nodes.keys():
        raise ModelError(f"{path} names outputs that the quantized model does not have. Give the one written with it.")
    return NodeMap(originals, values, absorbed, divided, outputs)


def _originals(operation: _Operation) -> tuple[OriginalName, ...]:
    value = _attributes(operation.attr).get(_ORIGINALS)
    if value is None:  # it is called as the original
        return (OriginalName(operation.name),)
    if value.list is UNSET:
        raise ContentError(f"op {operation.name!r} has no list under {_ORIGINALS!r}")
    return value.list.s


def _value(operation: _Operation) -> PreparedName | UnsetType:
    """Returns the node whose output 0 an op reproduces, if there is one."""
    if operation.inlined_origin_name is not UNSET or not operation.output_desc:
        return operation.inlined_origin_name
    value = _attributes(operation.output_desc[0].attr).get(_VALUE)
    if value is None:
        return UNSET
    if value.s is UNSET:
        raise ContentError(f"op {operation.name!r} has no text under {_VALUE!r}")
    return value.s


def _absorbed(operation: _Operation) -> PreparedName | UnsetType | None:
    """Returns the activation in whose place an AscendQuant reads, if it repeats one."""
    if operation.inlined_activation_name is not UNSET or operation.type != QUANT:
        return operation.inlined_activation_name
    # An activation that is not hidden in a function has the name of an original one.
    originals = _originals(operation)
    return PreparedName(originals[-1]) if originals else UNSET


def _divided(name: QuantizedName, values: _Divided) -> DividedTensor:
    factors = np.asarray(values.factors, np.float32)
    if min(values.shape, default=1) < 1 or math.prod(values.shape) != factors.size:
        raise ContentError(f"op {name!r} has other factors than the shape under 'balanced_origin' tells")
    if not np.all((factors > 0) & np.isfinite(factors)):
        raise ContentError(f"op {name!r} has factors under 'balanced_origin' that are not above 0")
    return DividedTensor(values.tensor, factors.reshape(values.shape))


def _attributes(listed: Iterable[_Attribute]) -> dict[str, _Value]:
    return {each.key: each.value for each in listed}


def dump_node_map(quantized: QuantizedGraph) -> str:
    """Returns the node map as JSON in the shape that graph comparison tools read: that of the device's graphs.

    There ``output`` names the tensors that a graph yields, which the original toolkit leaves out.
    """
    operations = tuple(
        _operation(index, node, quantized.origins.get(node.name, (OriginalName(node.name),)), quantized)
        for index, node in enumerate(quantized.graph_def.node)
    )
    outputs = tuple(full_tensor_name(name) for name in quantized.outputs)
    document = _Document((_Graph(name="quantized", output=outputs, op=operations),))
    return json.dumps(msgspec.to_builtins(document), indent=1)


def _operation(index: int, node: NodeDef, origins: tuple[OriginalName, ...], quantized: QuantizedGraph) -> _Operation:
    repeated: PreparedName | UnsetType | None = quantized.absorbed.get(node.name, UNSET)
    if isinstance(repeated, str) and origins and origins[-1] == OriginalName(repeated):
        repeated = UNSET
    value: PreparedName | UnsetType = quantized.values.get(node.name, UNSET)
    is_hidden = value in quantized.hidden
    divided = quantized.divided.get(QuantizedName(node.name))
    described = (_Attribute(_VALUE, _Value(s=value)), _Attribute("_datadump_origin_output_index", _Value(i=0)))
    return _Operation(
        id=index,
        name=node.name,
        type=node.op,
        input=tuple(map(_edge, node.input)),
        attr=(_Attribute(_ORIGINALS, _Value(list=_Names(origins))),),
        inlined_activation_name=repeated,
        inlined_origin_name=value if is_hidden else UNSET,
        balanced_origin=UNSET if divided is None else _described(divided),
        output_desc=UNSET if is_hidden or value is UNSET else (_Output(described),),
    )


def _described(values: DividedTensor) -> _Divided:
    return _Divided(values.tensor, values.factors.shape, tuple(float(str(each)) for each in values.factors.reshape(-1)))


def _edge(text: str) -> str:
    name = parse_tensor_name(text)
    return f"{name.node}:{CONTROL if name.port == CONTROL else name.port}"
