"""Decides which stages run, and why. It runs no stage."""

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
from job.text_format import closest
from job.uri import S3Uri

REPORT = "report"
UNCHANGED = "nothing changed"
NO_RESULT = "no finished result"
# Follows a reason if unfinished work of an interrupted run exists.
RESUMES = "; resumes from unfinished work"
_MAX_REASONS = 3


@dataclass(frozen=True)
class PlannedStage:
    """What a run would do with one stage.

    Attributes:
        name: the stage's name.
        action: ``run`` or ``reuse``.
        reason: reason for the action, such as ``quantize.moving_rate changed``.
        reads: external files and folders, and output folders of earlier stages.
        writes: the stage's output folder.
        missing: external files in ``reads`` that do not exist.
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
        reason: why the stage runs or does not run.
        ingredients: the values of the stage's cache key; None if an earlier stage must run first.
        reusable: the earlier result of the stage; None if the stage must run.
    """

    reason: str
    ingredients: Ingredients | None
    reusable: Published | None


@dataclass(frozen=True)
class Planner:
    """Decides whether a stage runs, from the manifest, earlier results, versions and host.

    Attributes:
        manifest: the valid manifest.
        output: the output folder with the earlier results.
        versions: installed versions, see :func:`job.pipeline.fingerprint.library_versions`.
        host: this machine.
        forced: names of the stages that run even if nothing changed.
        from_stage: the value of ``--from``. The reason names it.
    """

    manifest: Manifest
    output: LocalOutput
    versions: Mapping[str, str]
    host: Host
    forced: frozenset[str] = frozenset()
    from_stage: str | None = None

    def judge(self, stage: Stage, upstream: Mapping[str, str]) -> Verdict:
        """Decide whether one stage runs.

        Args:
            stage: the stage.
            upstream: output digests of the earlier stages, without the stages that will run.

        Raises:
            DataError: an external file exists but cannot be read.
        """
        before = self.output.published(stage.output_dir)
        again = [name for name in stage.needs if name not in upstream]
        forced = stage.name in self.forced
        reason = f"--from {self.from_stage}" if forced else NO_RESULT
        usable = before if before and before.stage == stage.name and not forced else None
        if usable is None and again:
            # The stage runs, whatever its ingredients are. Reading the source takes half a second.
            return Verdict(reason, None, None)
        now = ingredients(
            stage,
            self.manifest,
            upstream={name: upstream[name] for name in stage.needs if name in upstream},
            digests=self.output.digests,
            versions=self.versions,
            host=self.host,
            before=None if before is None else before.ingredients,
        )
        if usable is None:
            return Verdict(reason, now, None)
        reasons = changes(usable.ingredients, now, unknown=again)
        reasons += tuple(f"{name} runs again" for name in again)
        if not reasons and usable.key != key_of(now):
            reasons = ("made by another version of job",)
        damage = None if reasons else self.output.damage(usable)
        if reasons or damage:
            return Verdict(damage or _joined(reasons), None if again else now, None)
        return Verdict(UNCHANGED, now, usable)

    def plan(self, stages: Sequence[Stage]) -> tuple[PlannedStage, ...]:
        """Decide for each stage whether it runs, as if every stage that runs changes its output."""
        upstream: dict[str, str] = {}
        planned = []
        for stage in stages:
            verdict = self.judge(stage, upstream)
            reason = verdict.reason
            if verdict.reusable is not None:
                upstream[stage.name] = digest_of(verdict.reusable)
            elif verdict.ingredients and self.output.unfinished(
                stage.name, key_of(verdict.ingredients)
            ):
                reason += RESUMES
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
    """Return a digest of a stage's output, without measured times."""
    files = {name: str(entry["sha256"]) for name, entry in published.files.items()}
    return output_digest(files, published.record)


def select(stages: Sequence[Stage], until: str | None) -> tuple[Stage, ...]:
    """Return the stages up to and including ``until``.

    Raises:
        UsageError: the stage does not exist.
    """
    if until is None or until == REPORT:
        return tuple(stages)
    return tuple(stages[: _position(stages, until, "--until") + 1])


def depending(stages: Sequence[Stage], name: str | None) -> frozenset[str]:
    """Return a stage's name and the names of all stages that depend on it, directly or not.

    Raises:
        UsageError: the stage does not exist.
    """
    if name is None or name == REPORT:
        return frozenset()
    names = {stages[_position(stages, name, "--from")].name}
    for stage in stages:
        if names.intersection(stage.needs):
            names.add(stage.name)
    return frozenset(names)


def check_inputs(planned: Sequence[PlannedStage], base: Path) -> None:
    """Check that every external input of a run exists.

    Args:
        planned: the stages of the run.
        base: the folder that relative paths of the manifest start at.

    Raises:
        DataError: files are missing; the message names each file and the stages that read it.
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
            f"Put the files there, or correct the paths under model and data. Relative paths start "
            f"at {base}.",
        )


def _position(stages: Sequence[Stage], name: str, option: str) -> int:
    names = [stage.name for stage in stages]
    if name in names:
        return names.index(name)
    near = closest(name, [*names, REPORT])
    suggestion = f"; did you mean {near}?" if near else ""
    raise UsageError(
        f"{option}: there is no stage {name!r}{suggestion}",
        f"The stages are {', '.join([*names, REPORT])}.",
    )


def _joined(reasons: Sequence[str]) -> str:
    text = ", ".join(reasons[:_MAX_REASONS])
    more = len(reasons) - _MAX_REASONS
    return f"{text} and {more} more" if more > 0 else text
