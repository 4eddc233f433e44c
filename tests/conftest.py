"""What holds for all tests."""

import signal
from collections.abc import Iterator

import pytest
from moto_server import S3Server, served

from job.storage.uri import S3Uri

# A shell that starts pytest in the background lets it ignore Ctrl-C, and every process that a test
# starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server that this process, and those that it starts, find by the environment."""
    with served() as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server) -> S3Uri:
    """A bucket of the test's own."""
    return s3_server.bucket()
