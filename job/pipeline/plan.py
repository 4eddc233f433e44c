"""Decides which stages run and why, without running any."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from job.errors import DataError, UsageError
from job.host import Host
from job.manifest import Manifest
from job.pipeline.fingerprint import (
    Ingredients,
    changes,
    external_files,
    ingredients,
    key_of,
    output_digest,
)
from job.stages.stage import Stage
from job.storage.digests import MISSING
from job.storage.local import LocalOutput, Published
from job.uri import S3Uri

REPORT = "report"
_NAMED_CHANGES = 3


@dataclass(frozen=True)
class PlannedStage:
    """What will become of one stage.

    Attributes:
        name: the stage's name.
        action: ``run`` or ``reuse``.
        reason: why, such as ``quantize.moving_rate changed``.
        reads: external files and folders, and folders of earlier stages.
        writes: the folder that it leaves.
        missing: those of ``reads`` that are not there and that no stage will make.
    """

    name: str
    action: str
    reason: str
    reads: tuple[Path | S3Uri, ...]
    writes: Path | S3Uri
    missing: tuple[Path, ...]


@dataclass(frozen=True)
class Verdict:
    """Whether a stage runs.

    Attributes:
        reason: why it runs or does not.
        found: the ingredients of its key; None while an earlier stage's output is not known.
        reusable: its earlier result, if that still holds.
    """

    reason: str
    found: Ingredients | None
    reusable: Published | None


@dataclass(frozen=True)
class Planner:
    """All that verdicts on stages depend on.

    Attributes:
        manifest: the valid manifest.
        output: the output folder, in which earlier results are looked for.
        versions: installed versions, see :func:`job.pipeline.fingerprint.library_versions`.
        host: this machine.
        forced: stages that run whatever was left.
        from_stage: the stage that the user named, for the reason.
    """

    manifest: Manifest
    output: LocalOutput
    versions: Mapping[str, str]
    host: Host
    forced: frozenset[str] = frozenset()
    from_stage: str | None = None

    def judge(self, stage: Stage, upstream: Mapping[str, str]) -> Verdict:
        """Decide on one stage.

        Args:
            stage: the stage.
            upstream: output digests of earlier stages; those that will run again are absent.

        Raises:
            DataError: an external file is there but cannot be read.
        """
        before = self.output.published(stage.output_dir)
        again = [name for name in stage.needs if name not in upstream]
        found = ingredients(
            stage,
            self.manifest,
            upstream={name: upstream[name] for name in stage.needs if name in upstream},
            digests=self.output.digests,
            versions=self.versions,
            host=self.host,
        )
        complete = None if again else found
        if stage.name in self.forced:
            return Verdict(f"--from {self.from_stage}", complete, None)
        if before is None or before.stage != stage.name:
            return Verdict("nothing left by an earlier run", complete, None)
        reasons = changes(before.ingredients, found, unknown=again)
        reasons += tuple(f"{name} runs again" for name in again)
        if not reasons and before.key != key_of(found):
            reasons = ("another version of job made it",)
        damage = None if reasons else self.output.damage(before)
        if reasons or damage:
            return Verdict(damage or _listed(reasons), complete, None)
        return Verdict("nothing changed", found, before)

    def plan(self, stages: Sequence[Stage]) -> tuple[PlannedStage, ...]:
        """Decide on each stage as if every stage that runs left something new."""
        upstream: dict[str, str] = {}
        planned = []
        for stage in stages:
            verdict = self.judge(stage, upstream)
            reason = verdict.reason
            if verdict.reusable is not None:
                upstream[stage.name] = digest_of(verdict.reusable)
            elif verdict.found and self.output.unfinished(stage.name, key_of(verdict.found)):
                reason = f"{reason}; goes on from unfinished work"
            planned.append(self._planned(stage, stages, verdict, reason))
        return tuple(planned)

    def _planned(
        self, stage: Stage, stages: Sequence[Stage], verdict: Verdict, reason: str
    ) -> PlannedStage:
        output_dir = {other.name: self.output.display_path(other.output_dir) for other in stages}
        files = external_files(stage, self.manifest)
        return PlannedStage(
            name=stage.name,
            action="run" if verdict.reusable is None else "reuse",
            reason=reason,
            reads=(
                *(self.manifest.origin(path) or path for path in files),
                *(output_dir[name] for name in stage.needs),
            ),
            writes=output_dir[stage.name],
            missing=tuple(path for path in files if self.output.digests.identify(path) == MISSING),
        )


def digest_of(published: Published) -> str:
    """Identify what a stage left by content, whenever and wherever it was made."""
    files = {name: str(entry["sha256"]) for name, entry in published.files.items()}
    return output_digest(files, published.record)


def select(stages: Sequence[Stage], until: str | None) -> tuple[Stage, ...]:
    """Return the stages up to and with ``until``.

    Raises:
        UsageError: there is no such stage.
    """
    if until is None or until == REPORT:
        return tuple(stages)
    return tuple(stages[: _position(stages, until, "--until") + 1])


def depending(stages: Sequence[Stage], name: str | None) -> frozenset[str]:
    """Return a stage's name and the names of all that need it, directly or not.

    Raises:
        UsageError: there is no such stage.
    """
    if name is None or name == REPORT:
        return frozenset()
    found = {stages[_position(stages, name, "--from")].name}
    for stage in stages:
        if found.intersection(stage.needs):
            found.add(stage.name)
    return frozenset(found)


def check_inputs(planned: Sequence[PlannedStage], base: Path) -> None:
    """Make sure that all that a run reads from outside is there.

    Raises:
        DataError: naming each file that is missing and the stages that read it.
    """
    missing: dict[Path, list[str]] = {}
    for stage in planned:
        for path in stage.missing:
            missing.setdefault(path, []).append(stage.name)
    if missing:
        lines = "".join(
            f"\n  {path} (read by {', '.join(names)})" for path, names in missing.items()
        )
        raise DataError(
            f"missing input:{lines}",
            f"Relative paths of a manifest start at {base}: put the files there, or correct the "
            "paths under model and data.",
        )


def _position(stages: Sequence[Stage], name: str, option: str) -> int:
    names = [stage.name for stage in stages]
    if name in names:
        return names.index(name)
    close = difflib.get_close_matches(name, [*names, REPORT], 1)
    meant = f"; did you mean {close[0]}?" if close else ""
    raise UsageError(
        f"{option}: there is no stage {name!r}{meant}",
        f"The stages are {', '.join([*names, REPORT])}.",
    )


def _listed(reasons: Sequence[str]) -> str:
    shown = ", ".join(reasons[:_NAMED_CHANGES])
    more = len(reasons) - _NAMED_CHANGES
    return f"{shown} and {more} more" if more > 0 else shown
