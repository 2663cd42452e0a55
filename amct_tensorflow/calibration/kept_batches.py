"""What the caller's session yields: per calibration batch, the tensors from which everything else follows."""

from collections.abc import Collection

import numpy as np

from amct_tensorflow.calibration.replay import Batch
from amct_tensorflow.errors import CalibrationError


class KeptBatches:
    """Collects the tensors of ``batch_num`` batches, which arrive one by one and in any order."""

    def __init__(self, batch_num: int, tensors: Collection[str]) -> None:
        self._batch_num = batch_num
        self._values: dict[str, list[np.ndarray]] = {tensor: [] for tensor in tensors}

    def keep(self, tensor: str, value: np.ndarray) -> None:
        """Takes a copy of a tensor; batches beyond ``batch_num`` and those without images do not count."""
        values = self._values[tensor]
        if len(values) == self._batch_num:
            return
        values.append(np.array(value))
        latest = self.complete - 1
        if len(values) - 1 == latest and any(one.size == 0 for one in self.batch(latest).values()):
            for each in self._values.values():
                del each[latest]

    @property
    def complete(self) -> int:
        """Number of batches of which every tensor has arrived."""
        return min(map(len, self._values.values()), default=0)

    def batch(self, index: int) -> Batch:
        """Returns the tensors of a complete batch."""
        return {tensor: values[index] for tensor, values in self._values.items()}

    def batches_of_all_tensors(self) -> tuple[Batch, ...]:
        """Returns every batch, with those tensors alone that arrived in all of them."""
        arrived = {tensor: values for tensor, values in self._values.items() if len(values) == self._batch_num}
        return tuple({tensor: values[index] for tensor, values in arrived.items()} for index in range(self._batch_num))

    def forget(self) -> None:
        """Frees the memory; nothing is kept any more."""
        self._batch_num = 0
        self._values.clear()

    def check_complete(self) -> None:
        """Raises CalibrationError if a batch, or a tensor of one, is missing."""
        counts = {tensor: len(values) for tensor, values in self._values.items()}
        if self.complete == self._batch_num:
            return
        if len(set(counts.values())) > 1:
            tensor = min(counts, key=lambda name: counts[name])
            raise CalibrationError(
                f"Tensor {tensor!r} was not computed in every calibration batch. Feed the model at its placeholders, "
                "not at a tensor between them and the quantized layers."
            )
        raise CalibrationError(
            f"Calibration needs {self._batch_num} batches, but saw {self.complete}. Run the model's outputs at least "
            "batch_num times in calibration(), in a session on the graph given."
        )
