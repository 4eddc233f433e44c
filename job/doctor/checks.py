"""Says whether this machine can do the job, and what to do when it cannot."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from job.host import Host, read_host
from job.pipeline.fingerprint import NOT_INSTALLED, library_versions
from job.process.environment import environment

OK = "ok"
PROBLEM = "problem"
NOTE = "note"
_GIB = 1 << 30
_SMOKE_SECONDS = 180
_SMOKE = """
import json, sys
from pathlib import Path
from job.doctor.smoke import run
Path(sys.argv[1]).write_text(json.dumps(run()))
"""
# The oneDNN INT8 path is proved with these; see pyproject.toml.
_PINNED = {"paddlepaddle": "3.2.2", "paddleslim": "2.6.0"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what was looked at.
        status: ``ok``, ``note`` (works, worth knowing) or ``problem``.
        found: what is there.
        advice: what to do, empty when nothing.
    """

    name: str
    status: str
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings on this machine."""

    findings: tuple[Finding, ...]
    host: Host
    smoke: Mapping[str, Any]

    @property
    def able(self) -> bool:
        """True when nothing stands in the way of the job."""
        return all(finding.status != PROBLEM for finding in self.findings)

    def as_json(self) -> Mapping[str, Any]:
        """Return the diagnosis as a JSON object."""
        return {
            "able": self.able,
            "findings": [asdict(finding) for finding in self.findings],
            "host": self.host.as_report(),
            "smoke": self.smoke,
        }


def examine() -> Diagnosis:
    """Look at this machine; takes a few seconds, most of them for the INT8 inference."""
    host = read_host()
    smoke = smoke_test()
    findings = (
        *cpu_findings(host),
        *capacity_findings(host, shutil.disk_usage(Path.cwd()).free),
        *version_findings(library_versions()),
        smoke_finding(smoke),
    )
    return Diagnosis(findings, host, smoke)


def cpu_findings(host: Host) -> Iterator[Finding]:
    """Yield what the CPU's flags mean for the job."""
    yield Finding("CPU", OK, f"{host.cpu_model}, microcode {host.microcode or 'unknown'}")
    for flag in ("avx512f", "avx512_vnni"):
        if flag in host.flags:
            yield Finding(flag, OK, "yes")
        else:
            yield Finding(
                flag,
                PROBLEM,
                "no",
                "INT8 is slow and may overflow here: use a CPU with AVX512_VNNI (Intel Cascade "
                "Lake, AMD Zen 4 or later), or `job run --allow-slow-isa`.",
            )
    amx = "amx_int8" in host.flags
    yield Finding("amx_int8", OK if amx else NOTE, "yes" if amx else "no, INT8 runs on AVX512_VNNI")


def capacity_findings(host: Host, free_bytes: int) -> Iterator[Finding]:
    """Yield how much of the machine the job gets."""
    yield Finding(
        "cores", OK, f"{host.usable_cores} usable of {host.cores}, affinity {host.affinity}"
    )
    if host.quota_cores is None:
        yield Finding("cgroup CPU quota", OK, "none")
    elif host.quota_cores < 1:
        yield Finding(
            "cgroup CPU quota",
            NOTE,
            f"{host.quota_cores:g} cores",
            "Less than one core is throttled and spoils the benchmark: give the job one or more.",
        )
    else:
        yield Finding("cgroup CPU quota", OK, f"{host.quota_cores:g} cores")
    yield allocator_finding(host)
    limit = " (cgroup limit)" if host.memory_limited else ""
    enough = host.memory_bytes >= 4 * _GIB
    yield Finding(
        "memory",
        OK if enough else NOTE,
        f"{host.memory_bytes / _GIB:.1f} GiB{limit}",
        "" if enough else "Large networks need 4 GiB or more; lower train.batch_size if killed.",
    )
    roomy = free_bytes >= 2 * _GIB
    yield Finding(
        "free disk here",
        OK if roomy else NOTE,
        f"{free_bytes / _GIB:.1f} GiB",
        "" if roomy else "A run keeps models, checkpoints and prepared data: free some space.",
    )


def allocator_finding(host: Host) -> Finding:
    """Return which memory allocator the job uses."""
    if host.allocator != "glibc":
        return Finding("allocator", OK, host.allocator)
    return Finding(
        "allocator",
        NOTE,
        "glibc",
        "jemalloc makes small INT8 calls some 3 to 14 % quicker: install libjemalloc2 and set "
        "LD_PRELOAD=libjemalloc.so.2, for the job as for the service.",
    )


def version_findings(versions: Mapping[str, str]) -> Iterator[Finding]:
    """Yield the versions of all that matters."""
    for name, version in versions.items():
        pinned = _PINNED.get(name, version)
        if version == NOT_INSTALLED:
            advice = "Install the locked dependencies: `make run` does."
            yield Finding(name, PROBLEM, version, advice)
        elif version != pinned:
            yield Finding(
                name, NOTE, version, f"INT8 is proved with {pinned}; install that one if it fails."
            )
        else:
            yield Finding(name, OK, version)


def smoke_test() -> Mapping[str, Any]:
    """Run a real INT8 inference in a process of its own.

    Returns:
        ``isa``, ``kernels``, ``seconds`` and ``versions`` of the inference; or ``error``, the last
        line that the process printed.
    """
    with tempfile.TemporaryDirectory(prefix="job-doctor-") as folder:
        result = Path(folder, "smoke.json")
        command = [sys.executable, "-P", "-c", _SMOKE, str(result)]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment(1),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SMOKE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"it did not end within {_SMOKE_SECONDS} seconds"}
        if done.returncode == 0:
            found: Mapping[str, Any] = json.loads(result.read_bytes())
            return found
    printed = done.stderr.decode("utf-8", "replace").strip().splitlines()
    ended = f"ended with code {done.returncode}"
    return {"error": f"{ended}: {printed[-1]}" if printed else ended}


def smoke_finding(smoke: Mapping[str, Any]) -> Finding:
    """Return what the INT8 inference showed."""
    if "error" in smoke:
        return Finding(
            "INT8 inference",
            PROBLEM,
            str(smoke["error"]),
            "Reinstall the locked dependencies with `make run`; if it persists, this machine "
            "cannot run oneDNN INT8.",
        )
    kernels = ", ".join(map(str, smoke["kernels"]))
    return Finding(
        "INT8 inference", OK, f"on {smoke['isa']} in {float(smoke['seconds']):.1f} s: {kernels}"
    )


def print_findings(diagnosis: Diagnosis) -> None:
    """Print the findings as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {OK: "green", NOTE: "yellow", PROBLEM: "bold red"}
    table = Table("check", "", "found", "what to do")
    for finding in diagnosis.findings:
        status = Text(finding.status, colours[finding.status])
        table.add_row(Text(finding.name), status, Text(finding.found), Text(finding.advice))
    console = Console()
    console.print(table)
    able = "This machine can do the job." if diagnosis.able else "This machine cannot do the job."
    console.print(Text(able, "bold green" if diagnosis.able else "bold red"))
