"""Libraries that an engine process must not import, because each costs CPU seconds at every start.

cv2 is not listed: Paddle imports it where it is installed.
"""

import subprocess
import sys

import pytest

from job.process.environment import environment

HEAVY = ("paddleslim", "matplotlib", "scipy", "sklearn", "boto3")


@pytest.mark.parametrize(
    "modules",
    [
        # Benchmark and accuracy.
        ("job.engine.inference.predictor", "job.engine.noop_model"),
        # Baseline.
        ("job.engine.training.session", "job.engine.training.baseline"),
        # INT8; job.engine.quantize.qat holds the calibration images.
        ("job.engine.int8.build", "job.engine.quantize.qat", "job.engine.compare.differences"),
    ],
)
def test_engine_modules_import_no_heavy_library(modules: tuple[str, ...]) -> None:
    code = f"import sys, {', '.join(modules)}; print(*set({HEAVY}).intersection(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment(1),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []
