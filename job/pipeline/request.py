"""The request for a run or a plan: stages, output and report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from job.manifest import Manifest
from job.pipeline.output_location import Location
from job.pipeline.report_files import Renderer, render_files
from job.stages.stage import Stage, StageOutput

StagesFor = Callable[[Manifest], Sequence[Stage]]
ReportBuilder = Callable[
    [Manifest, Mapping[str, StageOutput], Sequence[Mapping[str, Any]], Sequence[str]],
    Mapping[str, Any],
]


@dataclass(frozen=True)
class ReportConfig:
    """How report.json is built and rendered.

    Attributes:
        build: returns the content of report.json from the outputs of all stages.
        render: returns the content of each file to write, by file name.
        notes: remarks for the report.
        comparable: False if figures of this machine must not be compared with others.
    """

    build: ReportBuilder
    render: Renderer = render_files
    notes: tuple[str, ...] = ()
    comparable: bool = True


@dataclass(frozen=True)
class RunRequest:
    """Which stages to run, and where to write their output.

    Attributes:
        output: the folder or S3 prefix to write to. A missing folder is created.
        stages_for: returns all stages of one model's manifest, in order.
        report: how the report is built; None: no report is planned or written.
        from_stage: this stage and the stages that depend on it run even if nothing changed.
        until_stage: the last stage to run; None runs all stages and writes the report.
    """

    output: Location
    stages_for: StagesFor
    report: ReportConfig | None = None
    from_stage: str | None = None
    until_stage: str | None = None

    def for_model(self, name: str) -> Self:
        """Return the request for one model of a matrix, which has its own output."""
        return replace(self, output=self.output / name)
