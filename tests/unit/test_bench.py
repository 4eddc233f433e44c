"""The comparison that `make bench` ends with."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

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
) -> str:
    entry = {
        "model": "resnet18",
        "error": None,
        "audit": {"int8_ops": ops},
        "benchmark": [
            {
                "batch_size": 1,
                "isa": "avx512_core_vnni",
                "stable": stable,
                "ratio": each,
                "ratio_interval": [each - wide, each + wide],
                "engines": {"paddle_openvino": {"ratio": engine_ratio}},
            }
            for each, wide in ((ratio + 1, 0.5), (ratio, 0.1), (ratio - 1, 0.2))
        ],
    }
    (folder / "resnet18" / "benchmark").mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps({"matrix": [entry]}))
    scores = [[first_score, -1.0, 0.5], [0.0, 0.1, 0.2], [9.0, 9.0, 9.0]]
    samples = folder / "resnet18" / "benchmark" / "samples.json"
    samples.write_text(json.dumps(3 * [{"scores": scores}]))
    return str(folder)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, ""),
        ({"ratio": 2.6}, ""),
        ({"ratio": 9.0}, ""),
        ({"ratio": 2.5}, "ratio 2.50, recorded 3.00, least 2.55"),
        ({"engine_ratio": 3.5}, ""),
        ({"engine_ratio": 3.3}, "paddle_openvino: ratio 3.30, recorded 4.00, least 3.40"),
        ({"ops": 19}, "19 ops in INT8, recorded 20"),
        ({"first_score": 1.008}, ""),
        ({"first_score": 1.02}, "scores moved by 1.0% of their spread"),
    ],
)
def test_what_got_worse_is_told(
    compare: Any, tmp_path: Path, capsys: Any, changes: dict[str, Any], fault: str
) -> None:
    assert compare.main(write_run(tmp_path), "--record") == 0
    code = compare.main(write_run(tmp_path, **changes))
    assert code == (1 if fault else 0)
    assert (fault or "nothing worse") in capsys.readouterr().out


def test_a_disturbed_ratio_is_not_recorded_and_its_fall_is_told_as_such(
    compare: Any, tmp_path: Path, capsys: Any
) -> None:
    assert compare.main(write_run(tmp_path), "--record") == 0
    assert compare.main(write_run(tmp_path, ratio=2.0, stable=False), "--record") == 0
    name = "resnet18, batch 1, avx512_core_vnni"
    assert f"not recorded, as unstable: {name}" in capsys.readouterr().out
    assert json.loads(compare.RECORDED.read_bytes())[name]["ratio"] == 3.0
    assert compare.main(write_run(tmp_path, ratio=2.0, stable=False)) == 1
    assert "least 2.55; it was disturbed, so measure again" in capsys.readouterr().out


def test_nothing_is_compared_where_nothing_was_recorded(
    compare: Any, tmp_path: Path, capsys: Any
) -> None:
    assert compare.main(write_run(tmp_path)) == 0
    assert "not recorded for this instruction set" in capsys.readouterr().out


def test_scores_that_tell_nothing_are_refused(compare: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path)
    samples = tmp_path / "resnet18" / "benchmark" / "samples.json"
    samples.write_text(json.dumps([{"scores": [[1.0, 2.0, 3.0], [1.0, 2.0, 3.001]]}]))
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
