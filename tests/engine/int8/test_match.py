"""The comparison of INT8 and fake-quantized models detects wrong models, and the search repairs."""

from pathlib import Path

import pytest
import tiny

from job.engine.int8 import build as int8
from job.engine.int8 import weights
from job.engine.int8.expected import expected_outputs, ops_of
from job.manifest import parse
from job.stages import int8 as stage
from job.stages.int8_match import Match, record_of

pytestmark = pytest.mark.engine


def match_of(made, folder, skip_ops=(), *, bound=20, halves_weights=False, **int8_keys):
    document = {
        "version": 1,
        "name": "tiny",
        "model": {"name": "convnet", "classes": 10, "input_shape": [1, 8, 8]},
        "data": {"format": "digits", "mean": [0.5], "std": [0.5]},
        "int8": int8_keys,
        "gates": {"int8_matches_fake": bound},
    }
    manifest = parse(document, "m.json", Path("/"))
    trial = folder / "trial"
    fake, fp32 = made.folder / "fake", (made.fp32,)
    events = tiny.News()
    return Match(manifest, fake, made.images, trial, events, skip_ops, halves_weights, fp32)


def quantized(name, folder):
    folder.mkdir()
    session = tiny.open_tiny(name=None, callable_=f"own_networks:{name}", classes=10)
    return tiny.quantize(session, folder)


def lose_factors(monkeypatch):
    monkeypatch.setattr(int8, "write_factors_as_constants", lambda *_: 0)


def restore_wrong_axis(monkeypatch):
    monkeypatch.setattr(weights, "trained_matrices", lambda _: {})


def repack_fp32_weights(monkeypatch):
    def has_scales(op):
        return any(a.name == "Scale_weights" for a in op.attrs)

    monkeypatch.setattr(weights, "is_int8", has_scales)


FAULTS = {
    "factor": (lose_factors, "factor_between", ()),
    "square": (restore_wrong_axis, "square_matrix", ()),
    "depthwise": (repack_fp32_weights, "separable", ("depthwise_conv2d",)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_detected_if_their_fix_is_reverted(fault, tmp_path, monkeypatch):
    revert, network, skip_ops = FAULTS[fault]
    made = quantized(network, tmp_path / "made")
    match = match_of(made, tmp_path, skip_ops)
    sound = match.agree(())
    revert(monkeypatch)
    assert match.agree(()) < 20 <= sound


def test_search_finds_the_op_at_fault(tmp_path, monkeypatch):
    made = quantized("factor_between", tmp_path / "made")
    lose_factors(monkeypatch)
    match = match_of(made, tmp_path)
    audit, found, kept = stage.build(match, tmp_path)
    names = ops_of(made.folder / "fake", tiny.SETTINGS["quantize_op_types"])
    assert len(kept) == 1
    assert set(kept) < set(names)
    assert match.is_enough(found)
    assert kept[0] in {left["op"] for left in audit.left_in_fp32}
    reasons = {
        left["op"]: left["reason"] for left in stage.explained_by_match(audit.left_in_fp32, kept)
    }
    assert "fake-quantized" in reasons[kept[0]]


def test_without_repair_a_wrong_model_is_kept_for_the_gate(tmp_path, monkeypatch):
    made = quantized("factor_between", tmp_path / "made")
    lose_factors(monkeypatch)
    match = match_of(made, tmp_path, repair=False)
    _, found, kept = stage.build(match, tmp_path)
    assert kept == []
    assert not match.is_enough(found)


def test_model_that_cannot_be_built_is_repaired(tmp_path, monkeypatch):
    made = quantized("factor_between", tmp_path / "made")
    build = int8.build

    def fails_with_first(*given, skip_ops=(), **options):
        if "conv2d_0.tmp_0" not in skip_ops:
            raise int8.QuantizationError("Paddle failed", "no hint")
        return build(*given, skip_ops=skip_ops, **options)

    monkeypatch.setattr(int8, "build", fails_with_first)
    for bound in (20, None):
        _, found, kept = stage.build(match := match_of(made, tmp_path, bound=bound), tmp_path)
        assert kept == ["conv2d_0.tmp_0"]
        assert match.is_enough(found)
    with pytest.raises(int8.QuantizationError):
        stage.build(match_of(made, tmp_path, repair=False), tmp_path)


def test_expected_outputs_follow_the_ops_in_fp32(tmp_path):
    made = quantized("factor_between", tmp_path / "made")
    types = tiny.SETTINGS["quantize_op_types"]
    names = ops_of(made.folder / "fake", types)
    (same,) = expected_outputs(made.folder / "fake", made.images, types)
    (whole,) = expected_outputs(made.folder / "fake", made.images, types, skip_ops=names)
    assert (same == made.fake).all()
    assert 0 < tiny.error(whole, made.fp32) < made.fake_error


def test_limit_that_no_model_reaches_is_left_to_the_gate(tmp_path, monkeypatch):
    made = quantized("factor_between", tmp_path / "made")
    trained = Match.trained

    def larger(*given, **options):
        return tuple(1.01 * values for values in trained(*given, **options))

    monkeypatch.setattr(Match, "trained", larger)
    audit, found, kept = stage.build(match := match_of(made, tmp_path, bound=100), tmp_path)
    assert not match.is_enough(found)
    assert audit.int8_ops > 0
    assert record_of(match, found, found, kept).keys().isdisjoint({"halved_fake"})


def test_halved_weights_explain_a_low_agreement_without_a_search(tmp_path):
    made = quantized("factor_between", tmp_path / "made")
    match = match_of(made, tmp_path, bound=100, halves_weights=True)
    _, found, kept = stage.build(match, tmp_path)
    record = record_of(match, found, found, kept)
    assert kept == match.events.messages == []
    assert 20 < record["halved_fake"]["signal_to_noise_db"] < 60


def test_halved_weights_do_not_explain_an_op_at_fault(tmp_path, monkeypatch):
    made = quantized("factor_between", tmp_path / "made")
    lose_factors(monkeypatch)
    match = match_of(made, tmp_path, bound=100, halves_weights=True)
    _, found, kept = stage.build(match, tmp_path)
    assert len(kept) == 1
    assert match.reachable <= found.signal_to_noise_db < 100
