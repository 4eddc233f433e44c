"""Checks whether this machine can run the job, and gives advice for each problem."""

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
from job.process.json_channel import describe_exit

OK = "ok"
PROBLEM = "problem"
NOTE = "note"
_GIB = 1 << 30
_SMOKE_SECONDS = 180
_SMOKE = """
import json, sys
from pathlib import Path
from job.doctor.smoke import run
from job.errors import JobError
try:
    result = run()
except JobError as error:
    result = {"error": error.message}
Path(sys.argv[1]).write_text(json.dumps(result))
"""
# The versions that INT8 is tested with; see pyproject.toml.
_PINNED = {"paddlepaddle": "3.2.2", "paddleslim": "2.6.0"}


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: name of the check.
        status: ``ok``, ``note`` (works with a limitation) or ``problem``.
        found: the value on this machine.
        advice: what to do; empty if nothing.
    """

    name: str
    status: str
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings about this machine.

    Attributes:
        findings: the results of all checks.
        host: the machine.
        smoke: the result of the INT8 inference, see :func:`smoke_test`.
    """

    findings: tuple[Finding, ...]
    host: Host
    smoke: Mapping[str, Any]

    @property
    def able(self) -> bool:
        """True if no finding is a problem."""
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
    """Run all checks. This takes a few seconds, most of them for the INT8 inference."""
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
    """Yield the findings about the CPU and its instruction sets."""
    yield Finding("CPU", OK, f"{host.cpu_model}, microcode {host.microcode or 'unknown'}")
    for flag in ("avx512f", "avx512_vnni"):
        if flag in host.flags:
            yield Finding(flag, OK, "yes")
        else:
            yield Finding(
                flag,
                PROBLEM,
                "no",
                "INT8 is slow on this CPU, and INT8 sums may saturate. Use a CPU with AVX512_VNNI "
                "(Intel Cascade Lake, AMD Zen 4 or later), or run `job run --allow-slow-isa`.",
            )
    amx = "amx_int8" in host.flags
    without_amx = "no" if "avx512_vnni" not in host.flags else "no, INT8 uses AVX512_VNNI"
    yield Finding("amx_int8", OK if amx else NOTE, "yes" if amx else without_amx)


def capacity_findings(host: Host, free_bytes: int) -> Iterator[Finding]:
    """Yield the findings about cores, memory and disk that the job may use."""
    yield Finding(
        "cores", OK, f"{host.usable_cores} usable of {host.cores} (CPU affinity: {host.affinity})"
    )
    if host.quota_cores is None:
        yield Finding("cgroup CPU quota", OK, "none")
    elif host.quota_cores < 1:
        yield Finding(
            "cgroup CPU quota",
            NOTE,
            f"{host.quota_cores:g} cores",
            "A CPU limit below one core throttles the benchmark. Give the job one core or more.",
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
        ""
        if enough
        else "Large networks need 4 GiB or more. Lower train.batch_size if memory runs out.",
    )
    has_space = free_bytes >= 2 * _GIB
    yield Finding(
        "free disk here",
        OK if has_space else NOTE,
        f"{free_bytes / _GIB:.1f} GiB",
        "" if has_space else "A run stores models, checkpoints and data. Free 2 GiB or more.",
    )


def allocator_finding(host: Host) -> Finding:
    """Return the finding about the memory allocator."""
    if host.allocator != "glibc":
        return Finding("allocator", OK, host.allocator)
    return Finding(
        "allocator",
        NOTE,
        "glibc",
        "jemalloc makes small INT8 calls faster; docs/decisions.md gives measured times. "
        "Install libjemalloc2, and set LD_PRELOAD=libjemalloc.so.2 for the job and for the program "
        "that serves the model.",
    )


def version_findings(versions: Mapping[str, str]) -> Iterator[Finding]:
    """Yield the findings about installed versions."""
    for name, version in versions.items():
        pinned = _PINNED.get(name, version)
        if version == NOT_INSTALLED:
            advice = "Install the locked dependencies with `make doctor` in the source folder."
            yield Finding(name, PROBLEM, version, advice)
        elif version != pinned:
            yield Finding(
                name,
                NOTE,
                version,
                f"INT8 is tested with {pinned}. Install that version if INT8 fails.",
            )
        else:
            yield Finding(name, OK, version)


def smoke_test() -> Mapping[str, Any]:
    """Run a real INT8 inference in a child process.

    Returns:
        The result of :func:`job.doctor.smoke.run`. If the process failed, the key ``error``: the
        timeout, or the exit code or signal of the process and the last line that it printed.
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
            return {"error": f"timed out after {_SMOKE_SECONDS} s"}
        if done.returncode == 0:
            smoke: Mapping[str, Any] = json.loads(result.read_bytes())
            return smoke
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    end = f"the process {describe_exit(done.returncode)}"
    return {"error": f"{end}: {lines[-1]}" if lines else end}


def smoke_finding(smoke: Mapping[str, Any]) -> Finding:
    """Return the finding about the INT8 inference."""
    if "error" in smoke:
        return Finding(
            "INT8 inference",
            PROBLEM,
            str(smoke["error"]),
            "Run `make clean doctor` in the source folder, which installs the locked dependencies "
            "again. If the error persists, use another machine.",
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
    table = Table("check", "status", "found", "what to do")
    for finding in diagnosis.findings:
        status = Text(finding.status, colours[finding.status])
        table.add_row(Text(finding.name), status, Text(finding.found), Text(finding.advice))
    console = Console()
    console.print(table)
    verdict = f"This machine {'can' if diagnosis.able else 'cannot'} run the job."
    console.print(Text(verdict, "bold green" if diagnosis.able else "bold red"))
