"""The comparison of two runs as tables and as a page."""

from dataclasses import replace
from datetime import UTC, datetime

from job import text_format
from job.compare.comparison import Comparison
from job.compare.differences import Difference
from job.compare.finished_run import FinishedRun
from job.compare.results import Result, Verdict
from job.report.render.blocks import Block, Grid, Section, Text, figures, words
from job.report.render.page import Card, Page, Summary

COLUMNS = (
    *words("Result", "Verdict"),
    *figures("Change", "A", "B", "95%\ninterval"),
    *words("Basis"),
)
TITLES = {
    "manifest": "Manifest",
    "inputs": "Input files",
    "versions": "Versions",
    "machine": "Machine",
}
NOTE = (
    "Change: B minus A in percentage points for accuracy, B over A for speed and size. Speed is "
    "worse if the 95% interval is below 1 and the change is more than 5%. A size is worse if it "
    "grew by more than 1%."
)


def headline(comparison: Comparison) -> str:
    """Return the result in one sentence."""
    worse = comparison.worse
    if not worse:
        unknown = len(comparison.results) - comparison.judged
        also = f", {unknown} not judged" if unknown else ""
        if not comparison.judged:
            return f"No result of B could be judged ({len(comparison.results)} compared)."
        return f"No result is worse in B than in A ({comparison.judged} judged{also})."
    names = "; ".join(result.name for result in worse)
    verb = "is" if len(worse) == 1 else "are"
    return f"{text_format.plural(len(worse), 'result')} {verb} worse in B than in A: {names}."


def runs_grid(comparison: Comparison) -> Grid:
    """Return output, name, time and status of both runs."""
    rows = tuple(_run_cells(name, run) for name, run in zip("AB", _runs(comparison), strict=True))
    return Grid("Runs", words("Run", "Output", "Name", "Created (UTC)", "Status", "Machine"), rows)


def results_grid(comparison: Comparison) -> Grid:
    """Return the results; results that are worse in B come first."""
    rows = tuple(_result_cells(result) for result in comparison.results)
    return Grid("Results", COLUMNS, rows, NOTE)


def narrow_results_grid(comparison: Comparison) -> Grid:
    """Return the results without the basis of the verdicts, for 80 columns."""
    grid = results_grid(comparison)
    return replace(grid, columns=COLUMNS[:-1], rows=tuple(row[:-1] for row in grid.rows))


def bases(comparison: Comparison) -> tuple[str, ...]:
    """Return the basis of the verdicts other than ``no difference``, in one sentence each."""
    names: dict[str, list[str]] = {}
    for result in comparison.results:
        if result.verdict is not Verdict.same and result.reason:
            names.setdefault(_basis(result), []).append(result.name)
    return tuple(f"{'; '.join(found)}: {basis}." for basis, found in names.items())


def differences_grids(comparison: Comparison) -> tuple[Grid, ...]:
    """Return one table of differences for each kind that has any."""
    return tuple(
        Grid(TITLES[name], words("Name", "A", "B"), tuple(_cells(each) for each in found))
        for name, found in comparison.differences.items()
        if found
    )


def page_of(comparison: Comparison) -> Page:
    """Return the page of a comparison."""
    found = differences_grids(comparison)
    blocks: tuple[Block, ...] = found or (Text("Manifest, versions and machine are equal."),)
    a, b = _runs(comparison)
    return Page(
        title=f"{a.report['name']} and {b.report['name']}: comparison of two runs",
        name=f"{a.report['name']} (A) and {b.report['name']} (B)",
        created_at=b.report["created_at"],
        about=f"A: {a.output}, B: {b.output}",
        summary=Summary(
            passed=not comparison.worse,
            headline=headline(comparison),
            notices=comparison.notes,
            notes=(),
            cards=_cards(comparison),
        ),
        sections=(
            Section("Results", (results_grid(comparison),)),
            Section("Differences", blocks),
            Section("Runs", (runs_grid(comparison),)),
        ),
        draw=_no_plot,
    )


def _no_plot(name: str) -> tuple[str, str]:
    raise KeyError(name)


def _runs(comparison: Comparison) -> tuple[FinishedRun, FinishedRun]:
    return comparison.a, comparison.b


def _cards(comparison: Comparison) -> tuple[Card, ...]:
    counts = dict.fromkeys(Verdict, 0)
    for result in comparison.results:
        counts[result.verdict] += 1
    worse = counts[Verdict.worse]
    return (
        Card("Worse in B", str(worse), "", good=not worse),
        Card("Better in B", str(counts[Verdict.better]), ""),
        Card("No difference", str(counts[Verdict.same]), ""),
        Card("Not judged", str(counts[Verdict.unknown]), ""),
    )


def _run_cells(name: str, run: FinishedRun) -> tuple[str, ...]:
    report = run.report
    status = report["status"].replace("_", " ")
    machine = report["host"]["cpu_model"]
    return name, str(run.output), report["name"], _time(report["created_at"]), status, machine


def _time(created_at: str) -> str:
    """Return a time without seconds and zone, such as ``2026-11-29 09:09``, in UTC."""
    return datetime.fromisoformat(created_at).astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _cells(difference: Difference) -> tuple[str, str, str]:
    return difference.name, difference.a, difference.b


def _result_cells(result: Result) -> tuple[str, ...]:
    verdict = "WORSE" if result.verdict is Verdict.worse else str(result.verdict)
    return (
        result.name,
        verdict,
        _change(result),
        _value(result, result.a),
        _value(result, result.b),
        _interval(result),
        _basis(result),
    )


def _basis(result: Result) -> str:
    p_value = "" if result.p_value is None else f"; {text_format.probability(result.p_value)}"
    return f"{result.reason}{p_value}"


def _value(result: Result, value: float) -> str:
    match result.unit:
        case "percent":
            return f"{value:.2f}"
        case "bytes":
            return text_format.size(int(value))
        case "images/s":
            return text_format.significant(value)
    return f"{value:.3g}"


def _change(result: Result) -> str:
    if result.change is None:
        return text_format.DASH
    if result.unit == "percent":
        return text_format.signed(result.change)
    return text_format.times(result.change)


def _interval(result: Result) -> str:
    if result.interval is None:
        return text_format.DASH
    if result.unit == "percent":
        return text_format.signed_interval(*result.interval)
    return text_format.interval(*result.interval)
