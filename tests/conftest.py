"""What holds for all tests."""

import signal
import socket
from collections.abc import Callable, Iterator

import pytest
from moto_server import S3Server, served

from job.uri import S3Uri

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


@pytest.fixture
def port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        found: int = server.getsockname()[1]
    return found


_TOLD = "told"
Tell = Callable[[str], None]


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Prints figures for the eye at the end of all tests, also of those in other processes."""
    return lambda text: record_property(_TOLD, text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests told."""
    reports = (each for found in terminalreporter.stats.values() for each in found)
    for report in reports:
        if getattr(report, "when", "") == "call":
            for name, text in report.user_properties:
                if name == _TOLD:
                    terminalreporter.write_line(f"{report.nodeid}: {text}")
