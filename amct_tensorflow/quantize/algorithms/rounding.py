"""Rounds weights so that the variance of the output's error is small, by the second moments of the inputs.

Rounding changes a layer's output ``x @ W`` by ``x @ E``, with ``E`` the errors of the weights. The mean of that goes
into the bias (local bias correction). What remains is its variance, ``trace(E.T @ H @ E)`` with ``H`` the covariance of
``x``, its *centred* second moments (``SecondMoments``).

Rounding to the nearest integer minimizes the error of each weight. The error of the output can be smaller: errors of
inputs that vary together can cancel. So the weights are rounded one input after the other, and each is first corrected
for the errors so far. With ``H = A @ D @ A.T``, ``A`` unit upper triangular and ``D`` diagonal,

    q[k] = round(w[k] + A[:k, k] @ (w[:k] - q[:k]))

in units of the scale. This is optimal brain quantization in a fixed order (Frantar and Alistarh 2022, "Optimal Brain
Compression"; Frantar et al. 2022, "GPTQ"), in the form of Chee et al. 2023 ("QuIP", theorem 6), which needs neither an
inverse nor updated weights: each group costs one Cholesky factorization and as many products as the layer itself takes
for ``inputs`` rows.

Something is added to the variances, as little as the covariance can be trusted; see ``second_moments``.
"""

import numpy as np

from amct_tensorflow.quantize.algorithms.second_moments import DAMPING

# From so many inputs on, matrices are factorized in float32, which takes half the time and memory. With ``DAMPING``
# their condition is below 11 times the number of inputs.
SINGLE_FROM = 1536

# Errors are passed on to the inputs of the same block one by one, and to later blocks by one product of matrices.
# Blocks are so small that BLAS does not spread the many little products over threads.
_BLOCK = 32


def round_to_second_moments(
    weights: np.ndarray,
    scales: np.ndarray,
    covariance: np.ndarray,
    damping: float | np.ndarray = DAMPING,
    bounds: tuple[int, int] = (-128, 127),
) -> np.ndarray:
    """Rounds weights so that the variance of the output's error is small.

    Args:
        weights: [groups, inputs, outputs].
        scales: step of the integers; broadcasts to [groups, 1, outputs].
        covariance: of the inputs, [groups, inputs, inputs], symmetric and positive semidefinite.
        damping: the share of the mean variance that is added to every variance, above 0, one or per group: how little
            the covariance is trusted.
        bounds: the least and the greatest integer there may be.

    Returns:
        int8 [groups, inputs, outputs].
    """
    order = _by_falling_variance(covariance)
    groups = np.arange(len(order))[:, np.newaxis, np.newaxis]
    ordered = covariance[groups, order[:, :, np.newaxis], order[:, np.newaxis]]
    _damp(ordered, damping)
    feedback = _unit_upper_factor(ordered).astype(np.float32, copy=False).transpose(0, 2, 1).copy()
    del ordered
    wanted = (np.take_along_axis(weights, order[:, :, np.newaxis], 1) / scales).astype(np.float32)
    integers, errors = np.empty_like(wanted), np.zeros_like(wanted)
    lowest, highest = map(np.float32, bounds)  # np.clip takes longer than all the rest for few outputs
    inputs = wanted.shape[1]
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        asked = wanted[:, start:end] + feedback[:, start:end, :start] @ errors[:, :start]
        for k in range(start, end):
            inside = feedback[:, k : k + 1, start:k] @ errors[:, start:k]
            target = asked[:, k - start] + inside[:, 0]
            integers[:, k] = np.minimum(np.maximum(np.rint(target), lowest), highest)
            errors[:, k] = wanted[:, k] - integers[:, k]
    rounded = np.empty(integers.shape, np.int8)
    np.put_along_axis(rounded, order[:, :, np.newaxis], integers.astype(np.int8), 1)
    return rounded


def _by_falling_variance(covariance: np.ndarray) -> np.ndarray:
    """Returns per group its inputs by falling variance: most others can make up for the errors of the first."""
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    return np.argsort(-variance, axis=1, kind="stable")


def _damp(covariance: np.ndarray, damping: float | np.ndarray) -> None:
    """Adds something to every variance; inputs that never vary get the identity."""
    mean = np.diagonal(covariance, axis1=1, axis2=2).mean(axis=1)
    added = np.where(mean > 0, damping * mean, 1.0)
    diagonal = np.arange(covariance.shape[1])
    covariance[:, diagonal, diagonal] += added[:, np.newaxis]


def _unit_upper_factor(matrix: np.ndarray) -> np.ndarray:
    """Returns the unit upper triangular ``A`` of ``A @ D @ A.T``: a Cholesky factor in reverse order."""
    turned = matrix[:, ::-1, ::-1]
    factor = _single_cholesky(turned) if matrix.shape[1] >= SINGLE_FROM else np.linalg.cholesky(turned)
    factor = factor[:, ::-1, ::-1]
    return np.asarray(factor / np.diagonal(factor, axis1=1, axis2=2)[:, np.newaxis])


def _single_cholesky(matrix: np.ndarray) -> np.ndarray:
    """Returns the Cholesky factors in float32, in float64 if that loses the last positive pivot."""
    single = matrix.astype(np.float32)
    try:
        for one in single:
            one[:] = cholesky_by_blocks(one)
        return single
    except np.linalg.LinAlgError:
        return np.linalg.cholesky(matrix)


# Columns of a block; with 32 to 128 it takes about as long.
_COLUMNS = 64


def cholesky_by_blocks(matrix: np.ndarray) -> np.ndarray:
    """Returns the lower triangular ``L`` with ``L @ L.T`` the matrix, by products of matrices for nearly all of it.

    LAPACK, as NumPy has it, takes four times as long for 1,536 inputs in float32, and as long for a few hundred.

    Args:
        matrix: symmetric and positive definite, floats [n, n].

    Raises:
        np.linalg.LinAlgError: a pivot is not positive.
    """
    factor = np.zeros_like(matrix)
    for start in range(0, len(matrix), _COLUMNS):
        end = start + _COLUMNS
        left = matrix[start:, start:end] - factor[start:, :start] @ factor[start:end, :start].T
        corner = np.linalg.cholesky(left[:_COLUMNS])
        factor[start:end, start:end] = corner
        factor[end:, start:end] = left[_COLUMNS:] @ np.linalg.inv(corner).T
    return factor
