"""What runs again after a change, and what does not."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tiers import full_but
from tiny_run import STAGES, Done, Run, job, report_of, same_arrays

pytestmark = pytest.mark.e2e

QUICK_CPU_S = 2.5


def again(run: Run, *arguments: str) -> Done:
    return job("run", "m.json", "--log-format", "json", *arguments, cwd=run.folder)


def plan(run: Run, *arguments: str) -> dict[str, tuple[str, str]]:
    """Action and reason of each stage."""
    done = job("run", "m.json", "--dry-run", "--log-format", "json", *arguments, cwd=run.folder)
    stages = [json.loads(line) for line in done.out.splitlines()]
    return {stage["stage"]: (stage["action"], stage["reason"]) for stage in stages}


def to_run(run: Run, *arguments: str) -> list[str]:
    return [name for name, (action, _) in plan(run, *arguments).items() if action == "run"]


def content(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    stats = {str(path.relative_to(folder)): path.stat() for path in files}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


class TestSecondRun:
    def test_does_nothing_and_says_so(self, copy: Run) -> None:
        before = content(copy.output)
        second = job("run", "m.json", cwd=copy.folder, executed=True)
        assert second.cpu_seconds < QUICK_CPU_S
        assert "Table I." in second.out
        after = content(copy.output)
        for name in (".lock", ".digests.json"):
            before.pop(name, None)
            after.pop(name, None)
        assert after == before

    def test_json_lines(self, copy: Run) -> None:
        second = again(copy)
        assert second.of("stage_reused") == list(STAGES)
        (line,) = second.out.splitlines()
        result = json.loads(line)
        assert (result["status"], result["worked"]) == ("passed", False)

    @pytest.mark.full
    def test_another_place(self, copy: Run) -> None:
        """The manifest by an absolute path, from another folder, without --output's default."""
        elsewhere = copy.folder / "elsewhere"
        elsewhere.mkdir()
        options = ("--output", "../out", "--log-format", "json")
        assert not job("run", "../m.json", *options, cwd=elsewhere).worked

    @pytest.mark.full
    def test_standard_input(self, copy: Run) -> None:
        text = (copy.folder / "m.json").read_text()
        second = job("run", "-", "--log-format", "json", cwd=copy.folder, stdin=text)
        assert not second.worked


def losses_of(run: Run) -> list[float]:
    """The loss of each step of the quantization-aware training."""
    lines = (run.output / "qat/metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines if "loss" in line]


class TestChanges:
    def test_of_the_benchmark_alone(self, copy: Run) -> None:
        done = again(copy, "--set", "benchmark.rounds=1", "--set", "/benchmark/min_seconds=0.1")
        assert done.of("stage_reused") == list(STAGES[:-1])
        assert done.of("stage_started") == ["benchmark", "report"]
        statuses = {s["name"]: s["status"] for s in report_of(copy.output)["stages"]}
        assert statuses == {**dict.fromkeys(STAGES, "reused"), "benchmark": "ran"}
        assert report_of(copy.output)["manifest"]["benchmark"]["rounds"] == 1

    @pytest.mark.full
    def test_of_the_seed(self, copy: Run) -> None:
        assert to_run(copy, "--set", "train.seed=1") == [*STAGES[3:], "report"]
        before = copy.output / "before.npz"
        before.write_bytes((copy.output / "qat/best.npz").read_bytes())
        losses = losses_of(copy)
        again(copy, "--set", "train.seed=1", "--until", "qat")
        # The best weights can be those before training, so they can be the same.
        assert losses_of(copy) != losses
        assert not (copy.output / "report.json").exists()  # it told of other weights
        again(copy, "--until", "qat")
        assert losses_of(copy) == losses
        assert same_arrays(before, copy.output / "qat/best.npz")

    @pytest.mark.parametrize(
        ("change", "stages"),
        full_but(
            [
                ("name=other", []),
                ("gates.min_speedup=9", []),
                ("data.workers=2", []),
                ("train.checkpoint_seconds=5", []),
                ("baseline.train.base_lr=0.01", STAGES[1:]),
                ("data.augment.flip=true", STAGES[1:]),
                ("data.val_fraction=0.3", STAGES),
                ("model.width=0.6", STAGES[1:]),
                ("quantize.moving_rate=0.8", STAGES[3:]),
                ("quantize.strategy=post", STAGES[3:]),
                ("train.freeze_bn_stats=false", STAGES[3:]),
                ("quantize.equalize=false", STAGES[2:]),
            ],
            [("quantize.moving_rate=0.8", STAGES[3:]), ("data.workers=2", [])],
        ),
    )
    def test_plan(self, finished: Run, change: str, stages: list[str]) -> None:
        planned = plan(finished, "--set", change, "--output", "out")
        # The report shows the manifest, so that any change makes it new.
        runs = [name for name, (action, _) in planned.items() if action == "run"]
        assert runs == [*stages, "report"]
        if stages:
            assert planned[stages[0]][1].startswith(f"{change.partition('=')[0]} ")

    def test_of_gates_writes_the_report_anew(self, copy: Run) -> None:
        done = job(
            "run", "m.json", "--set", "gates.min_speedup=999", "--log-format", "json",
            cwd=copy.folder, expect=3,
        )  # fmt: skip
        assert done.of("stage_started") == ["report"]
        assert done.events[-1]["event"] == "error"
        assert "min_speedup: " in done.events[-1]["text"]
        assert "999" in done.events[-1]["text"]
        report = report_of(copy.output)
        assert report["status"] == "gate_failed"
        (gate,) = (gate for gate in report["gates"] if gate["name"] == "min_speedup")
        assert (gate["name"], gate["limit"], gate["passed"]) == ("min_speedup", 999, False)
        for name in ("int8/model.pdmodel", "report.md", "report.html"):
            assert (copy.output / name).is_file()

    def test_of_a_result(self, copy: Run) -> None:
        path = copy.output / "int8/model.pdiparams"
        path.write_bytes(path.read_bytes()[:-4] + b"????")
        action, reason = plan(copy)["int8"]
        assert (action, reason.split()[0]) == ("run", "int8/model.pdiparams")
        (copy.output / "qat/best.npz").unlink()
        action, reason = plan(copy)["qat"]
        assert (action, reason.split()[0]) == ("run", "qat/best.npz")


class TestAsAsked:
    def test_from(self, copy: Run) -> None:
        assert to_run(copy, "--from", "int8") == ["int8", "accuracy", "benchmark", "report"]
        done = again(copy, "--from", "benchmark")
        assert done.of("stage_started") == ["benchmark", "report"]

    @pytest.mark.full
    def test_from_report(self, copy: Run) -> None:
        assert again(copy, "--from", "report").of("stage_started") == ["report"]

    def test_until(self, copy_until: Callable[..., Run]) -> None:
        run = copy_until("data")
        done = job("run", "m.json", "--until", "prepare", cwd=run.folder)
        assert "prepare" in done.out
        assert not (run.output / "report.json").exists()
        assert not (run.output / "fp32").exists()

    def test_dry_run_writes_nothing(self, tmp_path: Path, finished: Run) -> None:
        done = job("run", finished.folder / "m.json", "--dry-run", cwd=tmp_path)
        for stage in (*STAGES, "report"):
            assert any(line.startswith(stage) for line in done.out.splitlines()), stage
        assert str(Path("out/qat_fake")) in done.out
        assert list(tmp_path.iterdir()) == []

    def test_dry_run_of_a_finished_run(self, finished: Run) -> None:
        before = content(finished.output)
        assert to_run(finished) == []
        assert content(finished.output) == before


def test_unchanged_content_with_another_time(copy: Run) -> None:
    os.utime(copy.output / "fp32/model.pdmodel")
    assert to_run(copy) == []
