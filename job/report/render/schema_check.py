"""Validates report.json of a run or of a matrix against its schema."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import jsonschema
from referencing import Registry, Resource

from job.errors import Fault, OutputError
from job.manifest import schema as manifest_schema

MAX_MESSAGE = 300
# The status of a matrix is the worst status of its models.
WORST_FIRST = ("failed", "unfinished", "gate_failed", "passed")


@cache
def schema(name: str = "report") -> Mapping[str, Any]:
    """Return the JSON schema ``report`` (of a run), ``matrix_report`` or ``deploy``."""
    text = (resources.files("job.schemas") / f"{name}.schema.json").read_text(encoding="utf-8")
    loaded: Mapping[str, Any] = json.loads(text)
    return loaded


@cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    """Return the validator of the schema ``report``, ``matrix_report`` or ``deploy``."""
    # The schema of a matrix report has references to the other two schemas.
    others = {
        "report.schema.json": schema("report"),
        "manifest.schema.json": manifest_schema.schema(),
    }
    known = [(name, Resource.from_contents(content)) for name, content in others.items()]
    return jsonschema.Draft202012Validator(schema(name), registry=Registry().with_resources(known))


def validate_deploy(record: Mapping[str, Any]) -> None:
    """Check a deployment record against its schema.

    Raises:
        OutputError: the record has faults; the message lists each with its JSON pointer.
    """
    _raise(list(_against_schema(record, validator("deploy"))), "deploy.json")


def validate(report: Mapping[str, Any]) -> None:
    """Check the report of a run or of a matrix against its schema and for consistency.

    Raises:
        OutputError: the report has faults; the message lists each with its JSON pointer.
    """
    matrix = "matrix" in report
    try:
        # Validate what the file will contain: tuples become arrays, numpy scalars are rejected.
        written = json.loads(json.dumps(report))
    except (TypeError, ValueError) as error:
        raise OutputError(
            f"report.json cannot be written as JSON: {error}",
            "Use only strings, numbers, booleans, null, lists and objects as values.",
        ) from error
    name = "matrix_report" if matrix else "report"
    faults = [*_not_finite(written, ""), *_against_schema(written, validator(name))]
    # The consistency checks read keys that exist for certain only in a report with a valid schema.
    disagreements = _matrix_disagreements if matrix else _disagreements
    faults = faults or list(disagreements(written))
    _raise(faults, "report.json")


def _raise(faults: Sequence[Fault], file: str) -> None:
    if not faults:
        return
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    lines = "\n".join(f"  {fault}" for fault in faults)
    raise OutputError(
        f"{file}: {count}\n{lines}",
        "Restore report.json if it was edited; otherwise run the job again with --from report.",
    )


def _against_schema(report: Any, validator: jsonschema.Draft202012Validator) -> Iterator[Fault]:
    for error in sorted(validator.iter_errors(report), key=lambda e: [str(p) for p in e.path]):
        pointer = "".join(f"/{_escaped(part)}" for part in error.absolute_path)
        message = error.message
        if len(message) > MAX_MESSAGE:
            message = f"{message[:MAX_MESSAGE]}…"
        yield Fault(pointer, message)


def _escaped(part: str | int) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


def _not_finite(value: Any, pointer: str) -> Iterator[Fault]:
    """Yield NaN and infinities, which JSON Schema accepts as numbers but JSON cannot represent."""
    if isinstance(value, float) and not math.isfinite(value):
        yield Fault(pointer, f"expected a finite number, found {value}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _not_finite(item, f"{pointer}/{_escaped(key)}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{pointer}/{index}")


def _disagreements(report: Mapping[str, Any]) -> Iterator[Fault]:
    failed = [gate["name"] for gate in report["gates"] if gate["passed"] is False]
    expected = "gate_failed" if failed else "passed"
    if report["status"] != expected:
        why = f"these gates failed: {', '.join(failed)}" if failed else "no gate failed"
        yield Fault("/status", f"expected {expected!r} because {why}, found {report['status']!r}")
    if report["accuracy"] is not None:
        yield from _accuracy_disagreements(report["accuracy"])
    for index, entry in enumerate(report["benchmark"]):
        where = f"/benchmark/{index}"
        if entry["ratio_interval"] is not None:
            yield from _ordered(entry["ratio_interval"], f"{where}/ratio_interval")
        for engine, speed in entry["engines"].items():
            if speed["ratio_interval"] is not None:
                yield from _ordered(
                    speed["ratio_interval"], f"{where}/engines/{engine}/ratio_interval"
                )
            yield from _edges(speed["histogram"], f"{where}/engines/{engine}")
        for model in ("fp32", "int8"):
            yield from _edges(entry[model]["histogram"], f"{where}/{model}")
        if entry["stable"] == bool(entry["unstable_reasons"]):
            yield Fault(f"{where}/stable", "expected true with no reasons, or false with reasons")


def _edges(histogram: Mapping[str, Any], pointer: str) -> Iterator[Fault]:
    edges, counts = len(histogram["edges_ms"]), len(histogram["counts"])
    if edges != counts + 1:
        yield Fault(
            f"{pointer}/histogram/edges_ms",
            f"expected {counts + 1} edges for {counts} counts, found {edges}",
        )


def _accuracy_disagreements(accuracy: Mapping[str, Any]) -> Iterator[Fault]:
    paddle = {name: accuracy.get(name, {}) for name in ("fp32", "qat_fake", "int8", "paired")}
    engines = accuracy.get("engines", {})
    others = {f"engines/{name}": scores for name, scores in engines.items()}
    for name, scores in {**paddle, **others}.items():
        for key, bounds in scores.items():
            if key.endswith("_interval") and bounds is not None:
                yield from _ordered(bounds, f"/accuracy/{name}/{key}")


def _ordered(bounds: list[float], pointer: str) -> Iterator[Fault]:
    if bounds[0] > bounds[1]:
        yield Fault(pointer, f"expected [low, high], found [{bounds[0]}, {bounds[1]}]")


def _matrix_disagreements(report: Mapping[str, Any]) -> Iterator[Fault]:
    statuses = {entry["status"] for entry in report["matrix"]}
    expected = next(status for status in WORST_FIRST if status in statuses)
    if report["status"] != expected:
        why = f"the worst status of its models is {expected!r}"
        yield Fault("/status", f"expected {expected!r} because {why}, found {report['status']!r}")
