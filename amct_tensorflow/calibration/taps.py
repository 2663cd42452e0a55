"""What calibration inserts into the caller's live graph.

A tap is one ``tf.numpy_function`` on a tensor, run by control edges to the nodes that read the tensor, whenever one of
those runs; so the tensors that the caller fetched before, and the order in which it runs them, need not change. The
function looks at the tensor's own buffer; nothing travels back into the graph.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from amct_tensorflow.graph.model_file import CALIBRATION_SCOPE


def attach_tap(graph: tf.Graph, readers: Sequence[str], tensor: str, look: Callable[[np.ndarray], None]) -> None:
    """Calls ``look`` with the value of a tensor, once each time that nodes which read it run.

    Args:
        graph: the caller's graph; it is changed.
        readers: names of the nodes.
        tensor: full name of the tensor.
        look: must neither keep nor change the array it is given.
    """

    def tap(value: np.ndarray) -> np.int32:
        look(value)
        return np.int32(0)

    with (
        graph.as_default(),
        tf.name_scope(f"{CALIBRATION_SCOPE}/"),
        tf.device("/CPU:0"),
        graph.control_dependencies(None),
    ):
        looked = tf.numpy_function(tap, [graph.get_tensor_by_name(tensor)], tf.int32)
    for reader in readers:
        # TensorFlow has no public way to add an edge to a live graph.
        graph.get_operation_by_name(reader)._add_control_input(looked.op)
