"""Two tiers: ``make test`` leaves out what ``make test-all`` (pytest --full) runs.

A test that is marked ``full`` runs in test-all only. Tests that repeat one check with many
generated cases run a tenth of the cases in ``make test``.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

SHARE = 10
_full = False


def choose(full: bool) -> None:
    """Set the tier; before any test module is imported."""
    global _full
    _full = full


def cases(count: int) -> int:
    """How many of ``count`` generated cases to run: all of them, or a tenth."""
    return count if _full else count // SHARE


def sampled(values: Sequence[Any]) -> Sequence[Any]:
    """All values, or a tenth of them."""
    return values if _full else values[SHARE // 2 :: SHARE]


def full_but(values: Iterable[Any], chosen: Callable[[Any], bool]) -> list[Any]:
    """Parameters of which only those that ``chosen`` accepts run in ``make test``."""
    return [
        value if chosen(value) else pytest.param(value, marks=pytest.mark.full) for value in values
    ]
