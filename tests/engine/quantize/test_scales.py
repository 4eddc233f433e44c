"""Scales, their calibration, and moving averages of quantization-aware training."""

import numpy as np
import pytest
import tiny

from job.data import packed
from job.engine.inference import predictor
from job.engine.quantize import pact as clipping
from job.engine.quantize import qat
from job.engine.quantize.calibration import Method
from job.engine.training import checkpoints, programs

pytestmark = pytest.mark.engine

# Only measures scales.
PLAIN = Method(gptq=False, correct_bias=False, equalize=False)


@pytest.fixture(scope="module")
def fp32(tmp_path_factory):
    return tiny.train_baseline(tmp_path_factory.mktemp("training") / "fp32", max_iters=24)


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_statistics_stay_bit_identical(fp32, tmp_path, freeze):
    record = tiny.train_qat(
        fp32, tmp_path / "qat", freeze=freeze, max_iters=2, checkpoint_seconds=0.0
    )
    assert record["freeze_bn_stats"] == freeze
    before = checkpoints.read_arrays(tmp_path / "qat/start.npz")
    before = {name: before[name] for name in checkpoints.read_arrays(fp32.out / "weights.npz")}
    after = tiny.trained_values(tmp_path / "qat")
    # A batch norm frozen after its gradient was made gives NaN.
    assert all(np.isfinite(values).all() for values in after.values())
    statistics = programs.batch_norm_statistics(fp32.session.classifier.evaluation)
    assert statistics
    same = [np.array_equal(before[name], after[name]) for name in sorted(statistics)]
    assert all(same) if freeze else not any(same)
    changed = [n for n in before.keys() - statistics if not np.array_equal(before[n], after[n])]
    assert len(changed) == len(before.keys() - statistics)


@pytest.mark.parametrize("pact", [False, True])
def test_calibration_trains_nothing(fp32, tmp_path, pact):
    counts = tiny.write_start(fp32, tmp_path, method=PLAIN, pact=pact)
    start = checkpoints.read_arrays(tmp_path / qat.START)
    for name, value in checkpoints.read_arrays(fp32.out / "weights.npz").items():
        np.testing.assert_array_equal(start[name], value)
    assert counts["activation_scales"] > 10
    parts = counts["error_parts"]
    assert 15 < parts["weights_db"] < 60
    assert 15 < parts["activations_db"] < 60
    (tmp_path / "fake").mkdir()
    qat.convert(
        tiny.open_tiny(), tiny.SETTINGS, best=tmp_path / qat.START, pact=pact,
        out=tmp_path / "fake",
    )  # fmt: skip
    images, _ = tiny.examples(64, 9)
    expected = tiny.scores(fp32.out / "model", "native", images)
    found = tiny.scores(tmp_path / "fake/model", predictor.FAKE_QUANTIZED, images)
    assert tiny.error(found, expected) < 0.1


def test_calibration_measures_what_no_bound_cuts_off(fp32, tmp_path):
    images, labels = tiny.examples(48, 4)
    calibration = tmp_path / "calibration.bin"
    packed.write(calibration, [(100 * images, labels)], shape=tiny.SHAPE, transform="made up")
    start = {}
    for pact in (False, True):
        tiny.write_start(fp32, tmp_path, method=PLAIN, pact=pact)
        start[pact] = checkpoints.read_arrays(tmp_path / qat.START)
    clipped = {name: name.replace(".clipped", "") for name in start[True] if ".clipped@s" in name}
    assert max(start[True][name][0] for name in clipped) > clipping.INITIAL_THRESHOLD
    for name, plain in clipped.items():
        # The two programs round differently, and ranges near the best have nearly its error.
        assert start[True][name] == pytest.approx(start[False][plain], rel=0.1), name


def is_range(name: str, value: np.ndarray) -> bool:
    """Whether a variable is the scale of an activation."""
    return name.endswith("@scale") and value.size == 1


@pytest.mark.full
def test_averages_move_at_the_rate_that_is_set(fp32, tmp_path):
    """A step moves the average by (1 - rate) of the distance to the measured value."""
    moved = {}
    for rate in (0.9, 0.75, 0.5):
        out = tmp_path / str(rate)
        settings = {**tiny.SETTINGS, "moving_rate": rate}
        tiny.train_qat(fp32, out, settings=settings, max_iters=1, checkpoint_seconds=0.0)
        best = tiny.trained_values(out)
        moved[rate] = {name: value for name, value in best.items() if is_range(name, value)}
    moving = [name for name in moved[0.9] if moved[0.9][name] != moved[0.5][name]]
    assert len(moving) > 5
    shares = [
        (moved[0.75][name] - moved[0.9][name]) / (moved[0.5][name] - moved[0.9][name])
        for name in moving
    ]
    # Not exact, because the measured values depend on the rates of the scales before.
    assert np.median(shares) == pytest.approx((0.9 - 0.75) / (0.9 - 0.5), rel=0.05)


def test_averages_of_weights_start_warm(fp32, tmp_path):
    settings = {**tiny.SETTINGS, "weight_quantize_type": "abs_max"}
    tiny.train_qat(fp32, tmp_path / "qat", settings=settings, max_iters=1)
    start = checkpoints.read_arrays(tmp_path / "qat/start.npz")
    weights = {n: start[n] for n in checkpoints.read_arrays(fp32.out / "weights.npz")}
    best = checkpoints.read_arrays(tmp_path / "qat/best.npz")
    scales_of = {name: best[f"{name}@scale"] for name in weights if f"{name}@scale" in best}
    assert len(scales_of) == 11
    for name, scale in scales_of.items():
        assert scale == pytest.approx(np.abs(weights[name]).max(), rel=1e-5), name
