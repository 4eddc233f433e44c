"""Fixtures of all unit tests."""

from collections.abc import Iterator

import forked
import pytest

from job.process import json_channel


@pytest.fixture(autouse=True)
def child_processes() -> Iterator[None]:
    """Fork child processes; a module that tests real ones overrides this fixture."""
    with forked.forking(json_channel):
        yield
