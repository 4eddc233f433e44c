"""A network of the user's own: code that somebody must have allowed, and where it is looked for."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from job.errors import UsageError
from job.manifest.spec import Manifest

# Set by whoever builds an image or runs a cluster: installed packages, such as "ournets,others".
ALLOWED = "JOB_ALLOWED_CODE"


def check_allowed(manifest: Manifest, *, allow_code: bool) -> None:
    """Refuse to run a manifest's code unless it is allowed.

    Args:
        manifest: of one model.
        allow_code: the user allows it on the command line.

    Raises:
        UsageError: nobody allows it, or the package that is allowed is not installed.
    """
    target = manifest.model.callable
    if not target:
        return
    package = _package(target)
    if not _is_listed(target):
        if allow_code:
            return
        raise UsageError(
            f"/model/callable: {target!r} runs code of its own",
            f"If you trust it, run again with --allow-code, or name the installed package "
            f"{package} in {ALLOWED}.",
        )
    if not callable_files(manifest):
        raise UsageError(
            f"/model/callable: {package} is allowed by {ALLOWED}, but is not installed",
            "Packages that it allows are not looked for beside the manifest: install it.",
        )


def callable_files(manifest: Manifest) -> Sequence[Path]:
    """The source of the user's own network: its module, or every module of its package.

    Only paths are looked at, in the order in which the stage's process searches: nothing is run.
    """
    if not manifest.model.callable:
        return ()
    parts = manifest.model.callable.partition(":")[0].split(".")
    for folder in (*map(Path, sys.path), *code_folders(manifest)):
        package = folder.absolute().joinpath(parts[0])
        if (package / "__init__.py").is_file() or (len(parts) > 1 and package.is_dir()):
            return tuple(sorted(package.rglob("*.py")))
        module = package.with_name(f"{parts[0]}.py")
        if module.is_file():
            return (module,)
    return ()


def code_folders(manifest: Manifest) -> tuple[Path, ...]:
    """Where modules of the user's own are looked for, after all that is installed.

    None for a package that the environment allows: whoever wrote the manifest could put another of
    that name, or of one that it imports, beside it.
    """
    target = manifest.model.callable
    if not target or _is_listed(target):
        return ()
    return Path.cwd(), manifest.base


def _is_listed(target: str) -> bool:
    listed = os.environ.get(ALLOWED, "").split(",")
    return _package(target) in [name.strip() for name in listed]


def _package(target: str) -> str:
    return target.partition(":")[0].partition(".")[0]
