"""Graphs that differ in nothing but what TensorFlow makes up as it goes become the same."""

from hypothesis import given
from hypothesis import strategies as st
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.model.loading.reproducible import reproducible


def call(name, function, inputs):
    node = NodeDef(name=name, op="StatefulPartitionedCall", input=inputs)
    node.attr["f"].func.name = function
    return node


def graph(numbers, order, extras):
    """Returns a graph with two captured constants and two functions, one of which calls the other.

    Args:
        numbers: of the constants and functions.
        order: of the nodes.
        extras: whether there is what TensorFlow adds now and then.
    """
    first, second, outer, inner = numbers
    nodes = [
        NodeDef(name="x", op="Placeholder"),
        NodeDef(name=f"conv/{first}", op="Const"),
        NodeDef(name=str(second), op="Const"),
        NodeDef(name="split", op="Split", input=["x"]),
        call("conv/call", f"__inference_outer_{outer}", [f"conv/{first}", "split:1", f"^{second}"]),
        NodeDef(name="add", op="AddV2", input=["conv/call", str(second), "^x", "^split"]),
        NodeDef(name="Identity", op="Identity", input=["add"]),
    ]
    if extras:
        nodes.append(NodeDef(name=f"unused_control_flow_input_{first}", op="Placeholder"))
        nodes[5].input[:] = ["conv/call", str(second), "^split", "^x", "^conv/call"]
        nodes[4].attr["_has_manual_control_dependencies"].b = True
        nodes[4].attr["config_proto"].s = b"two threads"
        nodes[5].experimental_debug_info.original_node_names.append("of this process")
    result = GraphDef(node=[nodes[index] for index in order if index < len(nodes)])
    for name, body in ((outer, [call("again", f"__inference_inner_{inner}", ["x"])]), (inner, [])):
        function = result.library.function.add(node_def=body)
        function.signature.name = f"__inference_{'outer' if name == outer else 'inner'}_{name}"
    result.library.function.add().signature.name = "__inference_never_called_7"
    return result


@given(st.lists(st.integers(1, 9999), min_size=4, max_size=4, unique=True), st.permutations(range(8)), st.booleans())
def test_it_is_always_the_same(numbers, order, extras):
    assert reproducible(graph(numbers, order, extras), ["Identity"]) == reproducible(
        graph([1, 2, 3, 4], range(8), False), ["Identity"]
    )


def test_what_it_looks_like():
    found = reproducible(graph([160, 161, 225, 226], range(8), True), ["Identity"])
    assert [(node.name, list(node.input)) for node in found.node] == [
        ("conv/captured_0", []),
        ("x", []),
        ("split", ["x"]),
        ("captured_1", []),
        ("conv/call", ["conv/captured_0", "split:1", "^captured_1"]),
        ("add", ["conv/call", "captured_1", "^split", "^x"]),
        ("Identity", ["add"]),
    ]
    assert [function.signature.name for function in found.library.function] == [
        "__inference_outer_0",
        "__inference_inner_1",
    ]
    assert found.node[4].attr["f"].func.name == "__inference_outer_0"
    assert found.library.function[0].node_def[0].attr["f"].func.name == "__inference_inner_1"


def test_a_loop_and_a_function_that_calls_itself_end():
    loop = [
        NodeDef(name="enter", op="Enter"),
        NodeDef(name="merge", op="Merge", input=["enter", "next"]),
        NodeDef(name="next", op="NextIteration", input=["merge"]),
        call("exit", "__inference_f_3", ["merge"]),
    ]
    graph_def = GraphDef(node=loop)
    graph_def.library.function.add(node_def=[call("again", "__inference_f_3", [])]).signature.name = "__inference_f_3"
    found = reproducible(graph_def, ["exit"])
    assert [node.name for node in found.node] == ["enter", "next", "merge", "exit"]
    assert found.library.function[0].node_def[0].attr["f"].func.name == "__inference_f_0"
