"""Strict reading of a JSON document, with the place of every fault, and overrides of its values."""

import io
import json
import math
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, TextIO

from job.errors import Fault, ManifestError, UsageError
from job.manifest.pointer import pointer, split_pointer
from job.uri import S3Uri

STDIN = "-"

_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|-?Infinity|NaN|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null',
    re.DOTALL,
)
# A matrix of all networks has some 20,000.
_MOST_BYTES = 1_000_000
_MOST_FAULTS = 200
_MAX_DIGITS = 300
_MAX_DEPTH = 64


def read_remote(uri: S3Uri) -> str:
    """Read a manifest from S3; the AWS_* variables tell the way.

    Raises:
        DataError: it is not there, or access to it is refused.
        ManifestError: it is too long, or not UTF-8.
    """
    # botocore takes a third of a second to import: not for manifests on a local disk
    from job.storage.s3.access import input_errors
    from job.storage.s3.client import S3Settings, make_client
    from job.storage.s3.objects import ObjectStore

    with input_errors():
        store = ObjectStore(make_client(S3Settings()))
        found = store.head(uri)
        if found.bytes > _MOST_BYTES:
            _refuse(str(uri), f"more than {_MOST_BYTES:,} bytes; is this a manifest?")
        content = store.read(uri, etag=found.etag)
    return read_text(str(uri), io.TextIOWrapper(io.BytesIO(content), "utf-8"))


def read_text(source: str, stdin: TextIO | None) -> str:
    """Read a file, or standard input when ``source`` is ``-``, or ``stdin`` if it is given.

    Raises:
        UsageError: it cannot be opened.
        ManifestError: it is not UTF-8, or begins with a byte order mark.
    """
    try:
        if source != STDIN and stdin is None:
            with Path(source).open("rb") as file:
                content = file.read(_MOST_BYTES + 1).decode("utf-8")
        else:
            content = (stdin or sys.stdin).read(_MOST_BYTES + 1)
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8", "replace")
        byte = error.object[error.start]
        _refuse(source, f"not UTF-8: byte 0x{byte:02x} at {_place(before, len(before))}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"cannot read the manifest {source}: {reason}",
            "Give the path of a JSON file, or - for standard input.",
        ) from error
    if len(content) > _MOST_BYTES:
        _refuse(source, f"more than {_MOST_BYTES:,} bytes; is this a manifest?")
    if content.startswith("\ufeff"):
        _refuse(source, "a byte order mark stands at line 1, column 1; save it as UTF-8 without")
    return content


def read_json(text: str, source: str) -> Any:
    """Parse strict JSON: no duplicate keys, no NaN, no infinite numbers.

    Raises:
        ManifestError: it is not; each fault with its line and column.
    """
    try:
        document = json.loads(text, parse_int=_parse_int)
    except json.JSONDecodeError as error:
        _refuse(source, f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}")
    except RecursionError:
        _refuse(source, f"brackets within brackets, more than {_MAX_DEPTH} deep")
    if faults := tuple(islice(_scan(text), _MOST_FAULTS)):
        raise ManifestError(source, faults)
    return document


def _parse_int(digits: str) -> float:
    # Python refuses integers of thousands of digits; the scan says where such a one stands.
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf


def _scan(text: str) -> Iterator[Fault]:
    """Yield what ``json.loads`` lets pass, in text that is JSON otherwise."""
    # One entry for each open bracket: in ``seen`` the offsets of an object's keys, in ``path``
    # the key or the index at hand.
    seen: list[dict[str, int]] = []
    path: list[str | int] = []
    tokens = list(_TOKEN.finditer(text))
    for token, after in zip(tokens, [*tokens[1:], None], strict=True):
        word, start = token.group(), token.start()
        if word in "{[":
            seen.append({})
            path.append("" if word == "{" else 0)
            if len(path) == _MAX_DEPTH + 1:
                message = f"brackets within brackets, more than {_MAX_DEPTH} deep"
                yield Fault("", f"{message}, at {_place(text, start)}")
        elif word in "}]":
            seen.pop()
            path.pop()
        elif word == ",":
            path[-1] = path[-1] + 1 if isinstance(path[-1], int) else ""
        elif word[0] == '"' and after and after.group() == ":":
            path[-1] = name = json.loads(word)
            if name in seen[-1]:
                both = f"at {_place(text, seen[-1][name])} and at {_place(text, start)}"
                yield Fault(pointer(path), f"given twice, {both}")
            seen[-1].setdefault(name, start)
        elif not _is_finite(word):
            shown = word if len(word) < 40 else f"a number of {len(word)} digits"
            place = _place(text, start)
            yield Fault(pointer(path), f"expected a JSON number, found {shown} at {place}")


def _is_finite(word: str) -> bool:
    if word in ("NaN", "Infinity", "-Infinity"):
        return False
    if word[0] not in "-0123456789":
        return True
    return len(word) <= _MAX_DIGITS and math.isfinite(float(word))


def _place(text: str, offset: int) -> str:
    line = text.count("\n", 0, offset) + 1
    return f"line {line}, column {offset - text.rfind(chr(10), 0, offset)}"


def _refuse(source: str, message: str) -> NoReturn:
    raise ManifestError(source, (Fault("", message),)) from None


def split_override(text: str) -> tuple[tuple[str, ...], Any]:
    """Read ``pointer=value``; a value that is not strict JSON is taken as a string.

    Raises:
        UsageError: there is no pointer, or no ``=``.
    """
    place, equals, value = text.partition("=")
    if not equals or not place.strip("/. "):
        raise UsageError(
            f"--set {text!r}: expected pointer=value",
            "For example --set train.max_iters=100, or --set /train/max_iters=100.",
        )
    try:
        return split_pointer(place.strip()), read_json(value, "--set")
    except ManifestError:
        return split_pointer(place.strip()), value
