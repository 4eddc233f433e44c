"""The native tester's program."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shared import made_once

import job

NATIVE = Path(job.__file__).parent / "native"


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The native tester's program."""
    if not shutil.which("cmake") or not shutil.which("c++"):
        pytest.skip("cmake and a C++ compiler are not installed")
    return made_once(tmp_path_factory, "native", build_tester)


def build_tester(build: Path) -> Path:
    """Build the native tester in a folder."""
    archive = os.environ.get("PADDLE_ROOT", "")
    options = [f"-DPADDLE_ROOT={archive}", f"-DPython3_EXECUTABLE={sys.executable}"]
    options.append("-DCMAKE_BUILD_TYPE=Debug")
    for command in (["-S", NATIVE, "-B", build, *options], ["--build", build, "-j2"]):
        done = subprocess.run(["cmake", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stderr
    return build / "tester"
