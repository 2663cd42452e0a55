"""The nodes of a function, named and wired for the graph that calls it."""

from collections.abc import Iterator, Mapping, Sequence

from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.function_pb2 import FunctionDef, FunctionDefLibrary
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.nodes import Attr, make_node
from amct_tensorflow.graph.op_definitions import output_arguments
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import parse_tensor_name


class FunctionBody:
    """The nodes that replace one call of a function.

    Attributes:
        results: the tensors that the function returns.
        effects: the nodes that run even if nothing needs what they compute.
    """

    def __init__(
        self,
        function: FunctionDef,
        attributes: Mapping[str, AttrValue],
        arguments: Sequence[str],
        library: FunctionDefLibrary,
        editor: GraphEditor,
        call: str,
    ) -> None:
        """Names the nodes.

        Args:
            function: the function.
            attributes: the attributes of the call, which fix open types of the function.
            arguments: the arguments of the call, as GraphDef writes inputs.
            library: the functions that it may call.
            editor: the graph that calls it; the nodes get names that are not taken in it.
            call: the node that calls it.

        Raises:
            ModelError: the call does not fit the function, or the function reads what it does not contain.
        """
        self._function, self._editor, self._call = function, editor, call
        signature = function.signature
        if len(arguments) != len(signature.input_arg):
            raise ModelError(
                f"Node {call!r} calls function {signature.name!r}, which takes {len(signature.input_arg)} arguments, "
                f"with {len(arguments)}. Export the model again."
            )
        self._attributes = {each.name: each.default_value for each in signature.attr if each.HasField("default_value")}
        self._attributes.update(attributes)
        self._arguments = {str(each.name): text for each, text in zip(signature.input_arg, arguments, strict=True)}
        names = [str(node.name) for node in function.node_def]
        self._scope = editor.unique_scope(call, names)
        self._names = {name: f"{self._scope}/{name}" for name in names}
        self._tensors = {
            f"{node.name}:{argument}:{index}": f"{self._names[node.name]}:{port}"
            for node in function.node_def
            for port, argument, index in _numbered(output_arguments(node, library))
        }
        self._waits: list[str] = []
        self._passed_on: list[NodeDef] = []
        self.effects = [self._names[name] for name in function.control_ret.values()]
        self.results: list[str] = []

    def wait(self, waits: Sequence[str], *, for_arguments: bool) -> None:
        """Lets the nodes that depend on nothing else in the function wait.

        Args:
            waits: control edges of the call.
            for_arguments: whether to wait for the arguments, too, as a call does; that matters in a branch or a loop.
        """
        self._waits = list(waits)
        if for_arguments:
            for argument in self._function.signature.input_arg:
                self._waits.append(f"^{self._pass_on('argument', argument, [self._arguments[argument.name]])}")
        effects = [f"^{name}" for name in self.effects]
        for result in self._function.signature.output_arg:
            text = self._function.ret[result.name]
            edges = [*effects, *(self._waits if text in self._arguments else ())]
            value = self._outside(text)
            self.results.append(self._pass_on("result", result, [value, *edges]) if edges else value)

    def nodes(self) -> Iterator[NodeDef]:
        """Yields the nodes, each named and wired for the graph."""
        for original in self._function.node_def:
            node = NodeDef()
            node.CopyFrom(original)
            node.name = self._names[original.name]
            depends = any(text.removeprefix("^") not in self._arguments for text in original.input)
            del node.input[:]
            node.input.extend([*map(self._outside, original.input), *([] if depends else self._waits)])
            for value in node.attr.values():
                self._fill_in(value)
            yield node
        yield from self._passed_on

    def stand_in(self, name: str) -> NodeDef:
        """Returns a node with the name and the value of the call."""
        if self.results:
            return self._identity(name, self._function.signature.output_arg[0], self.results[:1])
        return make_node(name, "NoOp", [f"^{effect}" for effect in self.effects])

    def _pass_on(self, kind: str, argument: OpDef.ArgDef, inputs: Sequence[str]) -> str:
        name = self._editor.unique_name(f"{self._scope}/{kind}")
        self._passed_on.append(self._identity(name, argument, inputs))
        return name

    def _identity(self, name: str, argument: OpDef.ArgDef, inputs: Sequence[str]) -> NodeDef:
        given = self._attributes.get(argument.type_attr, Attr()).type
        return make_node(name, "Identity", inputs, T=Attr(type=argument.type or given))

    def _fill_in(self, value: AttrValue) -> None:
        """Replaces open attributes of the function by those of the call."""
        if value.placeholder:
            if value.placeholder not in self._attributes:
                raise ModelError(
                    f"Node {self._call!r} does not say what {value.placeholder!r} of function "
                    f"{self._function.signature.name!r} is. Export the model again."
                )
            value.CopyFrom(self._attributes[value.placeholder])
        for function in (value.func, *value.list.func):
            for inner in function.attr.values():
                self._fill_in(inner)

    def _outside(self, text: str) -> str:
        """Translates an input as a function writes it: ``argument``, ``node:output:index`` or ``^node``."""
        name = text.removeprefix("^")
        if name in self._arguments:
            argument = self._arguments[name]
            return argument if name == text else f"^{parse_tensor_name(argument).node}"
        found = self._tensors.get(text) if name == text else self._names.get(name)
        if found is None:
            raise ModelError(
                f"Function {self._function.signature.name!r} reads {text!r}, which it does not contain. Export the "
                "model again."
            )
        return found if name == text else f"^{found}"


def _numbered(arguments: Iterator[str]) -> Iterator[tuple[int, str, int]]:
    """Yields port, argument, and index within the argument."""
    seen: dict[str, int] = {}
    for port, argument in enumerate(arguments):
        seen[argument] = seen.get(argument, -1) + 1
        yield port, argument, seen[argument]
