"""The nodes of functions stand in the graph that calls them, and mean there what they meant."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, build_v1, check_same_values, node_of, normal, ops_of, prepared, run, tf1

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.rewrite import subgraph
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.preparation.inline_functions import inline_functions
from amct_tensorflow.model.preparation.prepare import prepare

X = normal((2, 3), 1)


def placeholder():
    return tf1.placeholder(tf.float32, [None, 3], name="x")


def function(body, **options):
    return tf.function(body, autograph=False, **options)


def inlined(graph_def, keep=("out",)):
    rewritten, origins = prepared(graph_def, inline_functions, keep)
    assert not rewritten.library.function
    return rewritten, origins


def check(make, expected, feeds=None):
    """Checks what ops are left besides Identity, and all values; returns the graph and the origins."""
    graph_def = build(make)
    rewritten, origins = inlined(graph_def)
    assert ops_of(rewritten, "Identity") == sorted(expected)
    check_same_values(graph_def, rewritten, feeds or {"x": X})
    return rewritten, origins


def test_a_call_becomes_the_nodes_of_its_function():
    def make():
        tf.identity(function(lambda v: tf.exp(tf.sin(v, name="inner")))(placeholder()), name="out")

    rewritten, origins = check(make, ["Sin", "Exp"])
    (call,) = (node.name for node in build(make).node if node.op == "PartitionedCall")
    assert node_of(rewritten, f"{call}/inner").op == "Sin"
    assert set(origins.values()) == {(call,)} and set(origins) == {
        node.name for node in rewritten.node if node.name not in ("x", "out")
    }


def test_functions_inside_functions_trace_to_the_call_in_the_graph():
    def make():
        inner = function(tf.sin)
        middle = function(lambda v: inner(v) + inner(2.0 * v))
        tf.identity(function(lambda v: tf.cos(middle(v)))(placeholder()), name="out")

    _, origins = check(make, ["Sin", "Sin", "Mul", "AddV2", "Cos"])
    assert len(set(origins.values())) == 1


def test_a_function_that_is_called_twice():
    def make():
        called = function(tf.sin)
        tf.identity(called(called(placeholder())), name="out")

    check(make, ["Sin", "Sin"])


def test_arguments_that_are_returned_and_such_that_are_not_used():
    def make():
        x = placeholder()
        first, second, third = function(lambda a, b, c: (b, a, tf.sin(b)))(x, 2.0 * x, 3.0 * x)
        tf.add_n([first, 10.0 * second, 100.0 * third], name="out")

    check(make, ["AddN", "Mul", "Mul", "Mul", "Sin"])


def test_ops_with_several_outputs_and_lists_of_them():
    def make():
        def body(v):
            left, right = tf.split(v, [1, 2], 1)
            values, indices = tf.math.top_k(right, 2)
            parts = tf.raw_ops.IdentityN(input=[left, values])
            return parts[1] + tf.cast(indices, tf.float32), parts[0]

        sums, left = function(body)(placeholder())
        tf.concat([sums, left], 1, name="out")

    check(make, ["SplitV", "TopKV2", "IdentityN", "Cast", "AddV2", "ConcatV2"])


def test_a_requested_call_keeps_its_name():
    def make():
        called = function(lambda v: (tf.sin(v), tf.cos(v)))
        tf.add(*called(placeholder()), name="out")

    graph_def = build(make)
    (call,) = (node.name for node in graph_def.node if node.op == "PartitionedCall")
    rewritten, origins = inlined(graph_def, [call, "out"])
    assert node_of(rewritten, call).op == "Identity" and call not in origins
    check_same_values(graph_def, rewritten, {"x": X})


def test_compiled_functions_and_weights_inside():
    def make():
        called = function(lambda v: tf.matmul(v, tf.constant(normal((3, 3), 2))), jit_compile=True)
        tf.identity(called(placeholder()), name="out")

    check(make, ["MatMul"])


@pytest.mark.parametrize("taken", [True, False])
def test_a_constant_condition_decides_which_function_is_called(taken):
    def make():
        x = placeholder()
        tf.identity(tf.cond(tf.constant(taken), lambda: tf.sin(x), lambda: tf.cos(x)), name="out")

    check(make, ["Sin" if taken else "Cos"])


@pytest.mark.parametrize(
    ("condition", "taken"),
    [(np.array(0.0), False), (np.array(0.5), True), (np.zeros(2, bool), True), (np.zeros(0, bool), False)],
)
def test_a_condition_that_is_no_boolean_scalar(condition, taken):
    """A number is true if it is not zero, a tensor with axes if it is not empty (documentation of the op If)."""

    def make():
        x = placeholder()
        tf.identity(tf.cond(tf.constant(True), lambda: tf.sin(x), lambda: tf.cos(x)), name="out")

    graph_def = build(make)
    (call,) = (node for node in graph_def.node if node.op == "StatelessIf")
    graph_def.node.append(make_const("condition", condition))
    call.input[0] = "condition"
    del call.attr["_lower_using_switch_merge"]  # TensorFlow's lowering knows boolean scalars only
    call.attr["Tcond"].type = tf.as_dtype(condition.dtype).as_datatype_enum
    rewritten, _ = inlined(graph_def)
    assert ops_of(rewritten, "Identity") == ["Sin" if taken else "Cos"]
    check_same_values(graph_def, rewritten, {"x": X})


@pytest.mark.parametrize("index", [-1, 0, 1, 2, 3])
def test_a_constant_index_decides_which_function_is_called(index):
    """One out of range means the last."""

    def make():
        x = placeholder()
        y = tf.switch_case(tf.constant(index), [lambda: tf.sin(x), lambda: tf.cos(x), lambda: tf.exp(x)])
        tf.identity(y, name="out")

    graph_def = build(make)
    rewritten = prepare(GraphView(graph_def), ["out"], "test").view.graph_def
    assert ops_of(rewritten, "Identity") == [{0: "Sin", 1: "Cos"}.get(index, "Exp")]
    check_same_values(graph_def, rewritten, {"x": X})


def test_where_nothing_decides_the_call_and_its_functions_stay():
    def make():
        x = placeholder()
        flag = tf1.placeholder(tf.bool, [], name="flag")
        y = tf.cond(flag, lambda: function(tf.sin)(x), lambda: tf.cos(x))
        tf.identity(function(tf.exp)(y), name="out")

    graph_def = build(make)
    rewritten, _ = prepared(graph_def, inline_functions)
    assert ops_of(rewritten, "Identity") == ["Exp", "StatelessIf"]
    assert len(rewritten.library.function) == 3
    for flag in (True, False):
        check_same_values(graph_def, rewritten, {"x": X, "flag": flag})


@pytest.mark.parametrize("flag", [True, False])
def test_a_call_in_a_branch_runs_in_that_branch_only(flag):
    """What does not follow from the arguments would run in the other branch, too, and the Merge take it."""

    def make():
        x = placeholder()
        constant = function(lambda v: tf.constant(normal((3,), 2)))
        passes_on = function(lambda v, w: (w, tf.constant(1.0)))

        def taken():
            return constant(x) + passes_on(x, tf.constant(normal((3,), 3)))[0]

        chosen = tf1.placeholder(tf.bool, [], name="flag")
        tf.add(tf1.cond(chosen, lambda: constant(x), lambda: x[0]), tf1.cond(chosen, lambda: x[0], taken), name="out")

    graph_def = build_v1(make)
    rewritten, _ = inlined(graph_def)
    check_same_values(graph_def, rewritten, {"x": X, "flag": flag})


def test_a_call_in_a_loop_runs_in_every_round():
    def make():
        x = placeholder()
        step = function(lambda v: v + tf.matmul(v, tf.constant(normal((3, 3), 2))) + tf.constant(1.0))
        _, y = tf1.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, step(v)), [0, x])
        tf.identity(y, name="out")

    graph_def = build_v1(make)
    rewritten, _ = inlined(graph_def)
    check_same_values(graph_def, rewritten, {"x": X})
    check_same_values(graph_def, prepare(GraphView(graph_def), ["out"], "test").view.graph_def, {"x": X})


def counting():
    variable = tf1.get_variable("variable", initializer=1.0, use_resource=True)

    @function
    def count(v, handle):
        tf.raw_ops.AssignAddVariableOp(resource=handle, value=1.0)
        return v

    return variable, count


def test_what_a_function_does_besides_happens_before_its_result_is_there():
    def make():
        variable, count = counting()
        y = count(placeholder(), variable.handle)
        with tf.control_dependencies([y]):
            tf.identity(variable.read_value(), name="out")

    graph_def = build(make)
    rewritten, _ = inlined(graph_def)
    assert "AssignAddVariableOp" in ops_of(subgraph(rewritten, ["out"]))
    check_counted(rewritten)


def check_counted(graph_def, fetch="out"):
    graph = tf.Graph()
    with graph.as_default(), tf1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        session.run("variable/Assign")
        assert session.run(f"{fetch}:0", {"x:0": X}) == 2.0


def test_a_function_waits_for_what_its_call_waits_for():
    def make():
        variable, _ = counting()
        read = function(lambda handle: tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32))
        with tf.control_dependencies([variable.assign_add(1.0)]):
            tf.identity(read(variable.handle), name="out")
        tf.identity(placeholder(), name="other")

    graph_def = build(make)
    rewritten, _ = inlined(graph_def, ["out", "other"])
    check_counted(rewritten)


def test_a_call_that_is_there_for_its_effect_alone():
    def make():
        variable, _ = counting()

        @function
        def count(handle):
            tf.raw_ops.AssignAddVariableOp(resource=handle, value=1.0)

        count(variable.handle)
        (call,) = (each for each in tf1.get_default_graph().get_operations() if each.type == "StatefulPartitionedCall")
        with tf.control_dependencies([call]):
            tf.identity(variable.read_value(), name="out")
        tf.identity(placeholder(), name="other")

    graph_def = build(make)
    calls = [node.name for node in graph_def.node if node.op == "StatefulPartitionedCall"]
    for keep in (["out", "other"], ["out", "other", *calls]):
        rewritten, _ = inlined(graph_def, keep)
        check_counted(rewritten)


def with_function(nodes, arguments=1, inner="", **function_attributes):
    """A graph of ``nodes``, and a function ``f`` that computes Sin, of a type that calls have to tell if asked for."""
    graph_def = tf1.GraphDef()
    graph_def.node.append(make_node("x", "Placeholder", (), dtype=tf.float32))
    graph_def.node.extend(nodes)
    definition = graph_def.library.function.add()
    definition.signature.name = "f"
    for index in range(arguments):
        definition.signature.input_arg.add(name=f"v{index}", type=tf.float32.as_datatype_enum)
    definition.signature.output_arg.add(name="y", type=tf.float32.as_datatype_enum)
    node = make_node("sin", inner or "Sin", ["v0"], **function_attributes)
    if not function_attributes:
        node.attr["T"].placeholder = "U"
        definition.signature.attr.add(name="U", type="type")
        definition.signature.input_arg[0].ClearField("type")
        definition.signature.input_arg[0].type_attr = "U"
        definition.signature.output_arg[0].ClearField("type")
        definition.signature.output_arg[0].type_attr = "U"
    definition.node_def.append(node)
    definition.ret["y"] = "sin:y:0"
    return graph_def


def call(name="call", called="f", op="PartitionedCall", **attributes):
    node = make_node(name, op, ["x"])
    if op == "PartitionedCall":
        node.attr["f"].func.name = called
        node.attr["Tin"].list.type.append(tf.float32.as_datatype_enum)
        node.attr["Tout"].list.type.append(tf.float32.as_datatype_enum)
    attr = node.attr["f"].func.attr if op == "PartitionedCall" else node.attr
    for key, value in attributes.items():
        attr[key].type = value.as_datatype_enum
    return node


@pytest.mark.parametrize("op", ["PartitionedCall", "f"])
def test_a_type_that_the_function_leaves_open_is_told_by_the_call(op):
    graph_def = with_function([call(op=op, U=tf.float32), make_node("out", "Identity", ["call"], T=tf.float32)])
    for keep in (["out"], ["call", "out"]):
        rewritten, _ = inlined(graph_def, keep)
        np.testing.assert_allclose(run(rewritten, ["out"], {"x": X})[0], np.sin(X), rtol=1e-6)


def test_a_type_that_nobody_tells():
    with pytest.raises(ModelError, match=r"'call' does not say what 'U' of function 'f' is"):
        inlined(with_function([call()]))


def test_a_default_type():
    graph_def = with_function([call()])
    graph_def.library.function[0].signature.attr[0].default_value.type = tf.float32.as_datatype_enum
    rewritten, _ = inlined(graph_def, ["call"])
    np.testing.assert_allclose(run(rewritten, ["call"], {"x": X})[0], np.sin(X), rtol=1e-6)


def test_a_type_that_is_passed_on_to_a_function_inside():
    graph_def = with_function([call(called="g", U=tf.float32)])
    outer = graph_def.library.function.add()
    outer.CopyFrom(graph_def.library.function[0])
    outer.signature.name = "g"
    inner = call("sin")
    inner.input[0] = "v0"
    inner.attr["f"].func.attr["U"].placeholder = "U"
    outer.node_def[0].CopyFrom(inner)
    outer.ret["y"] = "sin:output:0"
    rewritten, _ = inlined(graph_def, ["call"])
    np.testing.assert_allclose(run(rewritten, ["call"], {"x": X})[0], np.sin(X), rtol=1e-6)


def test_functions_that_call_each_other_in_a_circle():
    """Each calls the next twice: inlining until it is too deep would not end in a lifetime."""
    graph_def = with_function([call()], T=tf.float32)
    first = graph_def.library.function[0]
    for name, called in (("f", "g"), ("g", "f")):
        function = first if name == "f" else graph_def.library.function.add()
        function.CopyFrom(first)
        function.signature.name = name
        del function.node_def[:]
        for inner in ("sin", "other"):
            node = call(inner, called)
            node.input[0] = "v0"
            function.node_def.append(node)
        function.ret["y"] = "sin:output:0"
    with pytest.raises(ModelError, match=r"in a circle: (f -> g -> f|g -> f -> g)\. Export it again"):
        inlined(graph_def)


def test_a_function_that_is_missing():
    with pytest.raises(ModelError, match=r"'call' calls function 'g', which the model does not contain"):
        inlined(with_function([call(called="g")]))
    graph_def = tf1.GraphDef()
    graph_def.node.extend([make_node("x", "Placeholder", (), dtype=tf.float32), call()])
    with pytest.raises(ModelError, match=r"'call' calls function 'f', which the model does not contain"):
        inlined(graph_def)


def test_a_call_with_too_few_arguments():
    with pytest.raises(ModelError, match=r"'call' calls function 'f', which takes 2 arguments, with 1"):
        inlined(with_function([call()], arguments=2, T=tf.float32))


def test_a_function_that_reads_what_it_does_not_contain():
    graph_def = with_function([call()], T=tf.float32)
    graph_def.library.function[0].node_def[0].input[0] = "gone:y:0"
    with pytest.raises(ModelError, match=r"Function 'f' reads 'gone:y:0', which it does not contain"):
        inlined(graph_def)
    graph_def.library.function[0].node_def[0].input[0] = "^gone"
    with pytest.raises(ModelError, match=r"Function 'f' reads '\^gone', which it does not contain"):
        inlined(graph_def)


def test_no_new_node_gets_a_name_that_a_node_of_the_file_had():
    """Calibration would take the one for the other. The other has gone by the time that the call is inlined."""
    other = make_node("call/sin", "Cos", ["x"], T=tf.float32)
    out = make_node("out", "Identity", ["call", "^call/sin"], T=tf.float32)
    graph_def = with_function([call(), other, out], T=tf.float32)
    graph = prepare(GraphView(graph_def), ["out"], "test")
    check_same_values(graph_def, graph.view.graph_def, {"x": X})
    assert graph.origins == {"call_1/sin": ("call",)}
