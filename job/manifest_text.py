"""Texts that no manifest may hold: secrets, and what neither a screen nor a file name can show."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from job.errors import Fault
from job.manifest.read import pointer

# The limits of Linux file systems.
_LONGEST_NAME = 255
_LONGEST_TEXT = 4096
_SECRET_KEY = re.compile(
    "secret|passw|token|credential|(access|api|private|session|auth|signing)key|authorization"
)
# An access key of AWS, and what stands between :// and @ in a URL with a password.
_SECRET_VALUE = re.compile(
    r"(?<![A-Z0-9])(AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])|://[^/\s@]*:[^/\s@]*@"
)
_NO_SECRETS = (
    "looks like a secret, and secrets do not belong in a manifest, which is copied into reports: "
    "boto3 finds credentials in AWS_* variables, a profile or a role"
)


def is_secret_key(name: str) -> bool:
    """Whether a key's value would be a secret, going by its name."""
    return _SECRET_KEY.search(re.sub("[^a-z]", "", name.lower())) is not None


def secret_fault(path: Sequence[str | int]) -> Fault:
    """The fault of a key or value that looks like a secret; it does not show the value."""
    return Fault(pointer(path), _NO_SECRETS)


def secret_faults(document: Any) -> Iterator[Fault]:
    """Find every text in a document that looks like a secret."""
    for path, text in _texts(document):
        if _SECRET_VALUE.search(text):
            yield secret_fault(path)


def text_faults(document: Any) -> Iterator[Fault]:
    """Find every text that cannot be shown, or cannot be part of a path for its length."""
    for path, text in _texts(document):
        odd = next((char for char in text if unicodedata.category(char) in ("Cc", "Cs")), None)
        if odd is not None:
            found = f"the character U+{ord(odd):04X}"
            yield Fault(pointer(path), f"expected text that can be printed, found {found}")
        elif len(text.encode()) > _LONGEST_TEXT or any(
            len(part.encode()) > _LONGEST_NAME for part in text.split("/")
        ):
            yield Fault(
                pointer(path),
                f"expected at most {_LONGEST_NAME} bytes between slashes and {_LONGEST_TEXT} in "
                f"all, found {len(text.encode()):,} bytes",
            )


def _texts(document: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the path and the value of every text; keys are no texts."""
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), document)]
    while pending:
        here, item = pending.pop()
        if isinstance(item, dict):
            pending.extend(((*here, str(name)), child) for name, child in item.items())
        elif isinstance(item, list):
            pending.extend(((*here, index), child) for index, child in enumerate(item))
        elif isinstance(item, str):
            yield here, item
