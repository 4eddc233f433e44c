"""The gates as JUnit XML."""

from typing import Any
from xml.etree.ElementTree import Element

from defusedxml import ElementTree
from html_page import ATTACK
from sample_matrix import fail, sample_matrix
from sample_report import sample_report

from job.report.junit import junit


def suites(report: dict[str, Any]) -> list[Element]:
    return list(ElementTree.fromstring(junit(report)))


def test_gates_of_a_run() -> None:
    report = sample_report()
    gates = report["gates"]
    gates[0] |= {"passed": False, "value": 0.7}
    gates[1] |= {"passed": None, "reason": f"{ATTACK}\x01"}
    (suite,) = suites(report)
    counts = {name: suite.attrib[name] for name in ("tests", "failures", "skipped", "errors")}
    assert counts == {"tests": "3", "failures": "1", "skipped": "1", "errors": "0"}
    first, second, third = suite
    assert first.attrib == {"classname": report["name"], "name": "max_top1_drop"}
    (failure,) = first
    assert failure.attrib["message"] == "found 0.70, required at most 0.5"
    assert second[0].tag == "skipped"
    assert second[0].attrib["message"].startswith(ATTACK)
    assert third.find("failure") is None


def test_a_model_of_a_matrix_that_failed() -> None:
    report = sample_matrix()
    fail(report, 1, "the loss is NaN", 1)
    found = suites(report)
    assert [suite.attrib["name"] for suite in found] == [e["model"] for e in report["matrix"]]
    assert [suite.attrib["errors"] for suite in found] == ["0", "1", "0"]
    assert found[1].find("testcase/error").attrib["message"] == "the loss is NaN"
