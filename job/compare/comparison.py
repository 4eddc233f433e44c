"""Compares two finished runs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from job.compare import differences
from job.compare.differences import Difference
from job.compare.finished_run import FinishedRun
from job.compare.results import (
    Result,
    Verdict,
    accuracy_results,
    gate_results,
    size_results,
    speed_results,
)
from job.errors import UsageError

# Regressions first.
ORDER = tuple(Verdict)


@dataclass(frozen=True)
class Comparison:
    """Two finished runs side by side.

    Attributes:
        a: the run to compare with.
        b: the run that is judged.
        results: the results that both runs have; results that are worse in B come first.
        differences: what differs, by ``manifest``, ``inputs``, ``versions`` and ``machine``.
        notes: limits of the comparison.
    """

    a: FinishedRun
    b: FinishedRun
    results: tuple[Result, ...]
    differences: Mapping[str, tuple[Difference, ...]]
    notes: tuple[str, ...]

    @property
    def worse(self) -> tuple[Result, ...]:
        """The results that are worse in run B."""
        return tuple(result for result in self.results if result.verdict is Verdict.worse)

    @property
    def judged(self) -> int:
        """The number of results with a verdict."""
        return sum(result.verdict is not Verdict.unknown for result in self.results)

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as a JSON object."""
        return {
            "version": 1,
            "a": _described(self.a),
            "b": _described(self.b),
            "worse": len(self.worse),
            "judged": self.judged,
            "results": [asdict(result) for result in self.results],
            "differences": {
                name: [asdict(each) for each in found] for name, found in self.differences.items()
            },
            "notes": list(self.notes),
        }


def compare(a: FinishedRun, b: FinishedRun) -> Comparison:
    """Return the comparison of run B with run A.

    Raises:
        UsageError: the runs have different tasks.
    """
    tasks = [run.report["manifest"].get("task", "classification") for run in (a, b)]
    if tasks[0] != tasks[1]:
        raise UsageError(
            f"{a.output} is a run of task {tasks[0]}, and {b.output} of task {tasks[1]}",
            "Compare two runs of one task.",
        )
    results = [
        *gate_results(a, b),
        *accuracy_results(a, b),
        *speed_results(a, b),
        *size_results(a, b),
    ]
    return Comparison(
        a=a,
        b=b,
        results=tuple(sorted(results, key=lambda result: ORDER.index(result.verdict))),
        differences={
            "manifest": differences.manifest_differences(a.report, b.report),
            "inputs": differences.input_differences(a.report, b.report),
            "versions": differences.version_differences(a.report, b.report),
            "machine": differences.machine_differences(a.report, b.report),
        },
        notes=_notes(a, b),
    )


def _notes(a: FinishedRun, b: FinishedRun) -> tuple[str, ...]:
    notes = []
    networks = [_network(run) for run in (a, b)]
    if networks[0] != networks[1]:
        notes.append(
            f"A and B are different networks ({networks[0]} and {networks[1]}), so differences in "
            "accuracy, speed and size need not be regressions."
        )
    conflict = differences.machine_conflict(a.report, b.report)
    if conflict:
        notes.append(f"Speed is not judged, because {conflict}.")
    if None not in (a.test_digest, b.test_digest) and a.test_digest != b.test_digest:
        notes.append(
            "The packed test images of A and B differ, because the images or the transforms "
            "differ. The paired test pairs images by position, and requires equal labels."
        )
    slow = [name for name, run in (("A", a), ("B", b)) if not run.report["comparable"]]
    if slow:
        notes.append(
            f"The speed of {' and '.join(slow)} was measured on a CPU without AVX512_VNNI and does "
            "not apply to other CPUs."
        )
    return tuple(notes)


def _network(run: FinishedRun) -> str:
    """Return the network of a run; all saved models count as one network."""
    model = run.report["manifest"]["model"]
    width = model.get("width", 1.0)
    name = model.get("name") or model.get("callable") or "a saved model"
    return str(name) if width == 1 else f"{name} of width {width:g}"


def _described(run: FinishedRun) -> dict[str, Any]:
    keys = ("name", "created_at", "status", "comparable")
    return {"output": str(run.output), **{key: run.report[key] for key in keys}}
