"""A manifest that asks for ops to be left in FP32: searched, stopped, gone on with, reported."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from tiny_run import Run, job, record_of, report_of, start, wait_until
from watching import lines_of

pytestmark = pytest.mark.e2e

# No network is so much better in INT8: the search goes on until its time or its ops run out.
FALLBACK = ("--set", 'quantize.fallback={"max_top1_drop": -50, "max_minutes": 0.1}')


@pytest.mark.usefixtures("needs_vnni")
def test_search_is_stopped_gone_on_with_and_reported(copy_until: Callable[..., Run]) -> None:
    run = copy_until("data", "fp32", "qat", "qat_fake")
    kept_tries = run.output / ".partial/int8/checkpoints/tries.jsonl"

    def tries() -> list[dict[str, Any]]:
        return [json.loads(line) for line in lines_of(kept_tries)]

    process = start("run", "m.json", *FALLBACK, cwd=run.folder, err=run.folder / "err.txt")
    wait_until(lambda: len(tries()) > 1, process)
    process.terminate()
    assert process.wait(60) == 143
    before = tries()
    again = job("run", "m.json", *FALLBACK, "--log-format", "json", cwd=run.folder)
    assert again.of("stage_reused") == ["prepare", "baseline", "calibrate", "qat", "convert"]
    assert any(f"try {len(before)}" in each.get("text", "") for each in again.events)
    audit = report_of(run.output)["audit"]
    steps, kept = audit["fallback"]["steps"], audit["fallback"]["kept"]
    assert [(step["op"], step["top1_drop"]) for step in steps[: len(before)]] == [
        (one["op"], one["top1_drop"]) for one in before
    ]
    drops = [step["top1_drop"] for step in steps]
    assert drops[kept] == min(drops)
    left = {one["op"]: one["reason"] for one in audit["left_in_fp32"]}
    chosen = [op for op, reason in left.items() if reason.startswith("fallback: ")]
    assert sorted(chosen) == sorted(step["op"] for step in steps[1 : kept + 1])
    still = {one["op"] for one in audit["differences"]}
    assert still
    assert still.isdisjoint(left)
    assert re.search("^### Fallback", (run.output / "report.md").read_text(), re.MULTILINE)
    # Whatever was kept, it is the model that the run leaves.
    assert record_of(run.output, "int8")["int8_ops"] == 11 - kept
