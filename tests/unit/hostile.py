"""Hostile input for tests, made from valid documents, and a check of the result.

Every input must be accepted correctly, or refused by a ``JobError`` with the right exit code and a
printable message. Any other exception fails the test.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from tiers import cases

from job.errors import JobError

T = TypeVar("T")
LONGEST_S = 20.0
LONGEST_MESSAGE = 60_000

COUNTS: dict[str, Counter[str]] = {}

NASTY_NUMBERS = st.sampled_from(
    [0, -1, -0.0, 1, 2, 3.0, 1.5, 1e-300, 1e300, 10**30, -(2**63), 2**63, 2**31, 255, 8192, 10**299]
)
NASTY_TEXTS = st.sampled_from(
    [
        *(
            "",
            " ",
            ".",
            "..",
            "/",
            "~",
            "~nobody/x",
            "../x",
            "/etc/passwd",
            "a/../../b",
            "-",
            "a\\b",
        ),
        *(
            "\0",
            "a\0b",
            "\n",
            "\x1b[2J",
            "\u202e",
            "\ud800",
            "é" * 200,
            "x" * 300,
            "/".join("x" * 3000),
        ),
        *(
            "NaN",
            "null",
            "s3://b/k",
            "s3://",
            "file:///x",
            "os:system",
            "a.b.c:d",
            "AKIA" + "A" * 16,
        ),
        *("https://me:word@host/", "resnet5O", "conv2d", "abs_max", "0" * 64, "𝟙", "％s%n", "{0}"),
    ]
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | NASTY_NUMBERS | NASTY_TEXTS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NASTY_TEXTS, inner, max_size=3),
    max_leaves=5,
)
_FRAGMENTS = st.sampled_from(
    [
        *(b"\0", b"\xff", b"\xff" * 8, b"\x80", b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\"),
        *(b"NaN", b"1e999", b"-", b"9" * 400, b"null", b"[" * 70, b"[" * 3000, b'{"a":' * 80),
        *(b"\xef\xbb\xbf", b"\xed\xa0\x80", b"../", b"/", b"\n", b"\r\n", b"\x7f" * 7, b"\0" * 512),
    ]
)


def examples(count: int) -> settings:
    """Settings for so many examples in test-all, the same ones each time."""
    return settings(max_examples=cases(count), deadline=None, derandomize=True, database=None)


def judged(kind: str, act: Callable[[], T], *allowed: type[JobError]) -> T | None:
    """Call an action with a hostile input, and count whether the input was accepted.

    Args:
        kind: the kind of input, for the counts.
        act: the action.
        allowed: the errors that may refuse the input; their exit codes are checked too.

    Returns:
        The result of ``act``; None if the input was refused.
    """
    counts = COUNTS.setdefault(kind, Counter())
    started = time.monotonic()
    try:
        result = act()
    except JobError as error:
        counts["refused"] += 1
        assert isinstance(error, allowed), f"{type(error).__name__}: {error}"
        assert error.exit_code in {each.exit_code for each in allowed}
        message = str(error)
        assert message.strip()
        assert len(message) < LONGEST_MESSAGE
        assert "Traceback" not in message
        result = None
    else:
        counts["accepted"] += 1
    assert time.monotonic() - started < LONGEST_S
    return result


def damaged(contents: Sequence[bytes], *tokens: bytes) -> st.SearchStrategy[bytes]:
    """A valid content with one to four changes: cut, repeated, flipped or overwritten bytes.

    Args:
        contents: valid contents; a piece of one may be inserted into another.
        tokens: fragments of the format to insert, in addition to the general ones.
    """
    fragments = _FRAGMENTS | st.sampled_from(tokens) if tokens else _FRAGMENTS
    change = st.tuples(st.sampled_from(_CHANGES), st.floats(0, 1), st.floats(0, 1), fragments)
    other = st.sampled_from(contents)
    return st.builds(
        _apply, st.sampled_from(contents), st.lists(change, min_size=1, max_size=4), other
    )


def _apply(
    content: bytes, changes: Sequence[tuple[Any, float, float, bytes]], other: bytes
) -> bytes:
    for change, start, share, fragment in changes:
        place = int(start * len(content))
        content = change(content, place, share, fragment, other)
    return content


def _truncate(content: bytes, place: int, share: float, fragment: bytes, other: bytes) -> bytes:
    return content[:place]


def _flip(content: bytes, place: int, share: float, fragment: bytes, other: bytes) -> bytes:
    if not content:
        return content
    changed = bytearray(content)
    changed[place % len(content)] ^= 1 << int(share * 7)
    return bytes(changed)


def _cut(content: bytes, place: int, share: float, fragment: bytes, other: bytes) -> bytes:
    return content[:place] + content[place + 1 + int(share * 40) :]


def _repeat(content: bytes, place: int, share: float, fragment: bytes, other: bytes) -> bytes:
    return content[:place] + content[place : place + 1 + int(share * 200)] + content[place:]


def _insert(content: bytes, place: int, share: float, fragment: bytes, other: bytes) -> bytes:
    return content[:place] + fragment + content[place:]


def _overwrite(content: bytes, place: int, share: float, fragment: bytes, other: bytes) -> bytes:
    return content[:place] + fragment + content[place + len(fragment) :]


def _splice(content: bytes, place: int, share: float, fragment: bytes, other: bytes) -> bytes:
    return content[:place] + other[int(share * len(other)) :]


_CHANGES = (_truncate, _flip, _cut, _repeat, _insert, _overwrite, _splice)


def twisted(documents: Sequence[Any], pointers: Sequence[str]) -> st.SearchStrategy[bytes]:
    """A valid JSON document with one to three keys replaced, added or removed, as text.

    Args:
        documents: valid documents.
        pointers: JSON pointers of the keys that may be set.
    """
    change = st.tuples(st.sampled_from(pointers), st.booleans(), JSON_VALUES)
    return st.builds(
        _twist, st.sampled_from(documents), st.lists(change, min_size=1, max_size=3), NASTY_TEXTS
    )


def _twist(document: Any, changes: Sequence[tuple[str, bool, Any]], extra: str) -> bytes:
    copy = json.loads(json.dumps(document))
    for pointer, keep, value in changes:
        node, (*parents, last) = copy, pointer.split("/")[1:]
        for name in parents:
            if not isinstance(node.get(name), dict):
                node[name] = {}
            node = node[name]
        if keep:
            node[last] = value
        else:
            node.pop(last, None)
            node[f"{last}{extra}" if value is None else last] = value
    # Half of a surrogate pair can only be written with JSON's escapes.
    return json.dumps(copy).encode()


def counted() -> str:
    """Return the counts so far as lines of text."""
    lines = [
        f"  {kind}: {sum(counts.values()):,} inputs, {counts['accepted']:,} accepted, "
        f"{counts['refused']:,} refused"
        for kind, counts in COUNTS.items()
    ]
    total = sum(sum(counts.values()) for counts in COUNTS.values())
    return "\n".join([f"hostile input: {total:,} inputs", *lines])
