"""TensorFlow's definitions of op types."""

from collections.abc import Iterator

from tensorflow.core.framework.function_pb2 import FunctionDefLibrary
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef
from tensorflow.python.framework import op_def_registry  # there is no public way to ask

from amct_tensorflow.graph.view import attribute


def op_definition(op: str, library: FunctionDefLibrary) -> OpDef | None:
    """Returns the definition of an op type; None if TensorFlow does not know it."""
    for function in library.function:
        if function.signature.name == op:
            return function.signature
    return op_def_registry.get(op)


def is_stateful(op: str, library: FunctionDefLibrary) -> bool:
    """Tells whether an op may have side effects or depend on a state; an unknown op may."""
    definition = op_definition(op, library)
    return definition is None or bool(definition.is_stateful)


def output_arguments(node: NodeDef, library: FunctionDefLibrary) -> Iterator[str]:
    """Yields per output of a node the name of the argument that it belongs to; some arguments have several."""
    definition = op_definition(node.op, library)
    for argument in definition.output_arg if definition is not None else ():
        if argument.number_attr:
            count = int(attribute(node, argument.number_attr).i)
        elif argument.type_list_attr:
            count = len(attribute(node, argument.type_list_attr).list.type)
        else:
            count = 1
        yield from [str(argument.name)] * count


def output_types(node: NodeDef, library: FunctionDefLibrary) -> Iterator[int]:
    """Yields the type of every output of a node, as TensorFlow numbers them; 0 where nobody knows it."""
    definition = op_definition(node.op, library)
    for argument in definition.output_arg if definition is not None else ():
        if argument.type_list_attr:
            yield from map(int, attribute(node, argument.type_list_attr).list.type)
            continue
        count = int(attribute(node, argument.number_attr).i) if argument.number_attr else 1
        yield from [int(argument.type or attribute(node, argument.type_attr).type)] * count


def functions_named(node: NodeDef) -> list[str]:
    """Returns the names of the functions that a node may call: its op type, and those that its attributes name."""
    values = (function for value in node.attr.values() for function in (value.func, *value.list.func))
    return [str(node.op), *(str(function.name) for function in values if function.name)]
