"""What a whole run leaves, prints and reports."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from tiny_run import FOLDERS, SLOW, STAGES, Run, job, record_of, report_of

import job as package

pytestmark = pytest.mark.e2e

REPORT_SCHEMA = Path(package.__file__).parent / "schemas/report.schema.json"


class TestFiles:
    def test_folders(self, finished: Run) -> None:
        assert {path.name for path in finished.output.iterdir() if path.is_dir()} >= set(FOLDERS)
        for name in ("fp32", "qat_fake", "int8"):
            for suffix in (".pdmodel", ".pdiparams"):
                assert (finished.output / name / f"model{suffix}").stat().st_size > 0

    def test_nothing_unfinished_is_left(self, finished: Run) -> None:
        assert list((finished.output / ".partial").iterdir()) == []
        assert list(finished.output.rglob("*.tmp")) == []
        assert list(finished.output.rglob("checkpoints")) == []

    def test_manifest_is_kept_as_resolved(self, finished: Run) -> None:
        kept = json.loads((finished.output / "manifest.json").read_bytes())
        assert kept["train"]["max_iters"] == 6
        assert kept["quantize"]["moving_rate"] == 0.9
        again = job("validate", "out/manifest.json", cwd=finished.folder)
        assert again.out.startswith("out/manifest.json: ")

    @pytest.mark.parametrize(("output_dir", "steps"), [("fp32", 20), ("qat", 6)])
    def test_metrics(self, finished: Run, output_dir: str, steps: int) -> None:
        text = (finished.output / output_dir / "metrics.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        trained = [line for line in lines if "loss" in line]
        assert [line["step"] for line in trained] == list(range(1, steps + 1))
        assert {"loss", "lr", "images_per_second"} <= trained[0].keys()
        evaluated = [line for line in lines if "evaluation" in line]
        assert evaluated[-1]["step"] == steps
        assert {"top1", "top5"} <= evaluated[-1]["evaluation"].keys()

    def test_chatter_goes_to_logs(self, finished: Run) -> None:
        logs = {path.stem for path in (finished.output / "logs").glob("*.log")}
        assert logs == set(STAGES)
        chatter = re.compile(r"^(I|W|E)\d{4} |\[INFO\]|UserWarning|paddle", re.MULTILINE)
        assert not chatter.search(finished.done.err)
        assert not chatter.search(finished.done.out)


class TestScreen:
    def test_results_on_stdout_and_progress_on_stderr(self, finished: Run) -> None:
        for title in ("Table I.", "Table II."):
            assert title in finished.done.out
            assert title not in finished.done.err
        assert "out/report.html" in finished.done.out.splitlines()[-1]
        for stage in (*STAGES, "report"):
            assert f" {stage}: " in finished.done.err

    def test_no_word_twice(self, finished: Run) -> None:
        said = [line.split(" ", 1)[1] for line in finished.done.err.splitlines()]
        assert [line for line in said if re.match(r"(\w+):? \1\b", line)] == []


class TestReport:
    def test_valid(self, finished: Run) -> None:
        schema = json.loads(REPORT_SCHEMA.read_bytes())
        assert list(Draft202012Validator(schema).iter_errors(report_of(finished.output))) == []

    def test_promised_keys(self, finished: Run) -> None:
        report = report_of(finished.output)
        for model in ("fp32", "qat_fake", "int8"):
            for figure in ("top1", "top5"):
                assert 0 <= report["accuracy"][model][figure] <= 100
            assert report["models"][model]["bytes"] > 0
        assert report["accuracy"]["images"] == 359
        (row,) = report["benchmark"]
        assert (row["batch_size"], row["threads"]) == (1, 1)
        assert row["isa"].startswith("avx512_core")
        assert row["fp32"]["images_per_second"] > 0
        assert row["int8"]["images_per_second"] > 0
        assert row["ratio"] > 0
        (part,) = report["breakdown"]
        assert (part["isa_cap"], part["batch_size"]) == ("all", 1)
        assert len(part["slowest"]) == 10
        assert all(layer["op"] for layer in part["slowest"])
        assert report["audit"]["int8_ops"] > 0
        assert report["audit"]["fp32_ops"] >= 0
        names = [gate["name"] for gate in report["gates"] if gate["passed"]]
        assert names == ["int8_matches_fake", "max_top1_drop"]
        assert [stage["name"] for stage in report["stages"]] == list(STAGES)
        assert {stage["status"] for stage in report["stages"]} == {"ran"}
        assert all(stage["seconds"] > 0 for stage in report["stages"])

    def test_provenance(self, finished: Run) -> None:
        report = report_of(finished.output)
        assert report["comparable"] is not bool(SLOW)
        assert report["manifest"]["model"]["width"] == 0.5
        assert report["versions"]["paddlepaddle"] == "3.2.2"
        assert "avx512_vnni" in report["host"]["flags"]
        assert report["seeds"] == {"baseline": 0, "train": 0}
        paths = {artifact["path"] for artifact in report["artifacts"]}
        assert paths >= {"fp32/weights.npz", "int8/model.pdmodel", "qat_fake/model.pdiparams"}

    def test_splits_do_not_overlap(self, finished: Run) -> None:
        splits = report_of(finished.output)["data"]["splits"]
        counts = {name: splits[name]["images"] for name in ("train", "selection", "test")}
        assert counts["test"] == 359
        assert sum(counts.values()) == 1797
        assert all(splits[name]["how"] for name in splits)

    def test_counts_correct_answers(self, finished: Run) -> None:
        with np.load(finished.output / "accuracy/predictions.npz") as kept:
            right = kept["int8"] == kept["labels"]
        report = report_of(finished.output)
        assert report["accuracy"]["int8"]["top1"] == pytest.approx(100 * right.mean())

    def test_raw_samples_are_kept(self, finished: Run) -> None:
        (setting,) = json.loads((finished.output / "benchmark/samples.json").read_bytes())
        rounds = {one["label"]: len(one["rounds"]) for one in setting["samples"]}
        assert rounds["int8"] == 2

    def test_html_needs_no_network(self, finished: Run) -> None:
        html = (finished.output / "report.html").read_text()
        assert not re.search(r"<(script|link|img)[^>]+(src|href)=.https?:", html)
        assert html.count("<svg") >= 5

    def test_markdown_has_the_tables(self, finished: Run) -> None:
        text = (finished.output / "report.md").read_text()
        assert "Table I." in text
        assert "Table II." in text

    def test_int8_kernels_ran(self, finished: Run) -> None:
        ran = record_of(finished.output, "int8")["primitives"]
        assert any("s8" in one["data_type"] for one in ran)
