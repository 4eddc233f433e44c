"""Decides whether the report of a run is up to date, or must be written again."""

from collections.abc import Mapping, Sequence

from job.manifest import Manifest
from job.pipeline.plan import REPORT, PlannedStage, digest_of
from job.pipeline.report_files import report_key, reusable
from job.pipeline.request import ReportConfig, RunRequest
from job.stages.stage import Stage
from job.storage.local import LocalOutput

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
        return "earlier stages run"
    outputs = {stage.name: folder.published(stage.output_dir) for stage in stages}
    made_of = {name: (each.key, digest_of(each)) for name, each in outputs.items() if each}
    key = key_of_report(manifest, made_of, request.report)
    return CHANGED if reusable(folder.root, key) is None else ""


def key_of_report(
    manifest: Manifest, made_of: Mapping[str, tuple[str, str]], config: ReportConfig
) -> str:
    """Return the cache key of a run's report; it does not depend on which stages ran this time.

    Args:
        manifest: the valid manifest.
        made_of: cache key and output digest of each stage, by stage name.
        config: how the report is built.
    """
    return report_key(
        manifest=manifest.resolved,
        stages=made_of,
        notes=config.notes,
        comparable=config.comparable,
    )
