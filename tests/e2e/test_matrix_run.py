"""Several models from one manifest, with and without data, through the command line."""

import json
import re
from typing import Any

import pytest
from tiny_run import MANIFEST, STAGES, Run, changed, job, report_of

pytestmark = pytest.mark.e2e

SECOND_RUN_CPU_S = 3.0
BENCHMARK = {"min_seconds": 0.1, "min_samples": 2, "rounds": 2, "warmup_batches": 1}
SYNTHETIC = {
    "data": {"format": "synthetic", "mean": [0.5], "std": [0.5], "calibration_images": 20},
    "baseline.train": {},
}
MATRIX = [
    {"name": "missing", "set": {"model.weights": "none.pdparams"}},
    {
        "name": "synthetic",
        "set": SYNTHETIC,
        "published": {
            "fp32_images_per_second": 1,
            "int8_images_per_second": 0.001,
            "int8_top1": 70.5,
        },
    },
]


@pytest.fixture(scope="module")
def tables(needs_vnni: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run in which nothing is quantized by training, and one model has no weights."""
    folder = tmp_path_factory.mktemp("matrix")
    document = changed(MANIFEST, train={"max_iters": 0}, benchmark=BENCHMARK, matrix=MATRIX)
    (folder / "m.json").write_text(json.dumps(document))
    return Run(folder, job("run", "m.json", cwd=folder, expect=4))


def entry(run: Run, name: str) -> dict[str, Any]:
    return next(e for e in report_of(run.output)["matrix"] if e["model"] == name)


def test_synthetic_images_measure_speed_alone(tables: Run) -> None:
    found = entry(tables, "synthetic")
    assert (found["status"], found["accuracy"]) == ("passed", None)
    assert found["audit"]["int8_ops"] > 5
    assert [row["batch_size"] for row in found["benchmark"]] == [1]
    own = report_of(tables.output / "synthetic")
    assert own["training"] == {"baseline": None, "qat": None}
    assert any("synthetic" in note.lower() for note in own["notes"])
    assert {s["how"].partition(":")[0] for s in own["data"]["splits"].values()} == {"synthetic"}
    assert not (tables.output / "synthetic/qat/metrics.jsonl").exists()


def test_a_model_that_failed_is_told_and_the_others_ran(tables: Run) -> None:
    missing = entry(tables, "missing")
    assert (missing["status"], missing["error"]["exit_code"]) == ("failed", 4)
    assert "none.pdparams" in missing["error"]["message"]
    assert "synthetic: model 2 of 2" in tables.done.err
    assert re.search(r"^error: 1 of 2 models.*\n  missing: ", tables.done.err, re.MULTILINE)


def test_both_tables_are_printed(tables: Run) -> None:
    assert "Table I." in tables.done.out
    assert "Table II." in tables.done.out
    assert "1 of 1" in " ".join(tables.done.out.split())
    for name in ("report.md", "report.html"):
        assert "Published" in (tables.output / name).read_text()


def test_second_run_reuses_what_was_made(tables: Run) -> None:
    # The missing weights are still missing, so that the report is looked at again.
    arguments = ("run", "m.json", "--log-format", "json")
    second = job(*arguments, cwd=tables.folder, expect=4, executed=True)
    assert second.of("stage_reused") == list(STAGES)
    assert second.of("stage_started") == ["report"]
    assert second.cpu_seconds < SECOND_RUN_CPU_S + len(MATRIX) * 0.3
