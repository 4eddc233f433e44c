"""The S3 server with habits, for the tests of this folder."""

from collections.abc import Iterator

import pytest
from unusual_s3 import Unusual, unusual


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
