"""Two finished runs side by side: what is worse, what is not judged, and why."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from finished_runs import LABELS, predicted, write_run
from sample_matrix import sample_matrix
from sample_report import engine_entry, sample_report

from job.compare.comparison import Comparison, compare
from job.compare.finished_run import FinishedRun, open_run
from job.compare.results import Result, Verdict
from job.errors import DataError, UsageError


def compared(tmp_path: Path, b: Any = None, a: Any = None, **files: Any) -> Comparison:
    one = write_run(tmp_path / "a", a)
    two = write_run(tmp_path / "b", b, **files)
    return compare(open_run(str(one), print), open_run(str(two), print))


def result(comparison: Comparison, kind: str, name: str) -> Result:
    (found,) = [each for each in comparison.results if (each.kind, each.name) == (kind, name)]
    return found


def changed(**values: Any) -> Any:
    report = sample_report()
    for pointer, value in values.items():
        place: Any = report
        *parents, last = pointer.split("__")
        for name in parents:
            place = place[int(name) if isinstance(place, list) else name]
        place[last] = value
    return report


def test_equal_runs(tmp_path: Path) -> None:
    comparison = compared(tmp_path)
    assert {each.verdict for each in comparison.results} == {Verdict.same}
    assert not any(comparison.differences.values())
    assert comparison.notes == ()


def test_a_note_names_different_networks(tmp_path: Path) -> None:
    comparison = compared(tmp_path, changed(manifest__model__name="lenet"))
    assert any("lenet" in note for note in comparison.notes)


class TestAccuracy:
    def test_worse_by_the_paired_test(self, tmp_path: Path) -> None:
        report = changed(accuracy__int8__top1=84.12)
        comparison = compared(tmp_path, report, int8=predicted(4206))
        worse = result(comparison, "accuracy", "INT8 top-1")
        assert comparison.results[0] == worse
        assert worse.verdict is Verdict.worse
        assert worse.change == pytest.approx(-1.0)
        assert worse.interval is not None
        assert worse.interval[0] < -1.0 < worse.interval[1] < 0
        assert worse.p_value is not None
        assert worse.p_value < 1e-9
        assert "only A correct for 50, only B for 0" in worse.reason
        assert result(comparison, "accuracy", "FP32 top-1").verdict is Verdict.same

    def test_pairing_finds_what_intervals_do_not(self, tmp_path: Path) -> None:
        """Equal accuracy on different images is no difference, but it is not the same model."""
        comparison = compared(tmp_path, int8=predicted(4256, wrong_first=2000))
        same = result(comparison, "accuracy", "INT8 top-1")
        assert (same.verdict, same.p_value) == (Verdict.same, 1.0)
        assert "only A correct for 744, only B for 744" in same.reason

    def test_better(self, tmp_path: Path) -> None:
        comparison = compared(tmp_path, int8=predicted(4400))
        assert result(comparison, "accuracy", "INT8 top-1").verdict is Verdict.better

    def test_other_test_images(self, tmp_path: Path) -> None:
        comparison = compared(tmp_path, labels=LABELS[::-1])
        for found in (each for each in comparison.results if each.kind == "accuracy"):
            assert (found.verdict, found.interval) == (Verdict.unknown, None)

    @pytest.mark.parametrize(
        ("interval", "verdict"),
        [([80.0, 82.0], Verdict.worse), ([84.0, 86.0], Verdict.same), ([90, 92], Verdict.better)],
    )
    def test_without_predictions_intervals_decide(
        self, tmp_path: Path, interval: Any, verdict: Verdict
    ) -> None:
        report = changed(accuracy__int8__top1_interval=interval)
        comparison = compared(tmp_path, report, predictions=False)
        found = result(comparison, "accuracy", "INT8 top-1")
        assert (found.verdict, found.p_value) == (verdict, None)

    def test_synthetic_images(self, tmp_path: Path) -> None:
        comparison = compared(tmp_path, changed(accuracy=None), predictions=False)
        assert not [each for each in comparison.results if each.kind == "accuracy"]


class TestSpeed:
    def rates(self, factor: float) -> Any:
        report = sample_report()
        for row in report["benchmark"]:
            row["int8"]["images_per_second"] *= factor
        return report

    @pytest.mark.parametrize(
        ("factor", "verdict"),
        [(0.9, Verdict.worse), (0.97, Verdict.same), (1.03, Verdict.same), (1.2, Verdict.better)],
    )
    def test_images_per_second(self, tmp_path: Path, factor: float, verdict: Verdict) -> None:
        found = result(compared(tmp_path, self.rates(factor)), "speed", "INT8, batch 50, 1 thread")
        assert found.verdict is verdict
        assert found.change == pytest.approx(factor)
        assert found.interval is not None
        assert found.interval[0] < factor < found.interval[1]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("host__cpu_model", "another CPU"),
            ("host__flags", ["avx2"]),
            ("host__quota_cores", 1.0),
            ("host__cores", 4),
        ],
    )
    def test_another_machine(self, tmp_path: Path, name: str, value: Any) -> None:
        report = self.rates(0.5)
        report["host"][name.removeprefix("host__")] = value
        comparison = compared(tmp_path, report)
        speeds = [each for each in comparison.results if each.kind == "speed"]
        assert {each.verdict for each in speeds} == {Verdict.unknown}
        assert name.removeprefix("host__") in speeds[0].reason
        assert comparison.differences["machine"]
        assert comparison.notes

    def test_another_instruction_set(self, tmp_path: Path) -> None:
        report = self.rates(0.5)
        report["benchmark"][0]["isa"] = "avx512_core_vnni"
        comparison = compared(tmp_path, report)
        first, second = (
            result(comparison, "speed", f"INT8, batch {batch}, 1 thread") for batch in (1, 50)
        )
        assert (first.verdict, second.verdict) == (Verdict.unknown, Verdict.worse)

    def test_settings_of_one_run_only_are_left_out(self, tmp_path: Path) -> None:
        report = self.rates(0.5)
        report["benchmark"][1]["threads"] = 2
        comparison = compared(tmp_path, report)
        names = [each.name for each in comparison.results if each.kind == "speed"]
        assert names == ["INT8, batch 1, 1 thread"]

    def test_unstable_measurements_are_not_judged(self, tmp_path: Path) -> None:
        report = self.rates(0.5)
        for row in report["benchmark"]:
            row["stable"] = False
            row["unstable_reasons"] = [{"what": "noise", "advice": "wait"}]
        comparison = compared(tmp_path, report)
        speeds = [each for each in comparison.results if each.kind == "speed"]
        assert {each.verdict for each in speeds} == {Verdict.unknown}

    def test_another_engine_has_its_own_row(self, tmp_path: Path) -> None:
        reports = [sample_report(), sample_report()]
        for report, rate in zip(reports, (900.0, 800.0), strict=True):
            report["benchmark"][0]["engines"] = {"openvino": engine_entry("openvino", 1, 503, rate)}
        comparison = compared(tmp_path, reports[1], reports[0])
        found = result(comparison, "speed", "INT8 in OpenVINO, batch 1, 1 thread")
        assert (found.a, found.b, found.verdict) == (900.0, 800.0, Verdict.unknown)


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.2, Verdict.worse), (1.005, Verdict.same), (0.5, Verdict.better)]
)
def test_sizes(tmp_path: Path, factor: float, verdict: Verdict) -> None:
    report = sample_report()
    report["models"]["int8"]["bytes"] = int(factor * report["models"]["int8"]["bytes"])
    assert result(compared(tmp_path, report), "size", "INT8 model").verdict is verdict


@pytest.mark.parametrize(("failing", "verdict"), [("b", Verdict.worse), ("a", Verdict.better)])
def test_gates(tmp_path: Path, failing: str, verdict: Verdict) -> None:
    report = changed(gates__1__value=1.2, gates__1__passed=False, status="gate_failed")
    found = result(compared(tmp_path, **{failing: report}), "gate", "min_speedup")
    assert found.verdict is verdict


def test_differences(tmp_path: Path) -> None:
    report = changed(manifest__train__epochs=3, manifest__name="other", manifest__output="x")
    report["versions"]["paddlepaddle"] = "3.3.0"
    report["inputs"][0]["sha256"] = "0" * 64
    comparison = compared(tmp_path, report)
    found = {
        kind: [(each.name, each.a, each.b) for each in differences]
        for kind, differences in comparison.differences.items()
    }
    assert found["manifest"] == [("/train/epochs", "2", "3")]
    assert found["versions"] == [("paddlepaddle", "3.2.2", "3.3.0")]
    assert [name for name, *_ in found["inputs"]] == ["cifar10.json"]
    assert found["machine"] == []


class TestOutputs:
    def test_a_changed_file_is_named(self, tmp_path: Path) -> None:
        folder = write_run(tmp_path / "a")
        (folder / "accuracy/predictions.npz").write_bytes(b"other")
        with pytest.raises(DataError, match="predictions"):
            open_run(str(folder), print)

    def test_a_report_alone_is_enough(self, tmp_path: Path) -> None:
        folder = write_run(tmp_path / "a")
        for name in ("accuracy/predictions.npz", "benchmark/samples.json"):
            (folder / name).unlink()
        run = open_run(str(folder), print)
        assert (run.predictions, run.rates) == (None, {})
        verdicts = {each.verdict for each in compare(run, copy.copy(run)).results}
        assert verdicts == {Verdict.same, Verdict.unknown}

    def test_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no report"):
            open_run(str(tmp_path), print)

    def test_a_matrix_names_its_models(self, tmp_path: Path) -> None:
        (tmp_path / "report.json").write_text(json.dumps(sample_matrix()))
        with pytest.raises(UsageError, match="one model"):
            open_run(str(tmp_path), print)


class TestDetectors:
    def detector(self, mean: float) -> Any:
        report = sample_report()
        report["manifest"]["task"] = "detection"
        rows = {
            name: {"map": value, "map_11_point": value - 1, "class_ap": [value] * 10}
            for name, value in (("fp32", 70.0), ("qat_fake", 69.0), ("int8", mean))
        }
        drop = {"map_drop": 70.0 - mean, "map_drop_interval": [-1.0, 1.0]}
        pairs = dict.fromkeys(("paired", "paired_fake", "paired_int8_fake"), drop)
        report["accuracy"] = {"images": 50, **rows, "engines": {}, **pairs}
        return report

    @pytest.mark.parametrize(
        ("mean", "verdict"),
        [(67.0, Verdict.worse), (68.5, Verdict.same), (71.0, Verdict.better)],
    )
    def test_map(self, mean: float, verdict: Verdict) -> None:
        a, b = (FinishedRun(Path(), self.detector(value), None, {}) for value in (69.0, mean))
        found = result(compare(a, b), "accuracy", "INT8 mAP@0.5")
        assert (found.verdict, found.interval) == (verdict, None)
        assert found.change == pytest.approx(mean - 69.0)

    def test_a_classifier_and_a_detector_are_not_compared(self) -> None:
        a, b = (
            FinishedRun(Path(), each, None, {}) for each in (sample_report(), self.detector(60))
        )
        with pytest.raises(UsageError, match=r"classification.*detection"):
            compare(a, b)
