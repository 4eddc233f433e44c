"""Engines besides Paddle: their stages, and the error for missing packages."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_stages import CHAIN, make_manifest
from sample_manifest import check, document

from job import stages
from job.errors import MachineError, QuantizationError
from job.host import read_host
from job.manifest import Manifest
from job.pipeline import fingerprint
from job.stages import engine_agreement, engine_packages, other_engines, paddle_openvino
from job.stages.stage import StageOutput
from job.storage.digests import Digests

CORE = ("prepare", "baseline", "calibrate", "qat", "convert", "int8", "accuracy", "benchmark")


def stages_of(*names: str) -> dict[str, tuple[str, ...]]:
    """Return stage -> needed stages, for a manifest that lists the given engines."""
    manifest = check(document(benchmark__engines=["paddle", *names]))
    return {stage.name: stage.needs for stage in stages.stages_for(manifest)}


def test_no_stage_of_an_engine_that_is_not_asked_for() -> None:
    assert tuple(stages_of()) == CORE
    full = {stage.name: stage.needs for stage in stages.STAGES}
    assert all(full[name] == needs for name, needs in stages_of().items())


@pytest.mark.parametrize(
    "names",
    [("openvino",), ("onnxruntime",), ("onnxruntime", "openvino"), ("paddle_openvino",)],
)
def test_engines_bring_a_stage_that_what_runs_the_models_needs(names: tuple[str, ...]) -> None:
    found = stages_of(*names)
    assert set(found) == {*CORE, *names}
    order = list(found)
    for stage in ("accuracy", "benchmark"):
        assert set(found[stage]) - set(stages_of()[stage]) == set(names)
    assert all(order.index(need) < order.index(name) for name in order for need in found[name])


def test_the_engine_in_paddle_is_a_default_unless_paddle_lacks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def default_stages() -> set[str]:
        return {stage.name for stage in stages.stages_for(check(document()))}

    monkeypatch.setattr(engine_packages, "find_spec", lambda _: None)
    assert default_stages() == {*CORE, "paddle_openvino"}
    paddle = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(engine_packages, "find_spec", lambda _: paddle)
    assert default_stages() == set(CORE)
    (tmp_path / engine_packages.PLUGIN).parent.mkdir()
    (tmp_path / engine_packages.PLUGIN).touch()
    assert default_stages() == {*CORE, "paddle_openvino"}


def test_an_engine_without_a_model_is_not_used(tmp_path: Path) -> None:
    outputs = {
        "paddle_openvino": StageOutput(tmp_path, {"rejected": "its scores agree at 9.0 dB only"}),
        "openvino": StageOutput(tmp_path, {"bytes": 1}),
        "int8": StageOutput(tmp_path, {}),
    }
    assert engine_packages.built(outputs) == ["openvino"]


@pytest.mark.parametrize(
    ("decibels", "bound", "sound"),
    [(20, 20, True), (19.9, 20, False), (float("nan"), 20, False), (5, None, True)],
)
def test_a_model_below_the_bound_is_rejected(
    decibels: float, bound: float | None, sound: bool
) -> None:
    expected = nullcontext() if sound else pytest.raises(QuantizationError, match=r"20 dB\)$")
    with expected:
        engine_agreement.require_agreement(decibels, bound)


def test_an_engine_in_paddle_without_int8_kernels_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paddle_openvino.record_, "trace", lambda *_: [])
    with pytest.raises(QuantizationError, match="no INT8 kernel"):
        paddle_openvino.kernels_of(tmp_path / "model", (1, 8, 8))


def test_versions_of_an_engine_are_in_the_keys_of_what_uses_it() -> None:
    manifest = check(document(benchmark__engines=["paddle", "openvino"]))
    libraries = {stage.name: stage.libraries for stage in stages.stages_for(manifest)}
    users = {name for name, packages in libraries.items() if "openvino" in packages}
    assert users == {"openvino", "accuracy", "benchmark"}


def test_another_version_of_an_engine_changes_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = replace(CHAIN[0], libraries=("openvino",))
    found = []
    for version in ("2026.1", "2026.2"):
        monkeypatch.setattr(fingerprint.metadata, "version", lambda _, found=version: found)
        manifest, digests = make_manifest(tmp_path), Digests(tmp_path / "none.json")
        found.append(
            fingerprint.ingredients(
                stage, manifest, upstream={}, digests=digests, versions={}, host=read_host()
            )
        )
    assert fingerprint.changes(*found) == ("openvino 2026.1 -> 2026.2",)


def test_missing_packages_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_packages, "find_spec", lambda name: None if name == "onnx" else name)
    engine_packages.check_installed(["paddle", "openvino"])
    with pytest.raises(MachineError, match=r"/benchmark/engines: onnxruntime .* onnx\n") as caught:
        engine_packages.check_installed(["paddle", "onnxruntime"])
    assert "pip install '.[onnxruntime]'" in caught.value.hint


def test_extras_hold_what_the_engines_need() -> None:
    import tomllib

    text = Path(__file__).parents[3].joinpath("pyproject.toml").read_text()
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    for engine, packages in engine_packages.PACKAGES.items():
        named = {requirement.split("=")[0] for requirement in extras.get(engine, ())}
        assert named == set(packages)


class _Engine:
    """Converts by writing a file, or fails."""

    def __init__(self, error: QuantizationError | None) -> None:
        self.error = error

    def convert(self, _: Path, out: Path) -> dict[str, int]:
        (out / "model.onnx").write_text("")
        if self.error is not None:
            raise self.error
        return {"bytes": 0}

    def open_model(self, *_: object) -> "_Engine":
        return self

    def names(self) -> tuple[str, str]:
        return "x", "y"


@pytest.mark.parametrize(
    ("error", "decibels", "reason"),
    [
        (QuantizationError("cannot read Op"), 40.0, "cannot read Op"),
        (None, 19.9, "19.9 dB"),
        (None, float("nan"), "nan dB"),
        (None, 20.1, None),
    ],
)
def test_wrong_models_of_other_engines_are_not_written(
    error: QuantizationError | None,
    decibels: float,
    reason: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    def checked(manifest: Manifest, *_: object) -> dict[str, float]:
        engine_agreement.require_agreement(decibels, manifest.gates.int8_matches_fake)
        return {"signal_to_noise_db": decibels, "same_top1": 100.0}

    monkeypatch.setattr(engine_agreement, "checked_agreement", checked)
    inputs = {"convert": StageOutput(tmp_path / "fake", {})}
    events = SimpleNamespace(message=lambda *_: None)
    record = other_engines._converted(
        "onnxruntime", _Engine(error), check(document()), inputs, tmp_path, events
    )
    assert (tmp_path / "model.onnx").exists() == (reason is None)
    assert (reason or "40 dB") in (record["rejected"] or "40 dB")
    assert engine_packages.built({"onnxruntime": StageOutput(tmp_path, record)}) == (
        ["onnxruntime"] if reason is None else []
    )
