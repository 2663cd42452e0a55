"""Rounding by second moments: which of its neighbouring integers each weight becomes.

Rounding to the nearest integer makes every weight's own error smallest. What counts is the error of the layer's output,
``trace(E.T @ H @ E)`` with ``E`` the errors of the weights and ``H`` the covariance of the inputs (``SecondMoments``):
errors of inputs that rise and fall together can cancel. So the weights are rounded one input after the other, and
each takes in what the errors so far ask of it. With ``H = A @ D @ A.T``, ``A`` unit upper triangular and ``D``
diagonal,

    q[k] = round(w[k] + A[:k, k] @ (w[:k] - q[:k]))

in units of the scale. This is optimal brain quantization in a fixed order (Frantar and Alistarh 2022, "Optimal Brain
Compression"; Frantar et al. 2022, "GPTQ"), in the form of Chee et al. 2023 ("QuIP", theorem 6), which needs neither an
inverse nor updated weights: each group costs one Cholesky factorization and as many products as the layer itself takes
for ``inputs`` rows.
"""

import numpy as np

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
    """Returns per group the order of its inputs: those that vary most pass their errors on to the most others."""
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    return np.argsort(-variance, axis=1, kind="stable")


def _damped(covariance: np.ndarray, damping: float) -> np.ndarray:
    """Returns the covariance with something added to every variance; the identity for inputs that never vary."""
    mean = np.diagonal(covariance, axis1=1, axis2=2).mean(axis=1)
    added = np.where(mean > 0, damping * mean, 1.0)
    return np.asarray(covariance + added[:, np.newaxis, np.newaxis] * np.eye(covariance.shape[1]))


def _unit_upper_factor(matrix: np.ndarray) -> np.ndarray:
    """Returns the unit upper triangular ``A`` of ``A @ D @ A.T``: that of Cholesky, read backwards."""
    factor = np.linalg.cholesky(matrix[:, ::-1, ::-1])[:, ::-1, ::-1]
    return np.asarray(factor / np.diagonal(factor, axis1=1, axis2=2)[:, np.newaxis])
