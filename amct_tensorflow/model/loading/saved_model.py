"""Loads the serving signature of a SavedModel, or its only one, even if TensorFlow cannot load all of the model.

Unknown optimizers, tables and assets of other signatures, and uncalled ops and functions are ignored. The variables are
restored in a session, as in TensorFlow 1.
"""

import importlib
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef

from amct_tensorflow.errors import ModelError, first_line
from amct_tensorflow.model.loading.forms import SAVED_MODEL_FILES
from amct_tensorflow.model.loading.freezing import FREEZE_IT_YOURSELF, Inference, writer_in, writes
from amct_tensorflow.model.loading.frozen_graph import pass_values
from amct_tensorflow.model.loading.known_ops import why_not_importable
from amct_tensorflow.model.loading.reproducible import called_functions, needed_nodes, producer
from amct_tensorflow.ops import has, trait
from amct_tensorflow.ops.traits import Call, WritesVariable

_SERVING = "serving_default"
_DEFAULTS = (_SERVING, "default")  # the latter in modules of TensorFlow Hub
_SERVING_TAG = "serve"
_RESERVED = "__saved_model_"


def load_saved_model(path: Path) -> Inference:
    """Loads a SavedModel of TensorFlow 1 or 2.

    Raises:
        ModelError: it is damaged, or it cannot be told which of its signatures is meant.
    """
    graph, name = find_signature(path)
    # To ask for them imports Keras, which registers them: the model may hold one. TensorFlow, too, goes on without.
    with suppress(ImportError, AttributeError):
        importlib.import_module(tf.keras.optimizers.__name__)
    try:
        loaded = tf.saved_model.load(str(path), tags=list(graph.meta_info_def.tags))
        function = loaded.signatures[name]
    except Exception as error:  # whatever TensorFlow did not expect of the files
        raise not_loaded(path, error) from error
    return Inference(function, tuple(sorted(function.structured_outputs)), loaded)


def saved_model_files(path: Path) -> list[Path]:
    """Returns the files with the graph and the variables of a SavedModel, without its assets."""
    graph = next(path / name for name in SAVED_MODEL_FILES if (path / name).is_file())
    return [graph, *path.glob("variables/variables.*")]


def find_signature(path: Path) -> tuple[MetaGraphDef, str]:
    """Returns the graph of a SavedModel to freeze, and the name of the signature in it.

    Raises:
        ModelError: the file is damaged, or it cannot be told which one is meant.
    """
    try:
        graphs = tf.__internal__.saved_model.parse_saved_model(str(path)).meta_graphs
    except Exception as error:  # likewise
        raise not_loaded(path, error) from error
    graph = _choose_graph(graphs, path)
    return graph, _choose_signature([key for key in graph.signature_def if not key.startswith(_RESERVED)], path)


def not_loaded(path: Path, error: Exception) -> ModelError:
    """Returns the error that says that TensorFlow cannot load a SavedModel."""
    return ModelError(f"Model {path} cannot be loaded as a SavedModel ({first_line(error)}). {FREEZE_IT_YOURSELF}")


def _choose_graph(graphs: Collection[MetaGraphDef], path: Path) -> MetaGraphDef:
    """Returns the only graph of a SavedModel, or the one to serve with.

    That for any device comes first, then one for some device, then the one without a tag, as TensorFlow Hub has it.

    Raises:
        ModelError: there are several, and it cannot be told which of them is for serving.
    """
    tags = [set(graph.meta_info_def.tags) for graph in graphs]
    choices = (
        [True for _ in tags],
        [each == {_SERVING_TAG} for each in tags],
        [_SERVING_TAG in each for each in tags],
        [not each for each in tags],
    )
    for chosen in choices:
        if sum(chosen) == 1:
            return list(graphs)[chosen.index(True)]
    listed = " and ".join(str(sorted(each)) for each in tags) or "none"
    raise ModelError(
        f"Model {path} must hold one graph, or one with the tag {_SERVING_TAG!r}; it holds those with the tags: "
        f"{listed}. Export it for serving."
    )


def _choose_signature(names: Collection[str], path: Path) -> str:
    """Returns the name of the signature to freeze.

    Raises:
        ModelError: there is none, or there are several, and none of them is the default.
    """
    for name in _DEFAULTS:
        if name in names:
            return name
    if len(names) == 1:
        return next(iter(names))
    has = f"has the signatures {', '.join(map(repr, sorted(names)))}" if names else "has no signature"
    raise ModelError(
        f"Model {path} {has}. Export the one to quantize: tf.saved_model.save(model, directory, "
        f"signatures={{{_SERVING!r}: function}}), or model.export(directory) in Keras."
    )


_CHECKPOINT = ("variables", "variables")
_VARIABLE = "VarHandleOp"
# What TensorFlow 1 runs when it has restored the variables.
_INITIALIZATIONS = ("saved_model_main_op", "legacy_init_op")
tf1 = tf.compat.v1


def load_signature_graph(path: Path) -> Inference:
    """Loads what the signature of a SavedModel needs.

    A graph of TensorFlow 1 keeps the names of its nodes. Where a signature of TensorFlow 2 calls a function, inputs
    have the names that the signature gives them, and outputs are called ``Identity``, ``Identity_1``, ...

    Raises:
        ModelError: it is damaged, it cannot be told which of its signatures is meant, the signature needs an op that
            TensorFlow does not know, or it writes to variables.
    """
    graph, name = find_signature(path)
    signature = graph.signature_def[name]
    try:
        needed = _needed(graph, _names(signature.outputs))
        _check(needed, path)
        _check_initialization(graph, needed, path)
        frozen = _with_values(graph, [*_names(signature.inputs), *_names(signature.outputs)], path)
        return Inference(_function(frozen, signature), tuple(sorted(signature.outputs)), frozen)
    except ModelError:
        raise
    except Exception as error:  # whatever TensorFlow did not expect of the files
        raise not_loaded(path, error) from error


def _names(tensors: Any) -> list[str]:
    """Returns the names of the tensors that a signature takes or gives, in the order of what it calls them."""
    return [str(tensors[key].name) for key in sorted(tensors)]


def _needed(graph: MetaGraphDef, names: Iterable[str]) -> GraphDef:
    """Returns the nodes that tensors and operators need, and the functions that these call."""
    nodes = {node.name: node for node in graph.graph_def.node}
    library = {function.signature.name: function for function in graph.graph_def.library.function}
    result = GraphDef(versions=graph.graph_def.versions)
    result.node.extend(nodes[name] for name in needed_nodes(nodes, list(map(producer, names))))
    bodies = {name: function.node_def for name, function in library.items()}
    result.library.function.extend(library[name] for name in called_functions(result.node, bodies))
    for node in result.node:
        node.device = ""  # where it was trained is not where it is quantized
    return result


def _check(graph_def: GraphDef, path: Path) -> None:
    """Checks that a graph writes to no variable, and holds only ops that TensorFlow knows.

    Raises:
        ModelError: it does not.
    """
    writer = writer_in(graph_def)
    if writer is not None:
        raise writes(path, writer)
    reason = why_not_importable(graph_def)
    if reason is not None:
        raise ModelError(f"Model {path} cannot be loaded: {reason}")


def _check_initialization(graph: MetaGraphDef, needed: GraphDef, path: Path) -> None:
    """Checks that what runs once when a SavedModel is loaded sets none of the variables that are needed.

    Raises:
        ModelError: it does.
    """
    names = {node.name for node in needed.node}
    held = [graph.collection_def[key].node_list.value for key in _INITIALIZATIONS if key in graph.collection_def]
    signatures = [graph.signature_def[key] for key in (f"{_RESERVED}init_op",) if key in graph.signature_def]
    told = (*chain.from_iterable(held), *chain.from_iterable(_names(each.outputs) for each in signatures))
    there = {node.name for node in graph.graph_def.node}
    for node in _needed(graph, [name for name in told if producer(name) in there]).node:
        if has(node.op, WritesVariable) and node.input and producer(node.input[0]) in names:
            raise ModelError(
                f"Model {path} sets the variable {producer(node.input[0])!r} when it is loaded ({node.name!r}, "
                f"{node.op}), and TensorFlow cannot load all of it. {FREEZE_IT_YOURSELF}"
            )


def _with_values(graph: MetaGraphDef, names: Sequence[str], path: Path) -> GraphDef:
    """Returns the graph that tensors need, with the values of the variables."""
    saver = graph.saver_def
    restoring = [saver.restore_op_name, saver.filename_tensor_name] if saver.restore_op_name else []
    graph_def = _needed(graph, [*names, *restoring])
    pass_values(graph_def)
    _add_reads(graph_def)
    options = tf1.ConfigProto(device_count={"GPU": 0})
    with tf.Graph().as_default() as imported, tf1.Session(graph=imported, config=options) as session:
        tf.import_graph_def(graph_def, name="")
        if restoring:
            checkpoint = str(path.joinpath(*_CHECKPOINT))
            session.run(saver.restore_op_name, {saver.filename_tensor_name: checkpoint})
        operators = list(dict.fromkeys(map(producer, names)))
        return tf1.graph_util.convert_variables_to_constants(session, imported.as_graph_def(), operators)


def _add_reads(graph_def: GraphDef) -> None:
    """Adds to every variable the node by which TensorFlow reads it when it freezes a session."""
    names = {node.name for node in graph_def.node}
    for variable in [node for node in graph_def.node if node.op == _VARIABLE]:
        name = f"{variable.name}/Read/ReadVariableOp"
        if name not in names:
            read = graph_def.node.add(name=name, op="ReadVariableOp", input=[variable.name])
            read.attr["dtype"].CopyFrom(variable.attr["dtype"])


def _function(graph_def: GraphDef, signature: SignatureDef) -> Any:
    """Returns a frozen graph as a tf.ConcreteFunction from the inputs of a signature to its outputs."""
    ops = {node.name: node.op for node in graph_def.node}
    inputs, outputs = _names(signature.inputs), _names(signature.outputs)
    if any(trait(ops[producer(name)], Call) is Call.DIRECT for name in outputs):
        return _named_by_signature(graph_def, signature)
    wrapped = tf1.wrap_function(lambda: tf.import_graph_def(graph_def, name=""), [])
    feeds, fetches = ([wrapped.graph.get_tensor_by_name(name) for name in names] for names in (inputs, outputs))
    return wrapped.prune(feeds, fetches)


def _named_by_signature(graph_def: GraphDef, signature: SignatureDef) -> Any:
    keys = sorted(signature.inputs)
    infos = [signature.inputs[key] for key in keys]
    specs = [
        tf.TensorSpec(info.tensor_shape, tf.as_dtype(info.dtype), key) for key, info in zip(keys, infos, strict=True)
    ]

    def infer(*tensors: tf.Tensor) -> Any:
        fed = dict(zip((info.name for info in infos), tensors, strict=True))
        return tf.import_graph_def(graph_def, fed, _names(signature.outputs), name="")

    return tf.function(infer, autograph=False).get_concrete_function(*specs)
