"""Inserts taps into the caller's live graph.

    tensor -> its readers      becomes      tensor -> Switch:0 -> its readers
                                            tensor -> PyFunc -> the Switch's predicate

A tap is one ``tf.numpy_function`` that reads the tensor's own buffer and returns False. The readers of the tensor
read it through a Switch, which passes the same buffer on once the function has returned. So they need the output of the
tap, and no rewrite of TensorFlow's optimizer can drop it, as it could drop a mere control edge. They read output 0,
since some rewrites forget the number of an output (that of Maximum(x, 0.2 * x) into LeakyRelu does). Tensors keep their
names and values, so that the caller fetches what it fetched before.

Whoever has no use for the outputs runs ``fetches_to_calibrate``, which may spare the model's own run.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from amct_tensorflow.model.model_file import CALIBRATION_SCOPE

# The op type of a tensor whose tap can run without the model.
INPUT = "Placeholder"
# The collection of a graph that holds its taps: what each passes on.
_TAPS = CALIBRATION_SCOPE


def attach_tap(graph: tf.Graph, readers: Sequence[str], tensor: str, observer: Callable[[np.ndarray], None]) -> None:
    """Calls ``observer`` with the value of a tensor, once each time that nodes which read it run.

    The tap replaces that of an earlier calibration on the same graph.

    Args:
        graph: the caller's graph; it is changed.
        readers: names of the nodes that read the tensor as data.
        tensor: full name of the tensor.
        observer: must neither keep nor change the array it is given.
    """

    def tap(value: np.ndarray) -> np.bool_:
        observer(value)
        return np.False_

    tapped = graph.get_tensor_by_name(tensor)
    with (
        graph.as_default(),
        graph.device(None),
        tf.name_scope(f"{CALIBRATION_SCOPE}/"),
        graph.control_dependencies(None),
    ):
        with tf.device("/CPU:0"):
            looked = tf.numpy_function(tap, [tapped], tf.bool)
        looked.set_shape([])
        passed_on = tf.raw_ops.Switch(data=tapped, pred=looked).output_false
    for reader in readers:
        operation = graph.get_operation_by_name(reader)
        for index, read in enumerate(operation.inputs):
            if _untapped(read).name == tensor:
                # TensorFlow has no public way to change an edge of a live graph.
                operation._update_input(index, passed_on)
    taps = graph.get_collection_ref(_TAPS)
    taps[:] = [*(each for each in taps if _untapped(each) is not tapped), passed_on]


def fetches_to_calibrate(graph: tf.Graph, outputs: Sequence[str]) -> list[tf.Tensor | tf.Operation]:
    """Returns what to run, of a graph that calibration has prepared, for it to see a batch.

    These are the taps alone if all are on inputs, else the outputs: what a tap is on may stand in a branch that is not
    taken.

    Args:
        graph: the graph.
        outputs: full names of the tensors that its user wants.

    Raises:
        KeyError: the graph has no such output.
        ValueError: likewise.
    """
    wanted = [graph.get_tensor_by_name(name) for name in outputs]
    return taps_on_inputs(graph) or wanted


def taps_on_inputs(graph: tf.Graph) -> list[tf.Operation]:
    """Returns the taps of a graph, to be run without the model; none if one of them is elsewhere than on an input."""
    taps: list[tf.Tensor] = graph.get_collection(_TAPS)
    return [each.op for each in taps] if all(_untapped(each).op.type == INPUT for each in taps) else []


def _untapped(read: tf.Tensor) -> tf.Tensor:
    """Returns the caller's tensor that a node reads, directly or through a tap."""
    while read.op.type == "Switch" and read.op.name.startswith(f"{CALIBRATION_SCOPE}/"):
        read = read.op.inputs[0]
    return read
