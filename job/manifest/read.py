"""Strict JSON reading with the line and column of every fault, and parsing of overrides."""

import io
import json
import math
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from job.errors import Fault, ManifestError, UsageError
from job.manifest.pointer import pointer, split_pointer
from job.uri import S3Uri

if TYPE_CHECKING:
    from job.storage.s3.objects import ObjectStore

STDIN = "-"

_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|-?Infinity|NaN|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null',
    re.DOTALL,
)
# The first line of YAML that is neither blank nor a comment.
_YAML = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*(?:---|- |[A-Za-z_$][\w.$-]*:(?:[ \t]|\r?\n|$))")
_IS_YAML = (
    "not JSON: the text looks like YAML, and manifests are JSON. To convert it, run: python -c "
    "'import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin), indent=2))' "
    "< m.yaml > m.json"
)
# A matrix of all built-in networks has about 20,000 bytes.
_MAX_BYTES = 1_000_000
_MAX_FAULTS = 200
_MAX_DIGITS = 300
_MAX_DEPTH = 64
_TOO_LARGE = f"expected at most {_MAX_BYTES:,} bytes, found more; check that this is a manifest"
_TOO_DEEP = f"brackets are nested more than {_MAX_DEPTH} levels deep"


def _to_user(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def read_remote(uri: S3Uri) -> str:
    """Read a manifest from S3; the AWS_* variables set server, region and credentials.

    Raises:
        DataError: the object is missing, or access is denied.
        ManifestError: the object is too large, or not UTF-8.
    """
    # Importing botocore takes 0.3 s, which manifests on a local disk do not need.
    from job.storage.s3.access import input_errors
    from job.storage.s3.client import S3Settings, make_client, make_retry
    from job.storage.s3.objects import ObjectStore

    with input_errors():
        store = ObjectStore(make_client(S3Settings()), make_retry(S3Settings(), _to_user))
    return read_object(uri, store)


def read_object(uri: S3Uri, store: "ObjectStore") -> str:
    """Read a manifest from an object store; see :func:`read_remote`."""
    from job.storage.s3.access import input_errors

    with input_errors():
        head = store.head(uri)
        if head.bytes > _MAX_BYTES:
            _reject(str(uri), _TOO_LARGE)
        content = store.read(uri, etag=head.etag)
    return read_text(str(uri), io.TextIOWrapper(io.BytesIO(content), "utf-8"))


def read_text(source: str, stdin: TextIO | None) -> str:
    """Read ``stdin`` if it is given, standard input if ``source`` is ``-``, otherwise the file.

    A byte order mark, which Windows editors write, is left out.

    Raises:
        UsageError: the file cannot be opened.
        ManifestError: the text is too large or is not UTF-8.
    """
    try:
        if source != STDIN and stdin is None:
            with Path(source).open("rb") as file:
                content = file.read(_MAX_BYTES + 1).decode("utf-8")
        else:
            content = (stdin or sys.stdin).read(_MAX_BYTES + 1)
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8", "replace")
        byte = error.object[error.start]
        _reject(source, f"not UTF-8: byte 0x{byte:02x} at {_place(before, len(before))}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{source}: cannot read the manifest: {reason}",
            "Give the path or S3 URI of a JSON file, the name of an example (digits, "
            "detection-digits), or - for standard input.",
        ) from error
    if len(content) > _MAX_BYTES:
        _reject(source, _TOO_LARGE)
    return content.removeprefix("\ufeff")


def read_json(text: str, source: str) -> Any:
    """Parse strict JSON: no duplicate keys, no NaN, no infinite numbers.

    Raises:
        ManifestError: the text is not strict JSON; each fault has its line and column.
    """
    try:
        document = json.loads(text, parse_int=_parse_int)
    except json.JSONDecodeError as error:
        if _YAML.match(text):
            _reject(source, _IS_YAML)
        found = repr(text[error.pos]) if error.pos < len(text) else "the end of the text"
        place = f"line {error.lineno}, column {error.colno}"
        _reject(source, f"not JSON: {error.msg} at {place}, found {found}")
    except RecursionError:
        _reject(source, _TOO_DEEP)
    if faults := tuple(islice(_scan(text), _MAX_FAULTS)):
        raise ManifestError(source, faults)
    return document


def _parse_int(digits: str) -> float:
    # int() raises ValueError for thousands of digits; _scan reports the position instead.
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf


def _scan(text: str) -> Iterator[Fault]:
    """Yield the faults that ``json.loads`` accepts: duplicate keys, non-finite numbers, depth."""
    # One entry per open bracket: ``seen`` holds the offsets of an object's keys, ``path`` holds the
    # current key or index.
    seen: list[dict[str, int]] = []
    path: list[str | int] = []
    tokens = list(_TOKEN.finditer(text))
    for token, after in zip(tokens, [*tokens[1:], None], strict=True):
        word, start = token.group(), token.start()
        if word in "{[":
            seen.append({})
            path.append("" if word == "{" else 0)
            if len(path) == _MAX_DEPTH + 1:
                yield Fault("", f"{_TOO_DEEP}, at {_place(text, start)}")
        elif word in "}]":
            seen.pop()
            path.pop()
        elif word == ",":
            path[-1] = path[-1] + 1 if isinstance(path[-1], int) else ""
        elif word[0] == '"' and after and after.group() == ":":
            path[-1] = name = json.loads(word)
            if name in seen[-1]:
                places = f"at {_place(text, seen[-1][name])} and at {_place(text, start)}"
                yield Fault(pointer(path), f"duplicate key, {places}")
            seen[-1].setdefault(name, start)
        elif not _is_finite(word):
            number = word if len(word) < 40 else f"a number of {len(word)} digits"
            place = _place(text, start)
            yield Fault(pointer(path), f"expected a finite number, found {number} at {place}")


def _is_finite(word: str) -> bool:
    if word in ("NaN", "Infinity", "-Infinity"):
        return False
    if word[0] not in "-0123456789":
        return True
    return len(word) <= _MAX_DIGITS and math.isfinite(float(word))


def _place(text: str, offset: int) -> str:
    line = text.count("\n", 0, offset) + 1
    return f"line {line}, column {offset - text.rfind(chr(10), 0, offset)}"


def _reject(source: str, message: str) -> NoReturn:
    raise ManifestError(source, (Fault("", message),)) from None


def split_override(text: str) -> tuple[tuple[str, ...], Any]:
    """Parse ``pointer=value``; a value that is not strict JSON becomes a string.

    Raises:
        UsageError: the pointer or the ``=`` is missing.
    """
    place, equals, value = text.partition("=")
    if not equals or not place.strip("/. "):
        raise UsageError(
            f"--set {text!r}: expected KEY=VALUE",
            "Write, for example, --set train.max_iters=100 or --set /train/max_iters=100.",
        )
    try:
        return split_pointer(place.strip()), read_json(value, "--set")
    except ManifestError:
        return split_pointer(place.strip()), value
