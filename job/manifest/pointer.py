"""JSON pointers (RFC 6901): format, parse, and set a value."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from job.errors import Fault, ManifestError

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def pointer(path: Sequence[str | int]) -> str:
    """Format a path as a JSON pointer; unprintable characters become JSON escapes."""
    return "".join("/" + _printable(str(part)) for part in path)


def _printable(part: str) -> str:
    text = part if part.isprintable() else json.dumps(part)[1:-1]
    return text.replace("~", "~0").replace("/", "~1")


def split_pointer(text: str) -> tuple[str, ...]:
    """Parse ``/train/epochs`` or ``train.epochs``; an empty text is the whole document."""
    if not text:
        return ()
    if not text.startswith("/"):
        return tuple(text.split("."))
    parts = text[1:].split("/")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in parts)


def put(
    node: Any, path: Sequence[str], value: Any, missing: Callable[[tuple[str, ...]], str]
) -> Any:
    """Return a copy of ``node`` with one value replaced or added.

    Args:
        node: a JSON value; it is not changed.
        path: keys and decimal list indexes from ``node`` to the value.
        value: the new value.
        missing: returns a suggestion for a path that does not exist.

    Raises:
        ManifestError: a parent of the value does not exist.
    """
    return _put(node, tuple(path), value, missing, 0)


def _put(
    node: Any,
    path: tuple[str, ...],
    value: Any,
    missing: Callable[[tuple[str, ...]], str],
    depth: int,
) -> Any:
    here, last, name = path[:depth], depth == len(path) - 1, path[depth]
    if isinstance(node, list):
        index = int(name) if _INDEX.fullmatch(name) else len(node)
        if index >= len(node):
            _missing(path, here, f"has {len(node)} items, so index {name} does not exist", "")
        new = value if last else _put(node[index], path, value, missing, depth + 1)
        return [*node[:index], new, *node[index + 1 :]]
    if not isinstance(node, dict):
        _missing(path, here, "is not an object or array, so it has no keys to set", "")
    if last:
        return {**node, name: value}
    if name not in node:
        _missing(path, path[: depth + 1], "does not exist", missing(path))
    return {**node, name: _put(node[name], path, value, missing, depth + 1)}


def _missing(path: Sequence[str], parent: Sequence[str], message: str, suggestion: str) -> NoReturn:
    fault = Fault(
        pointer(path), f"--set cannot set this key: {pointer(parent) or '/'} {message}", suggestion
    )
    raise ManifestError("--set", (fault,))
