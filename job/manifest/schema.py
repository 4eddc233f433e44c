"""The manifest's schema: its keys, its defaults, and its constraints as text."""

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

Node = Mapping[str, Any]

SCHEMA_FILE = Path(__file__).parents[1] / "schemas" / "manifest.schema.json"
# Manifests of the wheel that run without files of the user.
EXAMPLES = ("digits", "detection-digits")

_ARTICLES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "an array",
    "object": "an object",
    "null": "null",
}


@dataclass(frozen=True)
class Key:
    """One key of the manifest: its JSON pointer, its resolved schema, whether it is required."""

    pointer: str
    node: Node
    required: bool

    @property
    def name(self) -> str:
        """The last part of the pointer."""
        return self.pointer.rpartition("/")[2]


def example_file(name: str) -> Path | None:
    """Return the manifest of an example that the package contains; None for another name."""
    return SCHEMA_FILE.parents[1] / "examples" / f"{name}.json" if name in EXAMPLES else None


@cache
def schema() -> Node:
    """Return the schema; it is read once."""
    document: Node = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return document


def resolve(node: Node) -> Node:
    """Follow a ``$ref`` to ``$defs``; keys next to the ``$ref`` take precedence."""
    if "$ref" not in node:
        return node
    target = schema()["$defs"][node["$ref"].rpartition("/")[2]]
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def properties(node: Node) -> dict[str, Node]:
    """Return the resolved schemas of an object's keys, in the schema's order."""
    return {name: resolve(child) for name, child in node.get("properties", {}).items()}


@cache
def keys() -> tuple[Key, ...]:
    """Return every key of the manifest in the schema's order, parents before children."""
    return tuple(_keys("", schema()))


@cache
def keys_and_items() -> tuple[Key, ...]:
    """Return :func:`keys` and the keys of the items of each array of objects."""
    return tuple(_keys("", schema(), items=True))


def _keys(parent: str, node: Node, *, items: bool = False) -> Iterator[Key]:
    if items and "items" in node:
        node = resolve(node["items"])
    required = node.get("required", ())
    for name, child in properties(node).items():
        pointer = f"{parent}/{name}"
        yield Key(pointer, child, name in required)
        yield from _keys(pointer, child, items=items)


def types(node: Node) -> tuple[str, ...]:
    """Return the allowed JSON types of a value."""
    kind = node["type"]
    return (kind,) if isinstance(kind, str) else tuple(kind)


def fill(value: Any, node: Node) -> Any:
    """Copy a value in the schema's order, with the default of each missing key."""
    if isinstance(value, list) and "items" in node:
        return [fill(item, node["items"]) for item in value]
    children = properties(node)
    if not isinstance(value, dict) or not children:
        return value
    filled = {}
    for name, child in children.items():
        if name in value:
            filled[name] = fill(value[name], child)
        elif "default" in child:
            filled[name] = fill(copy.deepcopy(child["default"]), child)
    return filled | {name: item for name, item in value.items() if name not in children}


def normalise(value: Any, node: Node) -> Any:
    """Convert 3.0 to 3 or 3 to 3.0 by the schema's type, so that equal settings give equal JSON."""
    if isinstance(value, dict):
        children = properties(node)
        # Objects with arbitrary keys, such as `set` of a matrix entry, are not converted.
        return {
            name: normalise(item, children[name]) if name in children else item
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [normalise(item, node["items"]) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if "number" in types(node) else int(value)
    return value


def expected(node: Node) -> str:
    """Describe the allowed values, for example ``an integer of at least 1, or null``."""
    if "enum" in node:
        return _choices(node["enum"])
    phrases = [_phrase(kind, node) for kind in types(node)]
    return ", or ".join(phrases)


def _choices(values: list[Any]) -> str:
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return texts[0] if len(texts) == 1 else "one of " + ", ".join(texts)


def _phrase(kind: str, node: Node) -> str:
    text = _ARTICLES[kind]
    if kind == "string":
        if "title" in node:
            return f"a string ({node['title']})"
        return "a non-empty string" if node.get("minLength") else text
    if kind in ("integer", "number"):
        return text + _range(node)
    if kind == "array":
        title = f" ({node['title']})" if "title" in node else ""
        return f"{text} of {_length(node)}{title}, each {expected(node['items'])}"
    return text


def _range(node: Node) -> str:
    bounds = [
        f"{words} {node[keyword]}"
        for keyword, words in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "more than"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "less than"),
        )
        if keyword in node
    ]
    return f" of {' and '.join(bounds)}" if bounds else ""


def _length(node: Node) -> str:
    low, high = node.get("minItems", 0), node.get("maxItems")
    distinct = "distinct " if node.get("uniqueItems") else ""
    if low == high:
        return f"{low} {distinct}values"
    if high is not None:
        return f"{low} to {high} {distinct}values"
    return f"{low} or more {distinct}values" if low else f"{distinct}values"
