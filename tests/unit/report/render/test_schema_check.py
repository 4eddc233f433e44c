"""The schema of report.json and the consistency checks."""

import math

import jsonschema
import pytest
from html_page import objects
from sample_report import sample_report
from sample_variants import failed_report

from job.errors import OutputError
from job.report.render import schema_check


def test_schema_is_a_valid_schema():
    jsonschema.Draft202012Validator.check_schema(schema_check.schema())


def test_schema_is_strict_but_for_the_manifest_and_describes_every_key():
    places = dict(objects(schema_check.schema()))
    loose = [p for p, s in places.items() if s.get("additionalProperties", True) is True]
    assert loose == ["/properties/manifest"]
    for place, schema in places.items():
        for key, value in schema.get("properties", {}).items():
            assert value.get("description"), f"{place}/{key}"


def test_sample_is_valid():
    schema_check.validate(sample_report())


def test_every_fault_is_listed_with_its_pointer():
    report = sample_report()
    del report["isa"]
    report["accuracy"]["int8"]["top1"] = 101
    report["benchmark"][1]["ratio"] = "3.5"
    report["host"]["colour"] = "blue"
    with pytest.raises(OutputError, match="4 faults") as caught:
        schema_check.validate(report)
    message = str(caught.value)
    assert "/accuracy/int8/top1: 101 is greater than the maximum of 100" in message
    assert "/benchmark/1/ratio: '3.5' is not of type 'number'" in message
    assert "'isa' is a required property" in message
    assert "/host: Additional properties are not allowed ('colour' was unexpected)" in message


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_json_does_not_know_are_refused(value):
    report = sample_report()
    report["training"]["qat"]["history"][3]["loss"] = value
    with pytest.raises(OutputError, match="/training/qat/history/3/loss: expected a finite number"):
        schema_check.validate(report)


def test_values_that_json_cannot_hold_are_refused():
    report = sample_report()
    report["notes"] = [object()]
    with pytest.raises(OutputError, match="cannot be written as JSON"):
        schema_check.validate(report)


def test_tuples_are_written_as_arrays():
    report = sample_report()
    report["accuracy"]["fp32"]["top1_interval"] = (84.0, 86.0)
    schema_check.validate(report)


def test_status_agrees_with_the_gates():
    report = sample_report()
    report["gates"][0]["passed"] = False
    with pytest.raises(OutputError, match="'gate_failed' because these gates failed: max_top1"):
        schema_check.validate(report)
    report = failed_report()
    report["gates"][1]["passed"] = True
    with pytest.raises(OutputError, match="expected 'passed' because no gate failed"):
        schema_check.validate(report)


def test_intervals_are_ordered():
    report = sample_report()
    report["benchmark"][0]["ratio_interval"] = [1.6, 1.5]
    with pytest.raises(OutputError, match=r"/benchmark/0/ratio_interval: expected \[low, high\]"):
        schema_check.validate(report)


def test_histogram_has_one_more_edge_than_counts():
    report = sample_report()
    report["benchmark"][0]["int8"]["histogram"]["counts"].append(0)
    with pytest.raises(OutputError, match="/benchmark/0/int8/histogram/edges_ms: expected"):
        schema_check.validate(report)
