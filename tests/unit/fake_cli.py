"""The command line, whole but for the stages, as a user calls it."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from job.process.environment import environment

# The whole command line, but for the stages.
FAKES = """
import sys, types
from pathlib import Path
sys.argv[0] = "job"
import fake_stages, sample_report, job.host, job.stages, job.cli.termination_log
job.cli.termination_log.LOG = Path("termination-log")
names = {names}
job.stages.STAGES = tuple(fake_stages.stage(name, *before) for name, *before in names)
fake = types.ModuleType("job.pipeline.build_report")
def build(manifest, outputs, rows, notes):
    report = sample_report.sample_report()
    gate = {{"name": "min_speedup", "limit": 9.0, "value": 2.0, "passed": False}}
    gates = [gate] if {failing} else []
    return {{**report, "stages": rows, "gates": gates, "notes": list(notes),
            "status": "gate_failed" if {failing} else "passed"}}
fake.build = build
sys.modules["job.pipeline.build_report"] = fake
read_host = job.host.read_host
from dataclasses import replace
job.host.read_host = lambda *a: replace(read_host(*a), flags={flags})
from job.cli.main import main
main()
"""
CHAIN = (("first",), ("second", "first"), ("third", "second"))


def job(
    *arguments: str,
    cwd: Path,
    stages: Sequence[Sequence[str]] = CHAIN,
    failing: bool = False,
    flags: Sequence[str] = ("avx512f", "avx512_vnni"),
    stdin: str = "",
    variables: Mapping[str, str] | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run the command with fake stages."""
    code = FAKES.format(names=list(stages), failing=failing, flags=flags)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=environment(1) | {"COLUMNS": "200"} | dict(variables or {}),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )
