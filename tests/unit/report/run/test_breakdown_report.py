"""Sections and terminal texts of the breakdown of a call's time."""

import pytest
from sample_report import as_html, as_markdown, breakdown_part, sample_report
from sample_variants import on_terminal

from job.report.render import schema_check
from job.report.run import breakdown, breakdown_plot


def report_of(*parts, failed=None):
    report = sample_report()
    report["breakdown"] = list(parts)
    if failed:
        report["status"] = "gate_failed"
        for gate in report["gates"]:
            gate["passed"] = gate["name"] != failed
    schema_check.validate(report)
    return report


def titles_of(report):
    return [breakdown.title_of(report, part) for part in report["breakdown"]]


@pytest.fixture
def both_caps():
    return report_of(breakdown_part("avx512_core_vnni"), breakdown_part())


def test_a_failing_speed_gate_prints_it(both_caps):
    titles = titles_of(both_caps)
    passed = on_terminal(both_caps, 80)
    assert [title for title in titles if title in passed] == []
    text = on_terminal(report_of(*both_caps["breakdown"], failed="min_speedup"), 80)
    assert "avx512_core_vnni" in titles[0]
    capped, uncapped = text.partition(f"{titles[0]}\n")[2].split(f"{titles[1]}\n")
    for part in (capped, uncapped):
        assert "1 image on 1 thread" in part
        assert "• Reorders take 0.250 ms (25%)" in part
        assert "reorder: change of sign" in part


def test_another_failing_gate_does_not(both_caps):
    text = on_terminal(report_of(*both_caps["breakdown"], failed="max_top1_drop"), 80)
    assert [title for title in titles_of(both_caps) if title in text] == []


@pytest.mark.parametrize("width", [80, 160])
def test_it_fits_a_terminal(width):
    text = on_terminal(report_of(breakdown_part(), failed="min_speedup"), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "whole call" in text


def test_fp32_stands_beside_int8_by_kind():
    rows = {row[0]: row[1:] for row in breakdown.kinds_grid(breakdown_part()).rows}
    assert list(rows) == [
        "convolution",
        "reorder: change of sign",
        "matrix product",
        "eltwise",
        "outside primitives",
        "whole call",
    ]
    assert rows["convolution"] == ("2.29×", "1.60", "0.700", "54.7", "2", "2")
    assert rows["reorder: change of sign"] == ("–", "–", "0.250", "19.5", "", "2")
    assert rows["eltwise"] == ("–", "0.150", "–", "0.0", "2", "")
    assert rows["outside primitives"] == ("0.14×", "0.040", "0.280", "21.9", "", "")
    assert rows["whole call"] == ("1.55×", "1.99", "1.28", "100.0", "", "")


def test_summary_tells_reorders_fp32_and_islands():
    part = breakdown_part()
    text = breakdown.summary_text(part)
    figures = ("1.99 ms", "1.28 ms", "25%", "0.031 ms")
    assert [figure for figure in figures if figure not in text] == []
    assert text.endswith("linear_0.tmp_0 (fc).")
    part["islands"] = [{"op": f"conv2d_{i}.tmp_0", "type": "conv2d"} for i in range(7)]
    assert "conv2d_4.tmp_0 (conv2d) and 2 more." in breakdown.summary_text(part)
    part["islands"] = []
    assert "tmp_0" not in breakdown.summary_text(part)


def test_without_advice_the_largest_part_is_named():
    part = breakdown_part()
    part["advice"] = []
    (sentence,) = breakdown.advice_of(part)
    for value in ("0.700 of 1.28 ms", "convolution", "2.29×"):
        assert value in sentence
    part["int8"] = {"milliseconds": 0.0, "kinds": []}
    (sentence,) = breakdown.advice_of(part)
    assert "no primitive" in sentence


def test_layers_are_told_by_name_and_shape():
    first, second = breakdown.slowest_grid(breakdown_part()).rows
    assert first == (
        "conv2d_7.tmp_0",
        "2.00×",
        "0.250",
        "0.125",
        "3×3/2 64→128, 32×32",
        "brgconv:avx512_core_amx +sum +relu",
    )
    assert second[:5] == ("–", "–", "–", "0.050", "512→10")


def test_a_long_list_of_ops_in_fp32_is_shortened():
    part = breakdown_part()
    part["left_in_fp32"] *= 14
    grid = breakdown.fp32_primitives_grid(part)
    assert len(grid.rows) == 10
    assert "4 more" in grid.note
    title = f"### {grid.title}"
    assert title in as_markdown(report_of(part))
    part["left_in_fp32"] = []
    assert title not in as_markdown(report_of(part))


def test_the_picture_groups_kinds():
    part = breakdown_part()
    part["int8"]["kinds"].append({"kind": "reorder: copy", "count": 1, "milliseconds": 0.5})
    assert breakdown_plot.groups_of(part, "int8") == {
        "convolution": 0.7,
        "matrix product": 0.05,
        "reorder": 0.75,
        "outside primitives": 0.28,
    }
    assert breakdown_plot.groups_of(part, "fp32")["other primitive"] == 0.15


def test_a_single_part_needs_no_name():
    report = sample_report()
    (title,) = titles_of(report)
    assert ":" not in title
    assert f"\n## {title}\n" in as_markdown(report)


def test_html_has_one_picture_and_a_section_for_each_cap(both_caps):
    text = as_html(both_caps)
    assert [text.count(f">{title}</h2>") for title in titles_of(both_caps)] == [1, 1]
    assert text.count("<svg") == as_html(sample_report()).count("<svg")
    assert "var(--part-1)" in text
