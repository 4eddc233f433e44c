"""Custom networks (``model.callable``): checks permission, and finds the folders of their code."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from job.errors import UsageError
from job.manifest.spec import Manifest

# Comma-separated names of installed packages, set by the builder of an image or a cluster operator.
ALLOWED = "JOB_ALLOWED_CODE"


def check_allowed(manifest: Manifest, *, allow_code: bool) -> None:
    """Reject a manifest whose custom code is not allowed.

    Args:
        manifest: the manifest of one model.
        allow_code: whether the command line has ``--allow-code``.

    Raises:
        UsageError: the code is not allowed, or the allowed package is not installed.
    """
    target = manifest.model.callable
    if not target:
        return
    package = _package(target)
    if not _is_listed(target):
        if allow_code:
            return
        raise UsageError(
            f"/model/callable: {target!r} would run custom code, which is not allowed by default",
            f"If you trust the code, run again with --allow-code, or install the package {package} "
            f"and add it to the environment variable {ALLOWED}.",
        )
    if not callable_files(manifest):
        raise UsageError(
            f"/model/callable: {ALLOWED} allows the package {package}, but it is not installed",
            "Install the package. Allowed packages are not imported from the manifest's folder.",
        )


def callable_files(manifest: Manifest) -> Sequence[Path]:
    """Return the source files of a custom network: its module, or all modules of its package.

    Searches the same folders in the same order as the stage's process, without importing anything.
    """
    if not manifest.model.callable:
        return ()
    parts = manifest.model.callable.partition(":")[0].split(".")
    for folder in search_folders(manifest):
        package = folder / parts[0]
        if (package / "__init__.py").is_file() or (len(parts) > 1 and package.is_dir()):
            return tuple(sorted(package.rglob("*.py")))
        module = package.with_name(f"{parts[0]}.py")
        if module.is_file():
            return (module,)
    return ()


def search_folders(manifest: Manifest) -> tuple[Path, ...]:
    """Return the folders that a custom module is searched in, in the order of the search."""
    return tuple(path.absolute() for path in (*map(Path, sys.path), *code_folders(manifest)))


def code_folders(manifest: Manifest) -> tuple[Path, ...]:
    """Return the folders to import custom modules from, after all installed packages.

    If the environment variable JOB_ALLOWED_CODE allows the package, no folder is returned.
    Otherwise the author of a manifest could put another package of the same name into the
    manifest's folder, or another package with the name of a dependency.
    """
    target = manifest.model.callable
    if not target or _is_listed(target):
        return ()
    return Path.cwd(), manifest.base


def _is_listed(target: str) -> bool:
    allowed = os.environ.get(ALLOWED, "").split(",")
    return _package(target) in [name.strip() for name in allowed]


def _package(target: str) -> str:
    return target.partition(":")[0].partition(".")[0]
