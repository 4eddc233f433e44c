"""Matrices of fake stages, with their manifests and reports."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fake_stages import CHAIN, make_manifest, render, stage
from sample_report import sample_report

from job.manifest import Manifest, parse
from job.pipeline.request import ReportConfig
from job.stages.stage import Stage

BAD_SEED = 13


def build(
    manifest: Manifest, outputs: Any, rows: Sequence[Mapping[str, Any]], notes: Sequence[str]
) -> Mapping[str, Any]:
    """The report of one model; seeds above 50 fail a gate."""
    report = sample_report()
    own = f"seed {manifest.train.seed}"
    report |= {"stages": rows, "notes": [*notes, "of all", own], "gates": []}
    if manifest.train.seed > 50:
        gate = {"name": "min_speedup", "limit": 9.0, "value": 2.0, "passed": False, "reason": None}
        report |= {"gates": [gate], "status": "gate_failed"}
    return report


REPORTING = ReportConfig(build=build, render=render, notes=("not comparable",))


def stages_for(manifest: Manifest) -> Sequence[Stage]:
    return (stage("bad_data"),) if manifest.train.seed == BAD_SEED else CHAIN[:2]


def models(base: Path, **seeds: int) -> Manifest:
    """A manifest with a model for each seed."""
    document = dict(make_manifest(base).resolved)
    document["matrix"] = [
        {"name": name, "set": {"train.seed": seed}, "published": {"int8_top1": 70.5}}
        for name, seed in seeds.items()
    ]
    return parse(document, "test.json", base)
