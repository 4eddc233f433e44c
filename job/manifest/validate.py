"""What is wrong with a document according to the schema: one fault for each place, in words."""

import json
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from job.errors import Fault
from job.manifest.pointer import pointer
from job.manifest.schema import Node, expected, keys, properties, schema
from job.text_format import closest

# Nobody reads more, and a document of nothing but faults would take minutes to describe.
MOST_FAULTS = 200
_SHOWN = 60


def schema_faults(document: Any) -> tuple[Fault, ...]:
    """List every fault of a document, at most one for each pointer, and at most ``MOST_FAULTS``."""
    # 70 ms, too much for whatever only imports this module
    from jsonschema import Draft202012Validator

    schema_errors = Draft202012Validator(schema()).iter_errors(document)
    every = chain(
        # First, because another fault of a secret would show it.
        secret_faults(document),
        chain.from_iterable(
            _faults(error.validator, error.absolute_path, error.instance, error.schema)
            for error in schema_errors
        ),
        text_faults(document),
        _not_finite(document, []),
    )
    found: dict[str, Fault] = {}
    for fault in every:
        found.setdefault(fault.pointer, fault)
        if len(found) == MOST_FAULTS:
            break
    return tuple(found.values())


def _faults(keyword: str, path: Sequence[str | int], value: Any, node: Node) -> Iterator[Fault]:
    if keyword == "additionalProperties":
        for name in value:
            if name in node["properties"]:
                continue
            if is_secret_key(name):
                yield secret_fault([*path, name])
            else:
                yield Fault(pointer([*path, name]), "unknown key", suggest_key(name, node))
    elif keyword == "required":
        children = properties(node)
        for name in node["required"]:
            if name not in value:
                wanted = f"missing; expected {expected(children[name])}"
                yield Fault(pointer([*path, name]), wanted)
    else:
        message = f"expected {expected(node)}, found {show(value)}"
        yield Fault(pointer(path), message, suggest_value(value, node))


def _not_finite(value: Any, path: Sequence[str | int]) -> Iterator[Fault]:
    """Find NaN and infinity, which no bound of the schema catches; JSON files cannot hold them."""
    pending: list[tuple[tuple[str | int, ...], Any]] = [(tuple(path), value)]
    while pending:
        here, item = pending.pop()
        if isinstance(item, dict):
            pending.extend(((*here, str(name)), child) for name, child in item.items())
        elif isinstance(item, list):
            pending.extend(((*here, index), child) for index, child in enumerate(item))
        elif isinstance(item, float) and not math.isfinite(item):
            yield Fault(pointer(here), f"expected a JSON number, found {item}")


def show(value: Any) -> str:
    """Show a value in a message, briefly."""
    if isinstance(value, dict):
        return f"an object of {len(value)} keys" if value else "an empty object"
    if isinstance(value, list):
        nested = any(isinstance(item, dict | list) for item in value)
        text = "" if nested else json.dumps(value)
        if nested or len(text) > _SHOWN:
            return f"an array of {len(value)} values"
        return text
    # ASCII, because a lone surrogate cannot be printed
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def suggest_value(value: Any, node: Node) -> str:
    """Return the allowed value that a wrong one most resembles, or an empty string."""
    choices = [choice for choice in node.get("enum", ()) if isinstance(choice, str)]
    return closest(value, choices) if isinstance(value, str) else ""


def suggest_key(name: str, node: Node) -> str:
    """Return what an unknown key was probably meant to be, or an empty string.

    Args:
        name: the key; ``train.epochs`` is understood too.
        node: the schema of the object that it was found in.

    Returns:
        A key of the same object, or the pointer of a key elsewhere.
    """
    elsewhere = [key.pointer for key in keys() if key.name == name]
    spelled = "/" + name.strip("/").replace(".", "/")
    elsewhere += [key.pointer for key in keys() if key.pointer == spelled]
    if elsewhere:
        return min(elsewhere, key=lambda text: text.count("/"))
    if near := closest(name, list(node["properties"])):
        return near
    by_name = {key.name: key.pointer for key in reversed(keys())}
    return by_name.get(closest(name, list(by_name), cutoff=0.75), "")


def misplaced(path: Sequence[str]) -> str:
    """Return the pointer of the key that a path which leads nowhere was probably meant to be."""
    wanted = pointer(path)
    pointers = [key.pointer for key in keys()]
    same_name = [known for known in pointers if known.endswith(f"/{path[-1]}")]
    return closest(wanted, same_name, 0.3) or closest(wanted, pointers, 0.75)


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
