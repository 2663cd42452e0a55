"""Rounds weights so that the variance of the output's error is small, by the second moments of the inputs.

Rounding changes a layer's output ``x @ W`` by ``x @ E``, with ``E`` the errors of the weights. The mean of that goes
into the bias (local bias correction). What remains is its variance, ``trace(E.T @ H @ E)`` with ``H`` the covariance of
``x``, its *centred* second moments (``SecondMoments``). One matrix per group bounds the memory; a group of more than
``LARGEST_BLOCK`` inputs is split into blocks, and the covariances between blocks count as 0.

Rounding to the nearest integer minimizes the error of each weight. The error of the output can be smaller: errors of
inputs that vary together can cancel. So the weights are rounded one input after the other, and each is first corrected
for the errors so far. With ``H = A @ D @ A.T``, ``A`` unit upper triangular and ``D``
diagonal,
    q[k] = round(w[k] + A[:k, k] @ (w[:k] - q[:k]))

in units of the scale. This is optimal brain quantization in a fixed order (Frantar and Alistarh 2022, "Optimal Brain
Compression"; Frantar et al. 2022, "GPTQ"), in the form of Chee et al. 2023 ("QuIP", theorem 6), which needs neither an
inverse nor updated weights: each group costs one Cholesky factorization and as many products as the layer itself takes
for ``inputs`` rows.
"""

import numpy as np

# A 3 x 3 window on 256 channels; the moments of so many inputs take 21 MB, and their factorization a fifth of a second.
LARGEST_BLOCK = 2304


class SecondMoments:
    """Accumulates the covariance of rows of data, whatever batches they come in.

    Products of float32 lose digits where the mean is large against the deviation. The rows are therefore taken
    relative to the mean of the first batch, and only what the later ones differ by is corrected for at the end.
    """

    def __init__(self) -> None:
        self._count = 0
        self._origin = np.zeros((0, 1, 0), np.float32)
        self._sum = np.zeros((0, 1, 0))
        self._products: list[np.ndarray] = []

    def add(self, rows: np.ndarray) -> None:
        """Adds rows, float32 [groups, rows, inputs]; what is added later has the same groups and inputs."""
        if not self._products:
            self._origin = rows.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
            self._sum = np.zeros(self._origin.shape)
            blocks = [rows[:, :1, block] for block in self._blocks]
            self._products = [np.zeros((len(rows), one.shape[2], one.shape[2]), np.float32) for one in blocks]
        centred = rows - self._origin
        self._count += rows.shape[1]
        self._sum += centred.sum(axis=1, keepdims=True, dtype=np.float64)
        parts = [centred[:, :, block] for block in self._blocks]
        self._products = [
            products + part.transpose(0, 2, 1) @ part for products, part in zip(self._products, parts, strict=True)
        ]

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(self._origin)

    @property
    def mean(self) -> np.ndarray:
        """The mean of the rows, float64 [groups, inputs]."""
        return np.asarray(self._origin + self._sum / self._count)[:, 0]

    def covariances(self) -> list[tuple[slice, np.ndarray]]:
        """Returns per block which inputs it holds, and their covariance, float64 [groups, block, block]."""
        mean = self._sum / self._count
        return [
            (block, products / self._count - mean[:, :, block].transpose(0, 2, 1) * mean[:, :, block])
            for products, block in zip(self._products, self._blocks, strict=True)
        ]

    @property
    def _blocks(self) -> list[slice]:
        inputs = self._origin.shape[-1]
        return [slice(start, min(start + LARGEST_BLOCK, inputs)) for start in range(0, inputs, LARGEST_BLOCK)]


# Errors are passed on to the inputs of the same block one by one, and to later blocks by one product of matrices.
# Blocks are so small that BLAS does not spread the many little products over threads.
_BLOCK = 32


def round_to_second_moments(
    weights: np.ndarray,
    scales: np.ndarray,
    covariance: np.ndarray,
    damping: float = 0.1,
    bounds: tuple[int, int] = (-128, 127),
) -> np.ndarray:
    """Rounds weights so that the variance of the output's error is small.

    Args:
        weights: [groups, inputs, outputs].
        scales: step of the integers; broadcasts to [groups, 1, outputs].
        covariance: of the inputs, [groups, inputs, inputs], symmetric and positive semidefinite.
        damping: the share of the mean variance that is added to every variance, above 0: how little the covariance of
            a few calibration images is trusted.
        bounds: the least and the greatest integer there may be.

    Returns:
        int8 [groups, inputs, outputs].
    """
    order = _by_falling_variance(covariance)
    ordered = np.take_along_axis(np.take_along_axis(covariance, order[:, :, np.newaxis], 1), order[:, np.newaxis], 2)
    feedback = _unit_upper_factor(_damped(ordered, damping)).astype(np.float32).transpose(0, 2, 1).copy()
    wanted = (np.take_along_axis(weights, order[:, :, np.newaxis], 1) / scales).astype(np.float32)
    integers, errors = np.empty_like(wanted), np.zeros_like(wanted)
    inputs = wanted.shape[1]
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        asked = wanted[:, start:end] + feedback[:, start:end, :start] @ errors[:, :start]
        for k in range(start, end):
            inside = feedback[:, k : k + 1, start:k] @ errors[:, start:k]
            target = asked[:, k - start] + inside[:, 0]
            integers[:, k] = np.clip(np.rint(target), *bounds)
            errors[:, k] = wanted[:, k] - integers[:, k]
    rounded = np.empty(integers.shape, np.int8)
    np.put_along_axis(rounded, order[:, :, np.newaxis], integers.astype(np.int8), 1)
    return rounded


def _by_falling_variance(covariance: np.ndarray) -> np.ndarray:
    """Returns per group its inputs by falling variance: most others can make up for the errors of the first."""
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    return np.argsort(-variance, axis=1, kind="stable")


def _damped(covariance: np.ndarray, damping: float) -> np.ndarray:
    """Returns the covariance with something added to every variance; the identity for inputs that never vary."""
    mean = np.diagonal(covariance, axis1=1, axis2=2).mean(axis=1)
    added = np.where(mean > 0, damping * mean, 1.0)
    return np.asarray(covariance + added[:, np.newaxis, np.newaxis] * np.eye(covariance.shape[1]))


def _unit_upper_factor(matrix: np.ndarray) -> np.ndarray:
    """Returns the unit upper triangular ``A`` of ``A @ D @ A.T``: a Cholesky factor in reverse order."""
    factor = np.linalg.cholesky(matrix[:, ::-1, ::-1])[:, ::-1, ::-1]
    return np.asarray(factor / np.diagonal(factor, axis1=1, axis2=2)[:, np.newaxis])
