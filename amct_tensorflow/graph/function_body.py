"""The nodes of a function as they stand in a graph that calls it."""

from collections.abc import Iterator, Sequence

from tensorflow.core.framework.function_pb2 import FunctionDef, FunctionDefLibrary
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.op_definitions import output_arguments
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import attribute, parse_tensor_name


class FunctionBody:
    """The nodes of a function, named after the node that calls it, and reading what that gives them."""

    def __init__(
        self,
        editor: GraphEditor,
        library: FunctionDefLibrary,
        call: NodeDef,
        function: FunctionDef,
        arguments: Sequence[str],
    ) -> None:
        """Chooses the names.

        Args:
            editor: holds the graph; it is told the names, and nothing else.
            library: the functions that the function itself may call.
            call: the node that calls it.
            function: the function.
            arguments: with what it is called, as GraphDef writes inputs.
        """
        self._function = function
        self._call = call
        names = [str(node.name) for node in function.node_def]
        scope = editor.unique_scope(call.name, names)
        self._names = {name: f"{scope}/{name}" for name in names}
        self._arguments = dict(zip((str(each.name) for each in function.signature.input_arg), arguments, strict=False))
        self._waits_for = [text for text in call.input if text.startswith("^")]
        self._ports = {
            f"{node.name}:{argument}:{index}": f"{self._names[node.name]}:{port}"
            for node in function.node_def
            for port, argument, index in _numbered(output_arguments(node, library))
        }

    def nodes(self) -> Iterator[NodeDef]:
        """Yields the nodes, each named and wired for the graph."""
        for original in self._function.node_def:
            node = NodeDef()
            node.CopyFrom(original)
            node.name = self._names[original.name]
            del node.input[:]
            node.input.extend(map(self._outside, original.input))
            if not original.input:
                node.input.extend(self._waits_for)
            for value in node.attr.values():
                if value.placeholder:
                    value.CopyFrom(attribute(self._call, value.placeholder))
            yield node

    def results(self) -> list[str]:
        """Returns the tensors that the function returns."""
        return [self._outside(self._function.ret[output.name]) for output in self._function.signature.output_arg]

    def side_effects(self) -> list[str]:
        """Returns the nodes that run even if nothing needs what they compute."""
        return [self._names[name] for name in self._function.control_ret.values()]

    def _outside(self, text: str) -> str:
        """Translates an input as a function writes it: ``argument``, ``node:output:index`` or ``^node``."""
        if text.startswith("^"):
            inner = text[1:]
            other = self._arguments.get(inner)
            return f"^{parse_tensor_name(other).node}" if other is not None else f"^{self._names.get(inner, inner)}"
        if text in self._arguments:
            return self._arguments[text]
        try:
            return self._ports[text]
        except KeyError as error:
            raise ModelError(
                f"Function {self._function.signature.name!r} reads {text!r}, which it does not contain. Export the "
                "model again."
            ) from error


def _numbered(arguments: Iterator[str]) -> Iterator[tuple[int, str, int]]:
    """Yields port, argument, and index within the argument."""
    seen: dict[str, int] = {}
    for port, argument in enumerate(arguments):
        seen[argument] = seen.get(argument, -1) + 1
        yield port, argument, seen[argument]
