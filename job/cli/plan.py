"""Prints what a run would do and how long it takes (``job run --dry-run``)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from job.cli.results import short_path
from job.cli.times import Times
from job.pipeline.estimate import Estimate
from job.pipeline.plan import PlannedStage
from job.text_format import rough_duration


def print_plans(
    plans: Sequence[tuple[str, Sequence[PlannedStage]]], times: Sequence[Times], *, as_json: bool
) -> None:
    """Print what a run would do with each model of a matrix."""
    console = Console(highlight=False, soft_wrap=True)
    for number, ((name, planned), time) in enumerate(zip(plans, times, strict=True), 1):
        if as_json:
            for stage in planned:
                print(json.dumps({"model": name, **_planned_json(stage, time)}))
            continue
        console.print(Text(f"{name}: model {number} of {len(plans)}", "bold cyan"))
        print_plan(planned, time, as_json=False)


def print_plan(planned: Sequence[PlannedStage], times: Times, *, as_json: bool) -> None:
    """Print what a run would do, as text or as one JSON object per stage."""
    if as_json:
        for stage in planned:
            print(json.dumps(_planned_json(stage, times)))
        return
    console = Console(highlight=False, soft_wrap=True)
    width = max(len(stage.name) for stage in planned)
    for stage in planned:
        line = Text(f"{stage.name:{width}}  ", "bold")
        line.append(f"{stage.action:6}  ", "yellow" if stage.action == "run" else "green")
        console.print(line.append(stage.reason, "not bold"))
        if stage.name in times.stages:
            console.print(Text(f"{'':{width}}  time    {time_text(times.stages[stage.name])}"))
        for path in stage.reads:
            missing = path in stage.missing
            note, style = (" (missing)", "red") if missing else ("", "")
            console.print(Text(f"{'':{width}}  reads   {short_path(path)}{note}", style))
        console.print(Text(f"{'':{width}}  writes  {short_path(stage.writes)}"))
    if times.stages:
        console.print(Text(f"Total time: {time_text(times.total)}. {times.basis}"))


def time_text(found: Estimate) -> str:
    """Return an estimate in words, such as ``about 4 min (60 steps of 32 images)``."""
    work = f" ({found.work})" if found.work else ""
    if found.seconds is None:
        return f"not estimated{work}, because this is unknown: {found.unknown}"
    text = f"about {rough_duration(found.seconds)}{work}"
    return f"{text}, plus a part that is unknown: {found.unknown}" if found.unknown else text


def _planned_json(stage: PlannedStage, times: Times) -> Mapping[str, Any]:
    found = times.stages.get(stage.name)
    return {
        "stage": stage.name,
        "action": stage.action,
        "reason": stage.reason,
        "reads": [str(path) for path in stage.reads],
        "missing": [str(path) for path in stage.missing],
        "writes": str(stage.writes),
        "estimate": vars(found) | {"measured": times.measured} if found else None,
    }
