"""Running a graph for the values of any of its tensors, with any of them given."""

from collections.abc import Iterable, Mapping
from types import TracebackType

import numpy as np
import tensorflow as tf

from amct_tensorflow.errors import DatasetError, first_line
from amct_tensorflow.graph.session_options import session_options


class Runner:
    """A session on a graph, to be used in a ``with`` statement."""

    def __init__(self, graph: tf.Graph) -> None:
        self._graph = graph
        # What is fetched and fed changes from run to run, and TensorFlow would optimize the graph again for each.
        self._options = session_options(graph, run_often=False)
        self._session = tf.compat.v1.Session(graph=graph, config=self._options)
        self._copies: dict[str, tf.Tensor] = {}

    def __enter__(self) -> "Runner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def run(self, tensors: Iterable[str], feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the values of tensors, by their full names.

        Raises:
            DatasetError: TensorFlow refuses to run on such values.
        """
        fetched = {name: self._copy(name) for name in tensors}
        try:
            values: dict[str, np.ndarray] = self._session.run(fetched, dict(feeds))
        except tf.errors.ResourceExhaustedError as error:
            raise DatasetError("There is not enough memory to compare on such batches. Give smaller ones.") from error
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise DatasetError(f"The model cannot be run on this data: {first_line(error)}") from error
        return values

    def forget(self) -> None:
        """Frees what TensorFlow keeps of each set of tensors that was run: all weights among it."""
        self._session.close()
        self._session = tf.compat.v1.Session(graph=self._graph, config=self._options)

    def _copy(self, name: str) -> tf.Tensor:
        """Returns what has the value of a tensor, which itself may be given, or have no kernel for its layout."""
        if name not in self._copies:
            tensor = self._graph.get_tensor_by_name(name)
            with self._graph.as_default(), self._graph.device(None), tf.control_dependencies(None):
                self._copies[name] = tf.identity(tensor)
        return self._copies[name]
