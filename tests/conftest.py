"""Fixtures, tiers and order of all tests."""

import gc
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiers
from failures import ImmediateFailures
from moto_server import S3Server, served

from job.uri import S3Uri

# A shell that starts pytest in the background lets it ignore Ctrl-C, and every process that a test
# starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Files in the order in which workers take them, by the start of their paths: long ones first.
# test_whole_run makes the run that tests/e2e shares, while the other workers have engine tests.
# At the end there are short files only, so that all workers end at about the same time.
ORDER = (
    *("e2e/test_whole_run", "engine/int8/test_random_networks", "engine/int8/test_fallback"),
    *("unit/test_hostile_input", "e2e/test_reported_networks", "e2e/test_distributed"),
    *("engine/benchmark", "engine/int8", "engine/training", "engine"),
    *("e2e", "unit/storage", "unit"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of ``make test-all``."""
    parser.addoption("--full", action="store_true", help="all tests, with all generated cases")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the tier, and print failures at once."""
    tiers.choose(config.getoption("--full"))
    config.pluginmanager.register(ImmediateFailures(config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only ``make test-all`` runs, and sort by ``ORDER``."""
    if not config.getoption("--full"):
        left_out = [item for item in items if item.get_closest_marker("full")]
        items[:] = [item for item in items if not item.get_closest_marker("full")]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
    items.sort(key=_place)


def pytest_collection_finish() -> None:
    """Make garbage collection rare: it took a tenth of the CPU time of tests that build programs.

    Paddle's programs consist of many Python objects, and each full collection visits all of them
    and all imported modules.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def _place(item: pytest.Item) -> int:
    path = item.path.relative_to(Path(__file__).parent).as_posix()
    return next((place for place, start in enumerate(ORDER) if path.startswith(start)), len(ORDER))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server; environment variables direct this process and its children to it."""
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
