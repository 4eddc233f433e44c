"""Rendering as Markdown and HTML, and escaping of user data."""

import re
from xml.etree import ElementTree

from html_page import ATTACK, Page
from sample_report import as_html, as_markdown, sample_report
from sample_variants import attacked_report, failed_report

from job.report import plots

# markdown


def test_markdown_holds_both_tables():
    text = as_markdown(sample_report())
    assert "| INT8 | 85.12 | 84.11–86.08 | −0.12 | 99.32 | 99.05–99.51 | −0.04 |" in text
    assert "| 50 | 1 | 3.51× | 3.47–3.55 | 1,672 | 5,867 |" in text
    assert "| 1 | 1 | INT8 | 1.28 |" in text
    assert "| test | 5,000 | val_dir, as given |" in text
    assert "| conv2d_0.tmp_0 | conv2d | its input has no scale |" in text
    paired = sample_report()["accuracy"]["paired"]
    assert (paired["fp32_only_right"], paired["int8_only_right"]) == (31, 25)
    assert re.search(r"FP32: 31 images\b.* INT8: 25 images\b", text)


def test_markdown_rows_have_as_many_cells_as_their_header():
    widths = []
    for line in as_markdown(attacked_report()).split("```")[0].splitlines():
        if line.startswith("|"):
            widths.append(len(re.findall(r"(?<!\\)\|", line)))
        elif widths:
            assert len(set(widths)) == 1, widths
            widths = []


def test_markdown_escapes_user_text():
    text = as_markdown(attacked_report())
    prose = text.split("```")[0]
    assert "<script" not in prose
    assert "<img" not in prose
    assert "a\\|b \\`c\\`" in prose


def test_markdown_fence_is_longer_than_any_in_the_manifest():
    report = sample_report()
    report["manifest"]["name"] = "```` <b>"
    assert "`````json" in as_markdown(report)


# html


def test_html_is_the_same_bytes_each_time():
    assert as_html(sample_report()) == as_html(sample_report())


def test_html_loads_nothing_and_runs_nothing():
    page = Page(as_html(attacked_report()))
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "image", "base"}
    for _, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action"):
                assert value.startswith("#")
    policies = [a for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies[0]["content"].startswith("default-src 'none'")


def test_html_shows_user_text_as_it_stands():
    page = Page(as_html(attacked_report()))
    for place in (ATTACK, f"{ATTACK}: FP32 to INT8"):
        assert place in page.texts
    # Every place that the attack was put in, but for the many in one text.
    assert page.texts.count(ATTACK) >= 14


def test_html_has_every_picture_and_unique_ids():
    text = as_html(sample_report())
    page = Page(text)
    assert [tag for tag, _ in page.elements].count("svg") == 6
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for target in re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text):
        assert target in ids


def test_pictures_are_well_formed_and_take_the_pages_colours():
    # Only detectors have curves; their report has its own test.
    for name in set(plots.PICTURES) - {"curves"}:
        picture, caption = plots.draw(name, sample_report())
        ElementTree.fromstring(picture)  # noqa: S314 -- our own picture
        assert caption
        assert not re.findall(r"(?:fill|stroke): #\w+", picture)
        assert "<text" in picture


def test_html_glance_and_verdict():
    page = Page(as_html(failed_report()))
    for value in ("Failed", "1.55–3.51×", "−0.12 points", "3.85× smaller", "FAILED"):
        assert value in page.texts
