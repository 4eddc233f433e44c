"""GPTQ: rounds the weights of a layer so that its output changes least.

Source: Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers" (arXiv:2210.17323). Weights are rounded one input after the
other. The rounding error of each is compensated by the weights that are not rounded yet.
"""

import itertools
from collections.abc import Sequence

import numpy as np

LEVELS = 127
# Added to the diagonal, as a share of its mean. It makes a matrix of few samples invertible.
DAMPING = 0.02
# Inputs whose errors are passed on together.
COLUMNS = 128
# Largest number of inputs of a matrix: a 3x3 convolution of 512 channels has 4,608. Their matrix
# takes 85 MB, and its inverse takes seconds.
LARGEST = 4608


def blocks_of(inputs: int) -> list[slice]:
    """Return the inputs of a layer in blocks that one matrix can describe."""
    count = -(-inputs // LARGEST)
    bounds = [inputs * i // count for i in range(count + 1)]
    return [slice(*pair) for pair in itertools.pairwise(bounds)]


def round_weights(
    matrix: np.ndarray, covariances: Sequence[np.ndarray], scales: np.ndarray
) -> np.ndarray:
    """Round the weights of a layer to steps of their scales.

    If the largest weight of an output equals the scale of the output, the weight keeps its value,
    because oneDNN computes the scale from this weight.

    Args:
        matrix: weights, float32 [groups, outputs, inputs].
        covariances: covariance of the inputs of each block of :func:`blocks_of`, float32
            [groups, inputs of the block, inputs of the block].
        scales: largest magnitude of each output, float32 [groups, outputs]; above 0.

    Returns:
        Steps, int8 [groups, outputs, inputs], from -127 to 127.
    """
    steps = (scales / LEVELS)[..., np.newaxis]
    largest = np.argmax(np.abs(matrix), axis=2)
    at_end = np.take_along_axis(np.abs(matrix), largest[..., np.newaxis], 2)[..., 0] >= scales
    rounded = np.empty(matrix.shape, np.int8)
    for block, covariance in zip(blocks_of(matrix.shape[2]), covariances, strict=True):
        inside = at_end & (largest >= block.start) & (largest < block.stop)
        kept = np.where(inside, largest - block.start, -1)
        for group in range(len(matrix)):
            weights = (matrix[group, :, block] / steps[group]).astype(np.float32)
            rounded[group, :, block] = _round_block(weights, covariance[group], kept[group])
    return rounded


def _round_block(weights: np.ndarray, covariance: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Round weights [outputs, inputs], given in steps.

    Args:
        weights: changed by the function.
        covariance: covariance of the inputs.
        kept: the input of each output whose weight has the largest magnitude; -1 for none.
    """
    order = np.argsort(-np.diagonal(covariance), kind="stable")
    upper = inverse_factor(covariance[np.ix_(order, order)])
    weights = weights[:, order]
    kept = np.where(kept >= 0, np.argsort(order)[kept], -1)
    rounded = np.empty(weights.shape, np.int8)
    for start in range(0, weights.shape[1], COLUMNS):
        stop = min(start + COLUMNS, weights.shape[1])
        errors = np.empty((len(weights), stop - start), np.float32)
        for column in range(start, stop):
            values = weights[:, column]
            steps = np.clip(np.rint(values), -LEVELS, LEVELS)
            steps = np.where(kept == column, np.copysign(LEVELS, values), steps)
            rounded[:, column] = steps
            error = (values - steps) / upper[column, column]
            errors[:, column - start] = error
            weights[:, column + 1 : stop] -= np.outer(error, upper[column, column + 1 : stop])
        weights[:, stop:] -= errors @ upper[start:stop, stop:]
    restored = np.empty_like(rounded)
    restored[:, order] = rounded
    return restored


def inverse_factor(covariance: np.ndarray) -> np.ndarray:
    """Return the upper triangular U with ``U.T @ U`` equal to the inverse of a damped covariance.

    A constant factor of the covariance is ignored, because the rounding does not depend on it.

    Args:
        covariance: symmetric matrix [n, n] without negative eigenvalues.

    Raises:
        LinAlgError: the damped covariance cannot be inverted.
    """
    # Imported here because the import takes half a second, and few processes round weights.
    from scipy.linalg import lapack

    mean = float(np.mean(np.diagonal(covariance)))
    if mean <= 0.0:
        return np.eye(len(covariance), dtype=np.float32)
    # A matrix takes up to 85 MB, so each is freed when the next exists.
    scaled = (covariance / mean).astype(np.float32)
    del covariance
    # Reversed in both directions, the lower factor of the matrix is the upper factor A with
    # A @ A.T = matrix. Its inverse is U.
    factor = _cholesky(scaled[::-1, ::-1])[::-1, ::-1]
    del scaled
    factor = np.asfortranarray(factor)
    inverse, failed = lapack.strtri(factor, lower=0, overwrite_c=1)
    if failed:
        raise np.linalg.LinAlgError(f"the factor of the covariance is singular at row {failed}")
    return np.triu(inverse)


def _cholesky(matrix: np.ndarray) -> np.ndarray:
    """Return the lower factor of a matrix with the least damping that makes it definite.

    The matrix is a sum of rounded products, so it can have small negative eigenvalues.
    """
    damping = DAMPING
    while True:
        damped = matrix.copy()
        damped[np.diag_indices(len(damped))] += damping
        try:
            return np.linalg.cholesky(damped)
        except np.linalg.LinAlgError:
            # Twice the largest sum of a row is more than enough.
            if damping > 2 * np.abs(matrix).sum(axis=1).max():
                raise
            damping *= 10
