"""Fixtures of all unit tests."""

from collections.abc import Iterator

import forked
import pytest
from unusual_s3 import Unusual, unusual

from job.process import json_channel


@pytest.fixture(autouse=True)
def child_processes() -> Iterator[None]:
    """Fork child processes; a module that tests real ones overrides this fixture."""
    with forked.forking(json_channel):
        yield


@pytest.fixture(scope="module")
def running(s3_server: object) -> Iterator[Unusual]:
    """One server for the tests of a file; the other server sets the credentials."""
    with unusual() as server:
        yield server


@pytest.fixture
def server(running: Unusual) -> Unusual:
    """A server without objects and habits."""
    running.habits.reset()
    running.objects.clear()
    running.requests.clear()
    running.uploads.clear()
    return running
