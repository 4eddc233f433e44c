"""Validates a document against the schema, and reports at most one fault per place."""

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

# A document with many thousand faults would take minutes to describe.
MAX_FAULTS = 200
_MAX_SHOWN = 60
# A suggestion would not be noticed after a longer list of values.
_MAX_LISTED = 10
# Names that other tools give to our keys, in lower case without punctuation.
_OTHER_NAMES = {
    "imagesize": "input_shape",
    "iterations": "max_iters",
    "learningrate": "base_lr",
    "lr": "base_lr",
    "normalization": "mean",
    "normalize": "mean",
    "numclasses": "classes",
    "steps": "max_iters",
}


def schema_faults(document: Any) -> tuple[Fault, ...]:
    """Return the faults of a document: at most one per pointer, and at most ``MAX_FAULTS``."""
    # Importing jsonschema takes 70 ms, which other users of this module do not need.
    from jsonschema import Draft202012Validator

    schema_errors = Draft202012Validator(schema()).iter_errors(document)
    all_faults = chain(
        # Secrets come first, because any other fault would print the value.
        secret_faults(document),
        chain.from_iterable(
            _faults(error.validator, error.absolute_path, error.instance, error.schema)
            for error in schema_errors
        ),
        text_faults(document),
        _not_finite(document, []),
    )
    by_pointer: dict[str, Fault] = {}
    for fault in all_faults:
        by_pointer.setdefault(fault.pointer, fault)
        if len(by_pointer) == MAX_FAULTS:
            break
    return tuple(by_pointer.values())


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
        near = suggest_value(value, node)
        wanted = _counted(path, node) if near else expected(node)
        yield Fault(pointer(path), f"expected {wanted}, found {show(value)}", near)


def _counted(path: Sequence[str | int], node: Node) -> str:
    """Describe the allowed values; a long list is replaced by the command that prints it."""
    count = len(node["enum"])
    if count <= _MAX_LISTED:
        return expected(node)
    # `job explain` takes no positions in arrays.
    key = ".".join(name for name in path if isinstance(name, str))
    return f"one of {count} values (`job explain {key}` lists them)"


def _not_finite(value: Any, path: Sequence[str | int]) -> Iterator[Fault]:
    """Yield a fault for each NaN or infinity, which the bounds of a JSON schema accept."""
    pending: list[tuple[tuple[str | int, ...], Any]] = [(tuple(path), value)]
    while pending:
        here, item = pending.pop()
        if isinstance(item, dict):
            pending.extend(((*here, str(name)), child) for name, child in item.items())
        elif isinstance(item, list):
            pending.extend(((*here, index), child) for index, child in enumerate(item))
        elif isinstance(item, float) and not math.isfinite(item):
            yield Fault(pointer(here), f"expected a finite number, found {item}")


def show(value: Any) -> str:
    """Return a short text of a value for messages."""
    if isinstance(value, dict):
        return f"an object with {len(value)} keys" if value else "an empty object"
    if isinstance(value, list):
        nested = any(isinstance(item, dict | list) for item in value)
        text = "" if nested else json.dumps(value)
        if nested or len(text) > _MAX_SHOWN:
            return f"an array with {len(value)} values"
        return text
    # json.dumps returns ASCII; a lone surrogate could not be printed.
    text = json.dumps(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def suggest_value(value: Any, node: Node) -> str:
    """Return the allowed value that is most similar to ``value``, or an empty string."""
    choices = [choice for choice in node.get("enum", ()) if isinstance(choice, str)]
    return closest(value, choices) if isinstance(value, str) else ""


def suggest_key(name: str, node: Node) -> str:
    """Return the known key that is most similar to an unknown one, or an empty string.

    Args:
        name: the unknown key; it may be a path such as ``train.epochs``.
        node: the schema of the object that contains the key.

    Returns:
        A key of the same object if one is similar, otherwise the pointer of a key elsewhere.
    """
    plain = _OTHER_NAMES.get(re.sub("[^a-z]", "", name.lower()), name)
    siblings = list(node["properties"])
    if plain in siblings:
        return plain
    if near := closest(name, siblings, cutoff=0.75):
        return near
    as_pointer = "/" + name.strip("/").replace(".", "/")
    elsewhere = [key.pointer for key in keys() if plain == key.name or as_pointer == key.pointer]
    if elsewhere:
        return min(elsewhere, key=lambda text: text.count("/"))
    if near := closest(name, siblings):
        return near
    by_name = {key.name: key.pointer for key in reversed(keys())}
    return by_name.get(closest(name, list(by_name), cutoff=0.75), "")


def misplaced(path: Sequence[str]) -> str:
    """Return the pointer of the known key that is most similar to an unknown path."""
    wanted = pointer(path)
    pointers = [key.pointer for key in keys()]
    same_name = [known for known in pointers if known.endswith(f"/{path[-1]}")]
    return closest(wanted, same_name, 0.3) or closest(wanted, pointers, 0.75)


# Limits of Linux file systems, in bytes.
_MAX_NAME_BYTES = 255
_MAX_PATH_BYTES = 4096
_SECRET_KEY = re.compile(
    "secret|passw|token|credential|(access|api|private|session|auth|signing)key|authorization"
)
# An AWS access key id, and the user name and password in a URL.
_SECRET_VALUE = re.compile(
    r"(?<![A-Z0-9])(AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])|://[^/\s@]*:[^/\s@]*@"
)
_NO_SECRETS = (
    "looks like a secret; remove it, because reports contain the manifest. boto3 reads credentials "
    "from AWS_* variables, a profile or a role"
)


def is_secret_key(name: str) -> bool:
    """Return whether the name of a key suggests that its value is a secret."""
    return _SECRET_KEY.search(re.sub("[^a-z]", "", name.lower())) is not None


def secret_fault(path: Sequence[str | int]) -> Fault:
    """Return the fault for a key or value that looks like a secret, without the value."""
    return Fault(pointer(path), _NO_SECRETS)


def secret_faults(document: Any) -> Iterator[Fault]:
    """Yield a fault for each text in a document that looks like a secret."""
    for path, text in _texts(document):
        if _SECRET_VALUE.search(text):
            yield secret_fault(path)


def text_faults(document: Any) -> Iterator[Fault]:
    """Yield a fault for each text that is unprintable, or too long for a path."""
    for path, text in _texts(document):
        control = next((char for char in text if unicodedata.category(char) in ("Cc", "Cs")), None)
        if control is not None:
            found = f"the character U+{ord(control):04X}"
            yield Fault(pointer(path), f"expected printable text, found {found}")
        elif len(text.encode()) > _MAX_PATH_BYTES or any(
            len(part.encode()) > _MAX_NAME_BYTES for part in text.split("/")
        ):
            yield Fault(
                pointer(path),
                f"expected at most {_MAX_NAME_BYTES} bytes between slashes and {_MAX_PATH_BYTES} "
                f"in total, found {len(text.encode()):,} bytes",
            )


def _texts(document: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the path and the value of every string value in a document."""
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), document)]
    while pending:
        here, item = pending.pop()
        if isinstance(item, dict):
            pending.extend(((*here, str(name)), child) for name, child in item.items())
        elif isinstance(item, list):
            pending.extend(((*here, index), child) for index, child in enumerate(item))
        elif isinstance(item, str):
            yield here, item
