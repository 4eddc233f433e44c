"""The gates of a report as JUnit XML, which CI systems show as tests."""

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from job.report.cells import gate_limit, gate_value
from job.report.tables import entries

# Characters that XML 1.0 cannot contain.
_INVALID = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: Mapping[str, Any]) -> str:
    """Return one test suite for each model of a valid report, with one test case for each gate.

    A gate that is not judged is skipped. A model of a matrix that failed or has no result is one
    test case with an error.
    """
    root = ElementTree.Element("testsuites", name=_clean(report["name"]))
    for entry in entries(report):
        _add_suite(root, entry, report["created_at"])
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _add_suite(root: ElementTree.Element, entry: Mapping[str, Any], created_at: str) -> None:
    gates, error = entry["gates"] or (), entry.get("error")
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        name=_clean(entry["model"]),
        timestamp=created_at,
        tests=str(len(gates) + bool(error)),
        failures=str(sum(gate["passed"] is False for gate in gates)),
        skipped=str(sum(gate["passed"] is None for gate in gates)),
        errors=str(int(bool(error))),
    )
    for gate in gates:
        case = _add_case(suite, entry, gate["name"])
        limit = gate_limit(gate["name"], gate["limit"])
        found = f"found {gate_value(gate['value'], gate['limit'])}, required {limit}"
        if gate["passed"] is False:
            ElementTree.SubElement(case, "failure", message=found)
        elif gate["passed"] is None:
            ElementTree.SubElement(case, "skipped", message=_clean(gate["reason"]))
        else:
            ElementTree.SubElement(case, "system-out").text = found
    if error:
        case = _add_case(suite, entry, "run")
        ElementTree.SubElement(case, "error", message=_clean(error["message"]))


def _add_case(
    suite: ElementTree.Element, entry: Mapping[str, Any], name: str
) -> ElementTree.Element:
    return ElementTree.SubElement(
        suite, "testcase", classname=_clean(entry["model"]), name=_clean(name)
    )


def _clean(text: str) -> str:
    return _INVALID.sub("\N{REPLACEMENT CHARACTER}", text)
