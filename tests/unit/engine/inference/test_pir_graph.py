"""Reading and translating PIR programs without Paddle."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pir_program import attribute, op, program, save, value

from job.engine.inference.pir_file import program_file
from job.engine.inference.pir_graph import read_graph
from job.errors import DataError

SHAPE = attribute("value", "0.a_array", [{"#": "0.a_i64", "D": size} for size in (-1, 2, 2)])
INT64 = attribute("dtype", "1.a_dtype", "int64")


def test_a_constant_becomes_an_attribute(tmp_path: Path) -> None:
    middle = (
        op("1.full_int_array", [], value(3, 3), SHAPE, INT64),
        op("1.reshape", [2, 3], value(4, -1, 2, 2)),
    )
    graph = read_graph(save(tmp_path / "m", program(*middle, last=4)))
    (reshape,) = graph.ops
    assert (reshape.kind, reshape.attributes["shape"]) == ("reshape2", [-1, 2, 2])
    assert list(reshape.inputs) == ["X"]
    assert graph.images == ["x"]
    assert graph.scores == list(reshape.outputs["Out"])
    assert graph.parameters == {"weight"}


def test_generated_names_differ_from_given_names(tmp_path: Path) -> None:
    document = program(op("1.relu", [2], value(3, -1, 4)), last=3)
    ops = document["program"]["regions"][0]["blocks"][0]["ops"]
    ops[0]["A"][3] = "pir_relu_3"
    graph = read_graph(save(tmp_path / "m", document))
    assert graph.parameters == {"pir_relu_3"}
    assert graph.scores[0] not in ("pir_relu_3", "x")


def test_every_unsupported_op_is_named(tmp_path: Path) -> None:
    middle = (op("1.rnn", [2], value(3, -1, 4)), op("3.mine", [3], value(4, -1, 4)))
    with pytest.raises(DataError, match=r"custom_op\.mine, pd_op\.rnn") as caught:
        read_graph(save(tmp_path / "m", program(*middle, last=4)))
    assert "FLAGS_enable_pir_api=0" in caught.value.hint


def test_a_computed_value_for_an_attribute_is_named(tmp_path: Path) -> None:
    pool = op("1.pool2d", [2, 2], value(3, -1, 4))
    with pytest.raises(DataError, match=r"pd_op\.pool2d: .*ksize"):
        read_graph(save(tmp_path / "m", program(pool, last=3)))


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"model": 1}', '{"base_code": {"magic": "other"}}', "[" * 9999],
)
def test_other_json_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"/m\.json: expected a program in Paddle 3's JSON format"):
        read_graph(path)


def _without_blocks(document: Any) -> None:
    document["program"]["regions"] = []


def _with_an_unknown_value(document: Any) -> None:
    document["program"]["regions"][0]["blocks"][0]["ops"][-1]["I"] = [{"%": 7}]


def _with_a_wrong_type(document: Any) -> None:
    document["program"]["regions"][0]["blocks"][0]["ops"][0]["O"]["TT"] = "t_dtensor"


@pytest.mark.parametrize("damage", [_without_blocks, _with_an_unknown_value, _with_a_wrong_type])
def test_damage_is_named(tmp_path: Path, damage: Callable[[Any], None]) -> None:
    document = program()
    damage(document)
    with pytest.raises(DataError, match="damaged"):
        read_graph(save(tmp_path / "m", document))


def test_any_lost_key_is_a_data_error(tmp_path: Path) -> None:
    """Remove each key of a program, one at a time."""
    document = program(
        op("1.full_int_array", [], value(3, 3), SHAPE, INT64),
        op("1.reshape", [2, 3], value(4, -1, 2, 2)),
        op("1.relu", [4], value(5, -1, 2, 2)),
        last=5,
    )
    text = json.dumps(document)
    places = list(_keys(document))
    assert len(places) > 100
    for place in places:
        changed = json.loads(text)
        node = changed
        for key in place[:-1]:
            node = node[key]
        del node[place[-1]]
        path = save(tmp_path / "m", changed)
        try:
            read_graph(path)
        except DataError as error:
            assert str(path) in error.message


def _keys(node: Any, *above: Any) -> Any:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in items:
        yield (*above, key)
        if isinstance(child, dict | list):
            yield from _keys(child, *above, key)


def test_the_legacy_program_has_priority(tmp_path: Path) -> None:
    prefix = tmp_path / "inference.v1"
    assert program_file(prefix) == Path(f"{prefix}.pdmodel")
    save(prefix, program())
    assert program_file(prefix) == Path(f"{prefix}.json")
    Path(f"{prefix}.pdmodel").write_bytes(b"")
    assert program_file(prefix) == Path(f"{prefix}.pdmodel")
