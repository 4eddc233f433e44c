"""Pictures of saved programs."""

import re
from xml.etree import ElementTree

import pytest
import tiny

from job.engine.compare import draw_graph
from job.engine.int8 import build as int8

pytestmark = pytest.mark.engine


def test_picture_shows_every_op_and_what_is_folded(resnet18):
    picture = draw_graph.draw(resnet18.folder / "model")
    root = ElementTree.fromstring(picture)  # noqa: S314
    texts = [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text")]
    ops = sum(resnet18.audit.ops_after.values())
    drawn = [text for text in texts if text.startswith("#")]
    assert len(drawn) == ops
    assert sum("fused_conv2d + add + relu" in text for text in drawn) == 8
    assert draw_graph.INT8_COLOUR in picture
    assert draw_graph.PAIR_COLOUR in draw_graph.draw(resnet18.folder / "fake")


def test_places_are_those_that_skip_ops_knows(tmp_path):
    session = tiny.open_tiny(name="convnet", classes=10, input_shape=(3, 16, 16))
    made = tiny.quantize(session, tmp_path)
    picture = draw_graph.draw(made.folder / "fake")
    place = re.search(r"#(\d+) conv2d<", picture).group(1)
    out = tmp_path / "again"
    out.mkdir()
    types = tiny.SETTINGS["quantize_op_types"]
    audit, _ = int8.build(made.folder / "fake", out, types, made.images, skip_ops=[f"#{place}"])
    assert [op["type"] for op in audit.left_in_fp32 if "skip_ops" in op["reason"]] == ["conv2d"]


def test_lines_never_cover_each_other():
    edges = [(0, 5), (1, 3), (3, 5), (2, 9), (5, 9)]
    lanes = draw_graph.assign_lanes(edges)
    assert lanes[1] == lanes[2] == 0
    for i, (a, b) in enumerate(edges):
        for j, (c, d) in enumerate(edges[:i]):
            assert lanes[i] != lanes[j] or b <= c or d <= a
