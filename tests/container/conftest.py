"""Without an engine and an image there is nothing to test."""

import sys

import pytest
from containers import ENGINE, IMAGE, ROOT

from job.host import read_host

# The tiny run, with which runs in the image are compared.
sys.path.append(str(ROOT / "tests" / "e2e"))


@pytest.fixture(scope="session", autouse=True)
def image() -> None:
    """Skip unless make says which engine and which image."""
    if not (ENGINE and IMAGE):
        pytest.skip("make image-test builds the image and runs these")


@pytest.fixture(scope="session")
def needs_vnni() -> None:
    """Skip on machines that cannot do the job."""
    if not read_host().has_vnni:
        pytest.skip("this CPU has no AVX512_VNNI")
