"""Imports modules of a package without executing the package's own code."""

import sys
from importlib.util import find_spec, module_from_spec

from job.errors import MachineError


def skip_package_code(*names: str) -> None:
    """Let modules of packages be imported without executing the packages' ``__init__.py``.

    Packages that this process has already imported are not changed.

    Args:
        names: the packages, each behind the package that contains it.

    Raises:
        MachineError: a package is not installed.
    """
    for name in names:
        if name in sys.modules:
            continue
        spec = find_spec(name)
        if spec is None:
            hint = "Install the locked dependencies with `make doctor` in the source folder."
            raise MachineError(f"{name} is not installed", hint)
        sys.modules[name] = module_from_spec(spec)
