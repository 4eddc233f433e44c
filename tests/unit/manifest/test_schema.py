import dataclasses
import typing
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from job.manifest import Manifest
from job.manifest.schema import keys, properties, resolve, schema


def test_schema_is_a_valid_2020_12_schema() -> None:
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("key", keys(), ids=lambda key: key.pointer)
def test_every_key_documents_itself(key: Any) -> None:
    assert len(key.node["description"]) > 20
    assert key.node["description"].endswith(".")
    assert key.node["examples"]
    assert key.required != ("default" in key.node)
    # resolve() inlines $ref targets, so one key can be validated alone.
    alone = {**key.node, "$defs": schema()["$defs"]}
    samples = [*key.node["examples"], *([] if key.required else [key.node["default"]])]
    for sample in samples:
        assert list(Draft202012Validator(alone).iter_errors(sample)) == []


@pytest.mark.parametrize("key", keys(), ids=lambda key: key.pointer)
def test_every_key_is_strict_and_bounded(key: Any) -> None:
    node = key.node
    kinds = [node["type"]] if isinstance(node["type"], str) else node["type"]
    if "object" in kinds:
        assert node["additionalProperties"] is False
    if {"integer", "number"} & set(kinds) and "enum" not in node:
        assert {"minimum", "exclusiveMinimum"} & set(node)
        assert {"maximum", "exclusiveMaximum"} & set(node)
    if "pattern" in node:
        assert node["title"]


def test_root_is_strict() -> None:
    assert schema()["additionalProperties"] is False


def _assert_same(kind: type, node: Any, extra: set[str]) -> None:
    hints = typing.get_type_hints(kind)
    children = {
        name: child for name, child in properties(node).items() if len(child.get("enum", "ab")) > 1
    }
    assert set(hints) == set(children) - {"$schema"} | extra
    for name, child in children.items():
        if "properties" in child:
            _assert_same(_record_in(hints[name]), child, set())
        elif "properties" in child.get("items", {}):
            _assert_same(_record_in(hints[name]), child["items"], set())


def _record_in(hint: Any) -> type:
    """Return the record type in ``Spec``, ``Spec | None`` or ``tuple[Spec, ...] | None``."""
    inner = [_record_in(part) for part in typing.get_args(hint) if part is not ...]
    records = [part for part in (hint, *inner) if dataclasses.is_dataclass(part)]
    return records[0] if records else type(None)


def test_records_have_exactly_the_schemas_keys_with_several_values() -> None:
    extra = {"version", "resolved", "base", "prefix", "localized"}
    _assert_same(Manifest, schema(), extra)


def test_resolve_prefers_what_stands_beside_a_reference() -> None:
    node = resolve({"$ref": "#/$defs/epochs", "default": 5})
    assert node["default"] == 5
    assert node["type"] == "integer"
