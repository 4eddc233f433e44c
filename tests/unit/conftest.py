"""Fixtures of all unit tests."""

from collections.abc import Iterator

import forked
import pytest

from job.pipeline import stage_process


@pytest.fixture(autouse=True)
def stage_processes() -> Iterator[None]:
    """Fork the processes of fake stages; a module that tests real ones overrides this fixture."""
    with forked.forking(stage_process):
        yield
