"""The fastest configuration of each scenario, in the report and in deploy.json."""

from typing import Any

from sample_report import as_markdown, benchmark_entry, engine_entry, sample_report

from job.report.deploy import deploy_records
from job.report.render import schema_check
from job.report.run import plots
from job.report.run.scenarios import scenarios_grid
from job.report.scenarios import fastest

INTERFACE = {"input": "image", "output": "scores", "probabilities": False}


def measured() -> dict[str, Any]:
    """A report: the engine is the fastest at batch 1, oneDNN at batch 50 and with 2 instances."""
    report = sample_report()
    report["models"]["paddle_openvino"] = {"path": "int8_paddle_openvino", "bytes": 1024}
    single = benchmark_entry(1, 500.0, 800.0)
    single["engines"] = {"paddle_openvino": engine_entry("paddle_openvino", 1, 500.0, 900.0)}
    several = benchmark_entry(1, 900.0, 1700.0, instances=2, scenario="throughput")
    several["engines"] = {"paddle_openvino": engine_entry("paddle_openvino", 1, 900.0, 1600.0)}
    report["benchmark"] = [single, several, benchmark_entry(50, 1000.0, 3000.0)]
    return report


def test_each_scenario_has_its_fastest_configuration() -> None:
    rows = {row[0]: row[1:7] for row in scenarios_grid(measured()).rows}
    assert rows == {
        "SingleStream": (
            "int8_paddle_openvino/", "OpenVINO in Paddle", "1", "1", "1", "900",
        ),
        "Offline": ("int8/", "Paddle", "50", "1", "1", "3,000"),
        "Parallel instances": ("int8/", "Paddle", "1", "1", "2", "1,700"),
    }  # fmt: skip
    assert "Fastest configuration by scenario" in as_markdown(measured())


def test_the_plot_of_throughput_has_a_bar_for_each_engine() -> None:
    figure, _ = plots.throughput(measured())
    bars = [container for axes in figure.axes for container in axes.containers]
    heights = [[bar.get_height() for bar in container] for container in bars]
    assert heights == [[500, 900, 1000], [800, 1700, 3000], [900, 1600, 0]]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["FP32", "INT8", "INT8 in OpenVINO in Paddle"]


def test_scenarios_that_were_not_measured_are_missing() -> None:
    report = sample_report()
    report["benchmark"] = [benchmark_entry(50, 1000.0, 3000.0)]
    assert [row[0] for row in scenarios_grid(report).rows] == ["Offline"]
    assert fastest([]) == {}


def test_the_deployment_record_has_the_scenarios_with_percentiles() -> None:
    report = measured()
    for name in ("fp32", "int8", "paddle_openvino"):
        report["models"][name]["interface"] = dict(INTERFACE)
    report["data"] |= {"class_names": None, "normalised": True}
    report["benchmark"][0]["engines"]["paddle_openvino"]["samples"] = 12
    for record in deploy_records(report).values():
        schema_check.validate_deploy(record)
        single = record["scenarios"]["single_stream"]
        assert (single["folder"], single["engine"]) == ("int8_paddle_openvino", "paddle_openvino")
        assert single["p90_ms"] >= single["p50_ms"]
        assert single["p99_ms"] is None
        assert record["scenarios"]["parallel_instances"]["instances"] == 2
