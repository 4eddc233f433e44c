"""When the report of a run is current, and when it must be written."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import job
from job.manifest import Manifest
from job.pipeline.plan import REPORT, PlannedStage, digest_of
from job.pipeline.request import ReportConfig, RunRequest
from job.stages.stage import Stage
from job.storage.files import read_json
from job.storage.local import LocalOutput

REPORT_KEY = ".report.json"
CHANGED = "its inputs changed"


def reason_to_write(
    planned: Sequence[PlannedStage],
    manifest: Manifest,
    stages: Sequence[Stage],
    folder: LocalOutput,
    request: RunRequest,
) -> str:
    """Return why a run would write the report, or an empty string if the report is current."""
    if request.report is None:
        return ""
    if request.from_stage == REPORT:
        return f"--from {REPORT}"
    if any(stage.action == "run" for stage in planned):
        return "stages before it run"
    outputs = {stage.name: folder.published(stage.output_dir) for stage in stages}
    made_of = {name: (each.key, digest_of(each)) for name, each in outputs.items() if each}
    key = report_key(manifest, made_of, request.report)
    return CHANGED if current_report(folder, key) is None else ""


def report_key(
    manifest: Manifest, made_of: Mapping[str, tuple[str, str]], config: ReportConfig
) -> str:
    """Return the cache key of a report: a SHA-256 of everything that the report depends on.

    The key does not depend on which stages ran and which were reused.

    Args:
        manifest: the valid manifest.
        made_of: cache key and output digest of each stage, by stage name.
        config: how the report is made.
    """
    ingredients = {
        "job": job.__version__,
        "manifest": manifest.resolved,
        "stages": made_of,
        "notes": config.notes,
        "comparable": config.comparable,
    }
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def current_report(folder: LocalOutput, key: str) -> Mapping[str, Any] | None:
    """Return report.json if it was written with this key, else None."""
    if read_json(folder.root / REPORT_KEY) != key:
        return None
    report = read_json(folder.root / "report.json")
    return report if isinstance(report, dict) else None
