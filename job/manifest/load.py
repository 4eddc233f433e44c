"""The manifest: JSON, checked once against its schema, becomes frozen records.

The schema (``schemas/manifest.schema.json``) holds every default, so the records have none.
"""

import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TextIO, TypeVar

from job.errors import Fault, ManifestError
from job.manifest.pointer import put, split_pointer
from job.manifest.read import STDIN, read_json, read_remote, read_text, split_override
from job.manifest.rules import rule_faults
from job.manifest.schema import fill, normalise, schema
from job.manifest.spec import Manifest
from job.manifest.validate import misplaced, schema_faults, show
from job.uri import S3Uri, is_uri
from job.uri import parse as parse_uri

T = TypeVar("T")

# What all entries of a matrix have in common.
ENTRY_FIXED = ("version", "name", "storage", "run", "output", "matrix")


def load(source: str, overrides: Sequence[str] = (), stdin: TextIO | None = None) -> Manifest:
    """Read and check a manifest.

    Args:
        source: path of a JSON file, its address in S3, or ``-`` for standard input.
        overrides: texts such as ``train.max_iters=100`` or ``/train/max_iters=100``.
        stdin: what ``-`` reads; ``sys.stdin`` by default.

    Raises:
        UsageError: the file cannot be opened, or an override has no ``=``.
        DataError: it is in S3 and cannot be had.
        ManifestError: the manifest is wrong; lists every fault.
    """
    if is_uri(source):
        uri = parse_uri(source)
        prefix = S3Uri(uri.bucket, uri.key.rpartition("/")[0])
        document = read_json(read_remote(uri), source)
        return parse(document, source, Path.cwd(), overrides, prefix=prefix)
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
    """Check a JSON document, which stays as it is, and make records of it.

    Args:
        document: what ``json.loads`` made of a manifest.
        source: its name in messages.
        base: the folder that its paths are relative to.
        overrides: as for ``load``.
        prefix: that its paths are relative to if it was read from S3.

    Raises:
        UsageError: an override has no ``=``.
        ManifestError: the manifest is wrong; lists every fault.
    """
    changes = [split_override(text) for text in overrides]
    manifest = replace(_parse(document, source, base, changes), prefix=prefix)
    # What an entry of the matrix sets is as strictly checked as the manifest itself.
    entries(manifest, source)
    return manifest


def entries(manifest: Manifest, source: str = "manifest") -> tuple[Manifest, ...]:
    """Return the manifest of each model of a matrix; none for a single model.

    Each has a name and an output folder of its own and, apart from these, is what the manifest
    would be with the entry's keys set.

    Raises:
        ManifestError: an entry sets something wrong; lists every fault of every entry.
    """
    single = {**manifest.resolved, "matrix": None}
    found, faults = [], []
    for index, entry in enumerate(manifest.matrix or ()):
        changes = [(split_pointer(name), value) for name, value in entry.set.items()]
        place = f"/matrix/{index}/set"
        fixed = [name for (name, *_), _ in changes if name in ENTRY_FIXED]
        changes += [(("name",), entry.name), (("output",), f"{manifest.output}/{entry.name}")]
        faults += [Fault(place, f"cannot set {name}, which the entries share") for name in fixed]
        try:
            entry_manifest = _parse(single, source, manifest.base, changes)
            found.append(
                replace(entry_manifest, prefix=manifest.prefix, localized=manifest.localized)
            )
        except ManifestError as error:
            faults += [
                Fault(place, f"{f.pointer}: {f.message}", f.suggestion) for f in error.faults
            ]
    names = [entry.name for entry in manifest.matrix or ()]
    twice = sorted({name for name in names if names.count(name) > 1})
    faults += [Fault("/matrix", f"two entries are named {name}") for name in twice]
    if faults:
        raise ManifestError(source, tuple(faults))
    return tuple(found)


def _parse(
    document: Any, source: str, base: Path, changes: Sequence[tuple[tuple[str, ...], Any]]
) -> Manifest:
    filled, faults = _override(fill(document, schema()), changes)
    filled = fill(filled, schema())
    _check_version(filled, source)
    faults += schema_faults(filled)
    faults += rule_faults(filled, [fault.pointer for fault in faults])
    if faults:
        raise ManifestError(source, tuple(sorted(faults, key=lambda f: _rank(document, f))))
    resolved = normalise(filled, schema())
    resolved.pop("$schema", None)
    if resolved["output"] is None:
        resolved["output"] = f"runs/{resolved['name']}"
    return _record(Manifest, {**resolved, "resolved": resolved, "base": base})


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
    # Another version's other faults would only mislead.
    if not isinstance(document, dict) or "version" not in document:
        return
    version = document["version"]
    if isinstance(version, bool) or version != 1:
        message = f"expected 1, the version that this program reads, found {show(version)}"
        raise ManifestError(source, (Fault("/version", message),))


def _rank(document: Any, fault: Fault) -> list[int]:
    """Sort faults as a reader of the manifest meets them; what is not given comes last."""
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
    """Make records of objects, also of those in arrays and of those that may be null."""
    if value is None:
        return None
    record = next((kind for kind in _parts(hint) if is_dataclass(kind)), None)
    if isinstance(value, list):
        return tuple(_value(record, item) if record else item for item in value)
    return _record(typing.cast(type[Any], record), value) if record else value


def _parts(hint: Any) -> tuple[Any, ...]:
    """Return a type and all that it is made of, such as tuple[A, ...] | None."""
    inner = typing.get_args(hint)
    return (hint, *(part for each in inner for part in _parts(each)))
