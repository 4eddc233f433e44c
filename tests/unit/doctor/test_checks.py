"""Findings about good and bad machines."""

from dataclasses import replace
from typing import Any

import pytest

from job.doctor.checks import (
    NOTE,
    OK,
    PROBLEM,
    Diagnosis,
    capacity_findings,
    cpu_findings,
    print_findings,
    smoke_finding,
    smoke_test,
    version_findings,
)
from job.host import Host

GIB = 1 << 30
GOOD = Host(
    cpu_model="Xeon",
    flags=("amx_int8", "avx512_vnni", "avx512f"),
    microcode="0x1",
    cores=8,
    affinity=8,
    quota_cores=2.0,
    memory_bytes=16 * GIB,
    memory_limited=True,
    kernel="6.1",
    allocator="jemalloc",
)
SMOKE = {"isa": "avx512_core_vnni", "kernels": ["brgconv"], "seconds": 1.2, "versions": {}}


def statuses(findings: Any) -> dict[str, str]:
    return {finding.name: finding.status for finding in findings}


def test_good_machine() -> None:
    findings = (
        *cpu_findings(GOOD),
        *capacity_findings(GOOD, 100 * GIB),
        *version_findings({"paddlepaddle": "3.2.2"}),
        smoke_finding(SMOKE),
    )
    assert set(statuses(findings).values()) == {OK}
    assert Diagnosis(findings, GOOD, SMOKE).able


def test_no_vnni() -> None:
    findings = tuple(cpu_findings(replace(GOOD, flags=("avx512f",))))
    assert statuses(findings) == {
        "CPU": OK,
        "avx512f": OK,
        "avx512_vnni": PROBLEM,
        "amx_int8": NOTE,
    }
    assert "--allow-slow-isa" in findings[2].advice
    assert not Diagnosis(findings, GOOD, SMOKE).able


def test_small_machine() -> None:
    small = replace(GOOD, quota_cores=0.5, memory_bytes=GIB, allocator="glibc")
    assert statuses(capacity_findings(small, GIB)) == {
        "cores": OK,
        "cgroup CPU quota": NOTE,
        "allocator": NOTE,
        "memory": NOTE,
        "free disk here": NOTE,
    }


def test_versions() -> None:
    findings = version_findings(
        {"paddlepaddle": "3.3.1", "paddleslim": "not installed", "numpy": "2.4.6"}
    )
    assert statuses(findings) == {"paddlepaddle": NOTE, "paddleslim": PROBLEM, "numpy": OK}


@pytest.mark.parametrize(
    ("code", "limit_s", "error"),
    [
        ("import sys; sys.exit(print('first\\nlast line', file=sys.stderr) or 3)", 60, "last line"),
        ("import os; os.abort()", 60, "SIGABRT"),
        ("import time; time.sleep(99)", 1, " 1 s"),
    ],
)
def test_failing_inference(
    monkeypatch: pytest.MonkeyPatch, code: str, limit_s: int, error: str
) -> None:
    monkeypatch.setattr("job.doctor.checks._SMOKE", code)
    monkeypatch.setattr("job.doctor.checks._SMOKE_SECONDS", limit_s)
    finding = smoke_finding(smoke_test())
    assert finding.status == PROBLEM
    assert error in finding.found


def test_inference_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    code = 'import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(\'{"isa": "x"}\')'
    monkeypatch.setattr("job.doctor.checks._SMOKE", code)
    assert smoke_test() == {"isa": "x"}


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_findings(Diagnosis(tuple(cpu_findings(GOOD)), GOOD, SMOKE))
    assert "This machine can run" in capsys.readouterr().out
