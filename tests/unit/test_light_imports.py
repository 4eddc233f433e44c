"""What the command line must not pay for; pyproject.toml holds the contract of the layers."""

import subprocess
import sys

import pytest

from job.process.environment import environment


@pytest.mark.parametrize(
    "module",
    [
        "job.cli.main",
        "job.manifest.load",
        "job.cli.explain",
        "job.pipeline.run",
        "job.doctor.checks",
        "job.stages",
        "job.engine.inference.pir_graph",
    ],
)
def test_light(module: str) -> None:
    """What a user waits for at each command."""
    heavy = ("paddle", "paddleslim", "boto3", "cv2", "matplotlib", "scipy", "sklearn")
    heavy += ("openvino", "onnxruntime")
    code = f"import sys, {module}; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(1),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []
