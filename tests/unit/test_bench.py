"""The comparison that `make bench` ends with."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from job import stats
from job.manifest import entries, load

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("compare", BENCH / "compare.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RECORDED", tmp_path / "recorded.json")
    return module


def write_run(
    folder: Path,
    ratio: float = 3.0,
    ops: int = 20,
    first_score: float = 1.0,
    *,
    stable: bool = True,
    engine_ratio: float = 4.0,
    half: float = 0.01,
    cpu: str = "Xeon",
    engine: str = "paddle_openvino",
) -> str:
    """A run of one model that measured a ratio twice; ``half`` is half an interval, in shares."""
    entry = {
        "model": "resnet18",
        "error": None,
        "audit": {"int8_ops": ops},
        "benchmark": [
            {
                "batch_size": 1,
                "isa": "avx512_core_vnni",
                "stable": stable,
                **speedup(ratio * luck, half),
                "engines": {engine: speedup(engine_ratio / luck, half)},
            }
            for luck in (1.02, 1 / 1.02)
        ],
    }
    (folder / "resnet18" / "benchmark").mkdir(parents=True, exist_ok=True)
    host = {"cpu_model": cpu, "allocator": "glibc"}
    (folder / "report.json").write_text(json.dumps({"host": host, "matrix": [entry]}))
    scores = [[first_score, -1.0, 0.5], [0.0, 0.1, 0.2], [9.0, 9.0, 9.0]]
    samples = folder / "resnet18" / "benchmark" / "samples.json"
    raw = {"scores": scores, "samples": [{"rounds": 12 * [[[1.0]]]}]}
    samples.write_text(json.dumps(2 * [raw]))
    return str(folder)


def speedup(ratio: float, half: float) -> dict[str, Any]:
    """A ratio whose interval has a half width in shares of it."""
    return {"ratio": ratio, "ratio_interval": [ratio * (1 - half), ratio * (1 + half)]}


@pytest.mark.parametrize(
    ("changes", "code", "fault"),
    [
        ({}, 0, "nothing worse"),
        ({"ratio": 2.91}, 0, "nothing worse"),
        ({"ratio": 9.0}, 0, "nothing worse"),
        ({"ratio": 2.85}, 1, "WORSE: resnet18, batch 1, avx512_core_vnni: ratio 2.85"),
        ({"engine_ratio": 3.88}, 0, "nothing worse"),
        ({"engine_ratio": 3.8}, 1, "paddle_openvino: ratio 3.80, recorded 4.00"),
        ({"engine": "openvino"}, 1, "paddle_openvino: recorded 4.00, but the run lacks"),
        ({"half": 0.11}, 2, "too imprecise to exclude a loss of 5%"),
        ({"ratio": 2.85, "half": 0.11}, 2, "too imprecise to exclude a loss of 5%"),
        ({"ratio": 2.0, "half": 0.11}, 1, "WORSE"),
        ({"ratio": 3.6, "engine_ratio": 4.8, "half": 0.11}, 0, "nothing worse"),
        ({"ratio": 2.6, "cpu": "EPYC"}, 0, "only losses above 15% are found"),
        ({"ratio": 2.5, "cpu": "EPYC"}, 1, "2.55"),
        ({"ops": 19}, 1, "19 ops in INT8, recorded 20"),
        ({"first_score": 1.008}, 0, "nothing worse"),
        ({"first_score": 1.02}, 1, "1.0%"),
    ],
)
def test_what_got_worse_is_told(
    compare: Any, tmp_path: Path, capsys: Any, changes: dict[str, Any], code: int, fault: str
) -> None:
    assert compare.main(write_run(tmp_path), "--record") == 0
    assert compare.main(write_run(tmp_path, **changes)) == code
    assert fault in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lost", "certain", "passed"),
    [(0.0, (0.0, 0.005), (0.98, 1.0)), (0.05, (0.9, 1.0), (0.0, 0.05))],
)
def test_a_loss_of_five_percent_is_caught_and_noise_is_not(
    compare: Any, lost: float, certain: tuple[float, float], passed: tuple[float, float]
) -> None:
    """Rounds differ by 2%, as processes do; the run compares 40 ratios."""
    random = np.random.default_rng(0)

    def measured(ratio: float) -> dict[str, Any]:
        found = stats.paired_ratio(np.ones(12), ratio * np.exp(random.normal(0, 0.02, 12)))
        ratios = {"paddle": {"ratio": found.value, "interval": found.interval}}
        return {"machine": "Xeon", "rounds": 12, "ratios": ratios}

    verdicts = [compare.loss(measured(1 - lost), measured(1), "paddle", 40) for _ in range(250)]
    share = sum(verdict is not None and verdict[0] for verdict in verdicts) / len(verdicts)
    assert certain[0] <= share <= certain[1]
    assert passed[0] <= verdicts.count(None) / len(verdicts) <= passed[1]


def test_a_disturbed_ratio_is_not_recorded_and_its_fall_is_told_as_such(
    compare: Any, tmp_path: Path, capsys: Any
) -> None:
    assert compare.main(write_run(tmp_path), "--record") == 0
    assert compare.main(write_run(tmp_path, ratio=2.0, stable=False), "--record") == 0
    name = "resnet18, batch 1, avx512_core_vnni"
    assert capsys.readouterr().out.splitlines()[-1].endswith(name)
    assert json.loads(compare.RECORDED.read_bytes())[name]["ratios"]["paddle"]["ratio"] == 3.0
    assert compare.main(write_run(tmp_path, ratio=2.0, stable=False)) == 1
    assert "it was disturbed, so measure again" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        ({"ratio": 2.85}, {"ratio": 2.85}, 1),
        ({"ratio": 2.85}, {}, 0),
        ({"ratio": 2.85}, {"engine_ratio": 3.8}, 0),
        ({"ratio": 2.85}, {"half": 0.11}, 2),
        ({"half": 0.11}, {}, 0),
        ({"ops": 19}, {"ops": 19}, 1),
    ],
)
def test_only_what_two_measurements_find_is_a_fault(
    compare: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: dict[str, Any],
    second: dict[str, Any],
    code: int,
) -> None:
    assert compare.main(write_run(tmp_path), "--record") == 0
    run = write_run(tmp_path, **first)
    assert compare.main(run) != 0
    commands: list[list[str]] = []

    def measure(command: Sequence[str], *, check: bool) -> None:
        commands.append([*command])
        write_run(tmp_path, **second)

    monkeypatch.setattr(compare.subprocess, "run", measure)
    assert compare.main(run, "--again") == code
    assert [command[3] for command in commands] == ["run", "merge"]
    assert commands[0][-4:] == ["--index", "0", "--from", "benchmark"]


def test_the_stable_rows_of_an_instruction_set_are_averaged(compare: Any, tmp_path: Path) -> None:
    run = Path(write_run(tmp_path))
    report = json.loads((run / "report.json").read_bytes())
    rows = report["matrix"][0]["benchmark"]
    for row, ratio in zip(rows, (4.0, 1.0), strict=True):
        row.update(speedup(ratio, 0.01))
    (run / "report.json").write_text(json.dumps(report))
    (both,) = compare.figures(run).values()
    assert both["ratios"]["paddle"]["ratio"] == 2.0
    low, high = both["ratios"]["paddle"]["interval"]
    assert high / low == pytest.approx((1.01 / 0.99) ** 2**-0.5, rel=1e-3)
    rows[1]["stable"] = False
    (run / "report.json").write_text(json.dumps(report))
    (first,) = compare.figures(run).values()
    assert first["stable"]
    assert first["ratios"]["paddle"]["ratio"] == 4.0


def test_nothing_is_compared_where_nothing_was_recorded(
    compare: Any, tmp_path: Path, capsys: Any
) -> None:
    assert compare.main(write_run(tmp_path)) == 0
    assert "not recorded for this instruction set" in capsys.readouterr().out


def test_scores_that_tell_nothing_are_refused(compare: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path)
    samples = tmp_path / "resnet18" / "benchmark" / "samples.json"
    raw = json.loads(samples.read_bytes())[0] | {"scores": [[1.0, 2.0, 3.0], [1.0, 2.0, 3.001]]}
    samples.write_text(json.dumps([raw]))
    with pytest.raises(SystemExit, match="do not depend on the image"):
        compare.main(run)


def test_rows_without_recorded_scores_still_hold_their_ratio(
    compare: Any, tmp_path: Path, capsys: Any
) -> None:
    assert compare.main(write_run(tmp_path), "--record") == 0
    recorded = json.loads(compare.RECORDED.read_bytes())
    bare = {name: {**row, "scores": None} for name, row in recorded.items()}
    compare.RECORDED.write_text(json.dumps(bare))
    assert compare.main(write_run(tmp_path, first_score=8.0)) == 0
    assert "its scores are not recorded and not compared" in capsys.readouterr().out
    assert compare.main(write_run(tmp_path, ratio=2.0)) == 1


def test_manifest_and_recorded_figures_belong_together() -> None:
    names = {entry.name for entry in load(str(BENCH / "manifest.json")).matrix or ()}
    assert len(entries(load(str(BENCH / "manifest.json")))) == len(names)
    recorded = json.loads((BENCH / "recorded.json").read_bytes())
    assert {name.split(",")[0] for name in recorded} == names
