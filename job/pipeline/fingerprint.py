"""The cache key of a stage: a hash of everything that can change the stage's output.

The hashed values are called ingredients. They are stored with the results, so that a later plan
can name the setting, file or version that changed. For the output of an earlier stage, the hash of
its content is used. If that stage runs again with the same result, the next stage does not run
again.
"""

import ast
import hashlib
import json
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import job
from job.host import Host
from job.manifest import Manifest
from job.stages.stage import Stage
from job.storage.digests import Digests

NOT_INSTALLED = "not installed"
# Measured times differ from run to run. Records that differ only in times count as equal.
VOLATILE_KEYS = frozenset(
    {"seconds", "milliseconds", "images_per_second", "created_at", "finished_at", "peak_rss_bytes"}
)
# A metrics file contains the time of each step. No stage reads the metrics file of another stage.
VOLATILE_SUFFIXES = (".jsonl", ".log")
# A stage cannot reach other packages without its key depending on them. The packages and modules
# named here plan stages, start them, move their inputs and outputs, or show results. They cannot
# change a result, so an edit of one of them reruns no stage. Settings and the content of files,
# which `manifest` and `storage` provide, are in the key by value.
_RUNTIME = frozenset(
    {
        "cli", "ui", "doctor", "predict", "kubernetes", "pipeline", "report", "manifest", "storage",
        "distributed", "errors", "events", "host", "uri", "text_format",
    }
)  # fmt: skip
# The stages' own package holds the table of all stages, which every stage would then depend on.
_TABLES = ("job", "job.stages", "job.stages.stage")
# Sets threads and Paddle's flags for every stage's process.
_ENVIRONMENT = "job.process.environment"
_PACKAGES = ("paddlepaddle", "paddleslim", "numpy", "pillow", "scikit-learn")

NO_DIGESTS: Mapping[str, str] = MappingProxyType({})

Ingredients = Mapping[str, Any]


def external_files(stage: Stage, manifest: Manifest) -> tuple[Path, ...]:
    """Return the absolute paths of the files that a stage reads from outside the output folder."""
    return tuple(manifest.base / path for path in stage.files(manifest))


def ingredients(
    stage: Stage,
    manifest: Manifest,
    *,
    upstream: Mapping[str, str],
    digests: Digests,
    versions: Mapping[str, str],
    host: Host,
    before: Ingredients | None = None,
) -> Ingredients:
    """Return everything that can change the output of a stage, as one JSON object.

    Args:
        stage: the stage.
        manifest: the valid manifest.
        upstream: output digest of each stage in ``stage.needs``.
        digests: cached digests of files.
        versions: see :func:`library_versions`.
        host: this machine. It is used only if ``stage.host_matters``.
        before: ingredients of an earlier result of the stage.
    """
    found: dict[str, Any] = {
        "stage": stage.name,
        "settings": json.loads(json.dumps(stage.settings(manifest))),
        "upstream": dict(upstream),
        "files": {
            manifest.called(path): digests.identify(path)
            for path in external_files(stage, manifest)
        },
        # The digests of the source identify the program, whatever its version is.
        "versions": {
            **{name: version for name, version in versions.items() if name != "job"},
            **package_versions(stage.libraries),
        },
        "source": dict(source_digests(stage.run.__module__, (before or {}).get("source", {}))),
    }
    if stage.host_matters:
        found["host"] = {
            "cpu_model": host.cpu_model,
            "flags": list(host.flags),
            "allocator": host.allocator,
        }
    return found


def key_of(found: Ingredients) -> str:
    """Return the key: the SHA-256 of the ingredients in canonical JSON."""
    return hashlib.sha256(_canonical(found)).hexdigest()


def output_digest(files: Mapping[str, str], record: Mapping[str, Any]) -> str:
    """Return a digest of a stage's output, without measured times.

    Args:
        files: SHA-256 of each published file by relative path.
        record: the stage's record.
    """
    stable = {name: sha for name, sha in files.items() if not name.endswith(VOLATILE_SUFFIXES)}
    return hashlib.sha256(_canonical([stable, _without_times(record)])).hexdigest()


def library_versions() -> Mapping[str, str]:
    """Return the versions of Python and of the packages that can change a result."""
    versions = {"job": job.__version__, "python": platform.python_version()}
    versions |= package_versions(_PACKAGES)
    if versions["paddlepaddle"] == NOT_INSTALLED:
        versions["paddlepaddle"] = _version("paddlepaddle-gpu")
    return versions


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of each package, or ``not installed``."""
    return {package: _version(package) for package in packages}


def _version(package: str) -> str:
    """Return the version of a package, or ``not installed``."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return NOT_INSTALLED


def source_digests(module: str, before: Mapping[str, str] = NO_DIGESTS) -> Mapping[str, str]:
    """Return the SHA-256 of a stage's module and of each of the job's modules that it needs.

    Import statements are read from the source, also inside functions. No code is executed. A
    module that a string names, because it is started as a process, is included.

    Args:
        module: the stage's module.
        before: the digests of an earlier result. If each of these files still has its digest, the
            import statements are the same, and no file is parsed. This saves 0.7 s per command.
    """
    if module in before and all(_digest_of(name) == digest for name, digest in before.items()):
        return before
    found: dict[str, str] = {}
    waiting = [module, _ENVIRONMENT]
    while waiting:
        name = waiting.pop()
        path = None if name in found or _is_runtime(name) else _source(name)
        if path is None:
            continue
        found[name], names = _read_source(path, name)
        waiting.extend(names)
    return dict(sorted(found.items()))


def _digest_of(module: str) -> str | None:
    path = _source(module)
    return None if path is None else _file_digest(path)


@cache
def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_runtime(module: str) -> bool:
    """Whether a module cannot change what a stage writes."""
    return module in _TABLES or "".join(module.split(".")[1:2]) in _RUNTIME


def _source(module: str) -> Path | None:
    """Return a module's file, or None if it has none.

    The file is found by its path, because importlib would import the parent packages.
    """
    loaded = sys.modules.get(module)
    if loaded is not None and loaded.__file__:
        return Path(loaded.__file__)
    if not re.fullmatch(r"job(\.[a-z_][a-z0-9_]*)+", module):
        return None
    path = Path(job.__file__).parent.joinpath(*module.split(".")[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _read_source(path: Path, module: str) -> tuple[str, tuple[str, ...]]:
    """Return a module's SHA-256, and the names in it that may be modules of the job."""
    text = path.read_bytes()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    for node in _executed(ast.parse(text)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(filter(None, (above, node.module)))
            names.update((source, *(f"{source}.{alias.name}" for alias in node.names)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value.partition(":")[0])
    packages = {".".join(name.split(".")[:depth]) for name in names for depth in (2, 3)}
    ours = {name for name in names | packages if name.startswith("job.")}
    return hashlib.sha256(text).hexdigest(), tuple(sorted(ours))


def _executed(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes of a module, except blocks under ``if TYPE_CHECKING``."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        waiting.extend(ast.iter_child_nodes(node))


def changes(before: Ingredients, now: Ingredients, unknown: Sequence[str] = ()) -> tuple[str, ...]:
    """Return what differs between two sets of ingredients, settings first.

    Args:
        before: ingredients of an earlier result.
        now: ingredients of a new result.
        unknown: stages whose output is not known yet.

    Returns:
        Lines such as ``quantize.moving_rate changed``, ``weights.pdparams changed`` or
        ``paddlepaddle 3.2.2 -> 3.3.0``; empty when both give the same key.
    """
    lines = [f"{name} changed" for name in _differing(before, now, "settings", nested=True)]
    lines += [f"{name} changed" for name in _differing(before, now, "files")]
    lines += [
        f"the output of {name} changed"
        for name in _differing(before, now, "upstream")
        if name not in unknown
    ]
    for name in _differing(before, now, "versions"):
        old, new = (side.get("versions", {}).get(name, "unknown") for side in (before, now))
        lines.append(f"{name} {old} -> {new}")
    lines += [f"{name} changed" for name in _differing(before, now, "source")]
    if before.get("host") != now.get("host"):
        lines.append(_host_change(before.get("host", {}), now.get("host", {})))
    return tuple(lines)


def _host_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the first difference between two machines."""
    for key, name in (("cpu_model", "CPU"), ("allocator", "allocator")):
        old, new = (side.get(key, "unknown") for side in (before, now))
        if old != new:
            return f"{name} {old} -> {new}"
    return "CPU flags changed"


def _differing(
    before: Ingredients, now: Ingredients, part: str, *, nested: bool = False
) -> tuple[str, ...]:
    """Return the names with different values in one part of the ingredients."""
    old, new = before.get(part, {}), now.get(part, {})
    if nested:
        old, new = dict(_flat(old, "")), dict(_flat(new, ""))
    names = [*new, *(name for name in old if name not in new)]
    absent = object()
    return tuple(name for name in names if old.get(name, absent) != new.get(name, absent))


def _flat(value: Any, pointer: str) -> Iterator[tuple[str, Any]]:
    """Yield the values of a JSON object by dotted name; a list is one value."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _flat(item, f"{pointer}.{name}" if pointer else name)
    else:
        yield pointer, value


def _without_times(value: Any) -> Any:
    """Return a copy of a JSON value without measured times."""
    if isinstance(value, Mapping):
        return {
            name: _without_times(item) for name, item in value.items() if name not in VOLATILE_KEYS
        }
    if isinstance(value, list | tuple):
        return [_without_times(item) for item in value]
    return value


def _canonical(value: Any) -> bytes:
    """Return JSON that is identical for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
