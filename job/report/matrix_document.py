"""The matrix report's report.json against its schema."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

import jsonschema
from referencing import Registry, Resource

from job.errors import Fault
from job.manifest import schema as manifest_schema
from job.report.matrix.tables import WORST_FIRST
from job.report.render import schema_check


@cache
def schema() -> Mapping[str, Any]:
    """The JSON schema of a matrix report; it refers to parts of a run's and of a manifest's."""
    text = (resources.files("job.schemas") / "matrix_report.schema.json").read_text("utf-8")
    loaded: Mapping[str, Any] = json.loads(text)
    return loaded


@cache
def validator() -> jsonschema.Draft202012Validator:
    """What checks against the schema, those that it refers to at hand."""
    others = {
        "report.schema.json": schema_check.schema(),
        "manifest.schema.json": manifest_schema.schema(),
    }
    known = [(name, Resource.from_contents(content)) for name, content in others.items()]
    return jsonschema.Draft202012Validator(schema(), registry=Registry().with_resources(known))


def validate(report: Mapping[str, Any]) -> None:
    """Check a matrix report as it will be written: its schema, and that its parts agree.

    Raises:
        OutputError: lists every fault with its JSON pointer.
    """
    schema_check.check(report, validator(), _disagreements)


def _disagreements(report: Mapping[str, Any]) -> Iterator[Fault]:
    statuses = {entry["status"] for entry in report["matrix"]}
    expected = next(status for status in WORST_FIRST if status in statuses)
    if report["status"] != expected:
        why = f"the worst of its models is {expected}"
        yield Fault("/status", f"expected {expected!r} because {why}, got {report['status']!r}")
