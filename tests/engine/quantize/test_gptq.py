"""GPTQ and its factor, on matrices."""

import numpy as np
import pytest

from job.engine.quantize import gptq

pytestmark = pytest.mark.engine


def covariance(inputs: int, samples: int, seed: int) -> np.ndarray:
    """Covariance of correlated samples."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((samples, inputs)) @ random.standard_normal((inputs, inputs))
    return np.cov(values.T).astype("float32").reshape(1, inputs, inputs)


def weights_of(outputs: int, inputs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    matrix = np.random.default_rng(seed).standard_normal((1, outputs, inputs)).astype("float32")
    return matrix, np.abs(matrix).max(axis=2)


def output_error(matrix: np.ndarray, steps: np.ndarray, scales: np.ndarray, h: np.ndarray) -> float:
    """Variance of the change of the outputs, summed over the outputs."""
    change = (steps * (scales / 127)[..., np.newaxis] - matrix)[0]
    return float(np.einsum("oi,ij,oj->", change, h[0], change))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("inputs", [1, 9, 27, 300])
def test_outputs_change_less_than_by_the_nearest_step(inputs: int, seed: int) -> None:
    h = covariance(inputs, 4 * inputs + 8, seed)
    matrix, scales = weights_of(16, inputs, seed)
    steps = gptq.round_weights(matrix, [h], scales)
    nearest = np.rint(matrix / (scales / 127)[..., np.newaxis])
    found, expected = (output_error(matrix, s, scales, h) for s in (steps, nearest))
    assert found < expected if inputs > 1 else found == expected
    assert inputs < 27 or found < 0.8 * expected
    assert np.abs(steps.astype(int)).max() == 127


@pytest.mark.parametrize("seed", range(5))
def test_the_largest_weight_of_each_output_keeps_its_value(seed: int) -> None:
    h = covariance(27, 100, seed)
    matrix, scales = weights_of(32, 27, seed)
    steps = gptq.round_weights(matrix, [h], scales)
    largest = np.abs(matrix).argmax(axis=2)
    kept = np.take_along_axis(steps, largest[..., np.newaxis], 2)[..., 0]
    expected = np.sign(np.take_along_axis(matrix, largest[..., np.newaxis], 2)[..., 0]) * 127
    np.testing.assert_array_equal(kept, expected)


def test_one_scale_for_all_weights() -> None:
    matrix, _ = weights_of(8, 27, 0)
    h, scales = covariance(27, 100, 0), np.full((1, 8), np.abs(matrix).max(), "float32")
    steps = gptq.round_weights(matrix, [h], scales)
    assert (np.abs(steps[np.abs(matrix) == scales.max()]) == 127).all()
    nearest = np.rint(matrix / (scales / 127)[..., np.newaxis])
    errors = [output_error(matrix, each, scales, h) for each in (steps, nearest)]
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("dead", ["inputs", "some inputs", "outputs"])
def test_zeros(dead: str) -> None:
    h, (matrix, scales) = covariance(18, 60, 0), weights_of(4, 18, 0)
    if dead == "outputs":
        matrix[0, 1:3] = 0
        scales = np.maximum(np.abs(matrix).max(axis=2), 1e-8).astype("float32")
    else:
        gone = slice(None) if dead == "inputs" else slice(3, 9)
        h[:, gone] = 0
        h[:, :, gone] = 0
    steps = gptq.round_weights(matrix, [h], scales)
    if dead == "outputs":
        assert not steps[0, 1:3].any()
    if dead == "inputs":
        np.testing.assert_array_equal(steps, np.rint(matrix / (scales / 127)[..., np.newaxis]))


def test_the_factor_is_that_of_the_inverse() -> None:
    h = covariance(40, 200, 1)[0].astype("float64")
    upper = gptq.inverse_factor(h).astype("float64")
    damped = h / np.trace(h) * 40 + gptq.DAMPING * np.eye(40)
    np.testing.assert_allclose(upper.T @ upper @ damped, np.eye(40), atol=1e-3)
    assert not np.tril(upper, -1).any()


def test_a_matrix_with_negative_eigenvalues_is_damped_more() -> None:
    h = covariance(18, 60, 0)
    values, vectors = np.linalg.eigh(h[0])
    values[:4] = -0.3 * values.max()
    h[0] = vectors @ np.diag(values) @ vectors.T
    matrix, scales = weights_of(4, 18, 0)
    steps = gptq.round_weights(matrix, [h], scales)
    change = steps * (scales / 127)[..., np.newaxis] - matrix
    assert np.abs(change).max() < 0.5 * scales.max()


def test_large_layers_are_rounded_in_blocks(monkeypatch) -> None:
    monkeypatch.setattr(gptq, "LARGEST", 10)
    blocks = gptq.blocks_of(27)
    assert [block.stop - block.start for block in blocks] == [9, 9, 9]
    h, (matrix, scales) = covariance(27, 100, 2), weights_of(6, 27, 2)
    steps = gptq.round_weights(matrix, [h[:, b, b] for b in blocks], scales)
    for block in blocks:
        inside = np.abs(matrix).argmax(axis=2)
        only = (inside >= block.start) & (inside < block.stop)
        assert (np.abs(steps[:, :, block]).max(axis=2)[only] == 127).all()
