"""Builds an INT8 vision model from a JSON manifest, and reports its accuracy and speed.

The Python API consists of :func:`run`, :func:`validate` and :func:`load_report`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from job.api.execution import run
    from job.api.reports import load_report
    from job.api.validation import validate

__version__ = "0.1.0"
__all__ = ["__version__", "load_report", "run", "validate"]

_API = {
    "run": "job.api.execution",
    "load_report": "job.api.reports",
    "validate": "job.api.validation",
}


def __getattr__(name: str) -> Any:
    """Import a function of the API when it is used, because ``job --help`` must be fast."""
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_API[name]), name)
