"""Loads a manifest: reads JSON, validates it once, and builds frozen dataclasses.

The schema (``schemas/manifest.schema.json``) contains all defaults. The dataclasses have none.
"""

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TextIO, TypeVar

from job.errors import Fault, ManifestError, UsageError
from job.manifest.pointer import put, split_pointer
from job.manifest.read import STDIN, read_json, read_remote, read_text, split_override
from job.manifest.rules import rule_faults
from job.manifest.schema import example_file, fill, normalise, schema
from job.manifest.spec import Manifest
from job.manifest.validate import misplaced, schema_faults, show
from job.uri import S3Uri, is_uri
from job.uri import parse as parse_uri

T = TypeVar("T")

# Keys that the entries of a matrix share and cannot override.
ENTRY_FIXED = ("version", "name", "storage", "run", "output", "matrix")


def load(source: str, overrides: Sequence[str] = (), stdin: TextIO | None = None) -> Manifest:
    """Read and validate a manifest.

    Args:
        source: path of a JSON file, its S3 URI, or ``-`` for standard input.
        overrides: texts such as ``train.max_iters=100`` or ``/train/max_iters=100``.
        stdin: stream that ``-`` reads; ``sys.stdin`` by default.

    Raises:
        UsageError: the file cannot be opened, an S3 URI has no key, or an override has no ``=``.
        DataError: the S3 object is missing or access is denied.
        ManifestError: the manifest is invalid; lists every fault.
    """
    if is_uri(source):
        uri = parse_uri(source)
        if not uri.key:
            raise UsageError(
                f"{source}: cannot read the manifest: expected s3://BUCKET/KEY, found no key",
                "Add the key of the manifest's object.",
            )
        prefix = S3Uri(uri.bucket, uri.key.rpartition("/")[0])
        document = read_json(read_remote(uri), source)
        return parse(document, source, Path.cwd(), overrides, prefix=prefix)
    if (example := example_file(source)) and not Path(source).exists():
        source = str(example)
    document = read_json(read_text(source, stdin), source)
    base = Path.cwd() if source == STDIN else Path(source).absolute().parent
    return parse(document, source, base, overrides)


def parse(
    document: Any,
    source: str,
    base: Path,
    overrides: Sequence[str] = (),
    *,
    prefix: S3Uri | None = None,
) -> Manifest:
    """Validate a JSON document and return a manifest. The document is not changed.

    Args:
        document: manifest as returned by ``json.loads``.
        source: name of the manifest in messages.
        base: folder that paths in the manifest are relative to.
        overrides: as for ``load``.
        prefix: S3 prefix that paths are relative to, for a manifest read from S3.

    Raises:
        UsageError: an override has no ``=``.
        ManifestError: the manifest is invalid; lists every fault.
    """
    changes = [split_override(text) for text in overrides]
    manifest = replace(_parse(document, source, base, changes), prefix=prefix)
    # Validates the overrides of each matrix entry; the result is not needed here.
    entries(manifest, source)
    return manifest


def entries(manifest: Manifest, source: str = "manifest") -> tuple[Manifest, ...]:
    """Return the manifest of each model of a matrix; empty for a single model.

    Each manifest equals the whole manifest with the entry's overrides, and has its own name and
    output folder.

    Raises:
        ManifestError: an override is invalid; lists every fault of every entry.
    """
    single = {**manifest.resolved, "matrix": None}
    manifests, faults = [], []
    for index, entry in enumerate(manifest.matrix or ()):
        changes = [(split_pointer(name), value) for name, value in entry.set.items()]
        place = f"/matrix/{index}/set"
        fixed = [name for (name, *_), _ in changes if name in ENTRY_FIXED]
        changes += [(("name",), entry.name), (("output",), f"{manifest.output}/{entry.name}")]
        faults += [
            Fault(place, f"expected no key {name}, because all entries share its value")
            for name in fixed
        ]
        try:
            entry_manifest = _parse(single, source, manifest.base, changes)
            manifests.append(
                replace(entry_manifest, prefix=manifest.prefix, localized=manifest.localized)
            )
        except ManifestError as error:
            faults += [
                Fault(place, f"{f.pointer}: {f.message}", f.suggestion) for f in error.faults
            ]
    names = [entry.name for entry in manifest.matrix or ()]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    faults += [
        Fault(
            "/matrix",
            f"expected a different name in each entry, found {name} {names.count(name)} times",
        )
        for name in duplicates
    ]
    if faults:
        raise ManifestError(source, tuple(faults))
    return tuple(manifests)


def _parse(
    document: Any, source: str, base: Path, changes: Sequence[tuple[tuple[str, ...], Any]]
) -> Manifest:
    filled, faults = _override(fill(document, schema()), changes)
    filled = fill(filled, schema())
    _check_version(filled, source)
    faults += schema_faults(filled)
    given = _given(document, [path for path, _ in changes])
    faults += [
        fault if given(fault.pointer) else _of_default(fault)
        for fault in rule_faults(filled, [fault.pointer for fault in faults])
    ]
    if faults:
        raise ManifestError(source, tuple(sorted(faults, key=lambda f: _rank(document, f))))
    resolved = normalise(filled, schema())
    resolved.pop("$schema", None)
    if resolved["output"] is None:
        resolved["output"] = f"runs/{resolved['name']}"
    if resolved["task"] == "detection":
        # Distillation compares probabilities of classes, which a detector does not have.
        resolved["train"]["loss"] = "labels"
    return _record(Manifest, {**resolved, "resolved": resolved, "base": base})


def _given(document: Any, overridden: Sequence[tuple[str, ...]]) -> Callable[[str], bool]:
    """Return whether the manifest or an override sets a value, as a function of its pointer."""

    def given(place: str) -> bool:
        path, value = split_pointer(place), document
        for name in path:
            if not isinstance(value, dict) or name not in value:
                return any(path[: len(each)] == each for each in overridden)
            value = value[name]
        return True

    return given


def _of_default(fault: Fault) -> Fault:
    """Return a fault of a value that the user did not write; its message names the origin."""
    found = fault.message.rpartition(", found ")[1]
    return replace(fault, message=f"{fault.message} (the default)") if found else fault


def _override(
    document: Any, changes: Sequence[tuple[tuple[str, ...], Any]]
) -> tuple[Any, list[Fault]]:
    faults: list[Fault] = []
    for path, value in changes:
        try:
            document = put(document, path, value, misplaced)
        except ManifestError as error:
            faults += error.faults
    return document, faults


def _check_version(document: Any, source: str) -> None:
    # A manifest of another version would produce misleading faults.
    if not isinstance(document, dict) or "version" not in document:
        return
    version = document["version"]
    # A value of another type is one fault among others.
    if isinstance(version, int) and not isinstance(version, bool) and version != 1:
        message = f"expected 1, the only version that this program reads, found {show(version)}"
        raise ManifestError(source, (Fault("/version", message),))


def _rank(document: Any, fault: Fault) -> list[int]:
    """Return a sort key for the order of keys in the document; missing keys come last."""
    ranks = []
    for name in split_pointer(fault.pointer):
        if isinstance(document, dict):
            names = list(document)
            ranks.append(names.index(name) if name in document else len(names))
            document = document.get(name)
        elif isinstance(document, list) and name.isdecimal():
            ranks.append(int(name))
            document = document[int(name)] if int(name) < len(document) else None
    return ranks


def _record(kind: type[T], values: Mapping[str, Any]) -> T:
    hints = typing.get_type_hints(kind)
    arguments = {
        each.name: _value(hints[each.name], values[each.name])
        for each in fields(kind)  # type: ignore[arg-type]
        if each.name in values
    }
    return kind(**arguments)


def _value(hint: Any, value: Any) -> Any:
    """Convert JSON objects to records, including objects in arrays and nullable objects."""
    if value is None:
        return None
    record = next((kind for kind in _parts(hint) if is_dataclass(kind)), None)
    if isinstance(value, list):
        return tuple(_value(hint, item) for item in value)
    return _record(typing.cast(type[Any], record), value) if record else value


def _parts(hint: Any) -> tuple[Any, ...]:
    """Return a type and all types inside it, for a hint such as ``tuple[A, ...] | None``."""
    inner = typing.get_args(hint)
    return (hint, *(part for each in inner for part in _parts(each)))
