"""The command line as a user calls it, with fake stages."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from subprocess import PIPE, CompletedProcess
from typing import Any

import forked

from job import host
from job.process.environment import environment

COMMAND = "import fake_cli; fake_cli.main({stages!r}, failing={failing!r}, flags={flags!r})"
CHAIN = (("first",), ("second", "first"), ("third", "second"))
FLAGS = ("avx512f", "avx512_vnni")


def job(
    *arguments: str,
    cwd: Path,
    stages: Sequence[Sequence[str]] = CHAIN,
    failing: bool = False,
    flags: Sequence[str] = FLAGS,
    stdin: str = "",
    variables: Mapping[str, str] | None = None,
) -> "CompletedProcess[str]":
    """Run the command with fake stages."""
    code = COMMAND.format(stages=stages, failing=failing, flags=flags)
    return forked.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=environment(1) | {"COLUMNS": "200"} | dict(variables or {}),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


def start(*arguments: str, cwd: Path, stages: Sequence[Sequence[str]]) -> "forked.Popen":
    """Start the command with fake stages; its standard error is a pipe."""
    code = COMMAND.format(stages=stages, failing=False, flags=FLAGS)
    return forked.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=environment(1),
        stderr=PIPE,
        text=True,
    )


def main(names: Sequence[Sequence[str]], *, failing: bool, flags: Sequence[str]) -> None:
    """Run the command line on fake stages, a fake report and fake CPU flags."""
    install(names, failing=failing, flags=flags)
    from job.cli import main as cli

    cli.main()


def install(names: Sequence[Sequence[str]], *, failing: bool, flags: Sequence[str]) -> None:
    """Replace the stages, the report and the CPU flags in this process."""
    import fake_stages

    from job import stages
    from job.api import execution
    from job.cli import termination_log
    from job.report import plots

    sys.argv[0] = "job"
    termination_log.LOG = Path("termination-log")
    stages.STAGES = tuple(fake_stages.stage(name, *before) for name, *before in names)
    execution.build = partial(build, failing=failing)
    # Each report's pictures take a second and a half; tests of the report draw them.
    plots.draw = lambda name, report: ("<svg></svg>", name)
    read_host = host.read_host
    _replace_everywhere(read_host, lambda *given: replace(read_host(*given), flags=tuple(flags)))


def _replace_everywhere(function: Any, instead: Any) -> None:
    """Replace a function in every module of the job that imported it."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "job" and vars(module).get(function.__name__) is function:
            setattr(module, function.__name__, instead)


def build(manifest: Any, outputs: Any, rows: Any, notes: Any, *, failing: bool) -> Any:
    """A sample report, with a gate that failed if ``failing``."""
    from sample_report import sample_report

    gate = {"name": "min_speedup", "limit": 9.0, "value": 2.0, "passed": False, "reason": None}
    return {
        **sample_report(),
        "stages": rows,
        "gates": [gate] if failing else [],
        "notes": list(notes),
        "status": "gate_failed" if failing else "passed",
    }
