"""JSON pointers: writing and reading them, and setting a value at one."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from job.errors import Fault, ManifestError

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def pointer(path: Sequence[str | int]) -> str:
    """Write a path as a JSON pointer (RFC 6901), what cannot be printed in JSON's escapes."""
    return "".join("/" + _printable(str(part)) for part in path)


def _printable(part: str) -> str:
    text = part if part.isprintable() else json.dumps(part)[1:-1]
    return text.replace("~", "~0").replace("/", "~1")


def split_pointer(text: str) -> tuple[str, ...]:
    """Read ``/train/epochs`` or ``train.epochs``; empty is the whole document."""
    if not text:
        return ()
    if not text.startswith("/"):
        return tuple(text.split("."))
    parts = text[1:].split("/")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in parts)


def put(
    node: Any, path: Sequence[str], value: Any, missing: Callable[[tuple[str, ...]], str]
) -> Any:
    """Return ``node`` with one value replaced or added; ``node`` itself stays as it is.

    Args:
        node: a JSON value.
        path: where; list indexes are decimal.
        value: what to put there.
        missing: gives a did-you-mean for a path that does not exist.

    Raises:
        ManifestError: something that the path leads through does not exist.
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
            _missing(path, here, f"has {len(node)} items, numbered from 0; {name} is none", "")
        new = value if last else _put(node[index], path, value, missing, depth + 1)
        return [*node[:index], new, *node[index + 1 :]]
    if not isinstance(node, dict):
        _missing(path, here, "is not an object or array, so nothing can be set in it", "")
    if last:
        return {**node, name: value}
    if name not in node:
        _missing(path, path[: depth + 1], "does not exist", missing(path))
    return {**node, name: _put(node[name], path, value, missing, depth + 1)}


def _missing(path: Sequence[str], parent: Sequence[str], message: str, suggestion: str) -> NoReturn:
    fault = Fault(
        pointer(path), f"--set cannot reach it: {pointer(parent) or '/'} {message}", suggestion
    )
    raise ManifestError("--set", (fault,))
