"""The native tester's options, and the library that it is built for."""

import shutil
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

import job
from job.cli import main as cli

pytestmark = pytest.mark.engine

NATIVE = Path(job.__file__).parent / "native"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--infer_model=x"], ["--infer_model", "--infer_data"]),
        (["--batch-size", "0"], ["'--batch-size' / '--batch_size': 0 is not", "x>=1"]),
        (["--repeat=1.5"], ["'--repeat': '1.5'"]),
        (["--warmup_size"], ["'--warmup_size'"]),
        (["--profile=maybe"], ["--profile:", "true or false", "'maybe'"]),
        (["--batchsize=5"], ["--batchsize"]),
        (["model"], ["(model)"]),
    ],
)
def test_native_options_are_checked(native: Path, arguments: list[str], parts: list[str]) -> None:
    done = subprocess.run([native, *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert all(part in done.stderr for part in parts)
    if arguments[0] in ("--batch-size", "--repeat=1.5", "--warmup_size", "model"):
        options = ["predict", "--infer-model=x", "--infer-data=x", *arguments]
        python = CliRunner().invoke(cli.app, options)
        assert python.exit_code == 2
        assert done.stderr.splitlines()[0].removeprefix("error: ") in python.output


def test_the_native_tester_uses_the_checked_symbols(native: Path) -> None:
    listed = (NATIVE / "wheel" / "symbols.txt").read_text().split()
    command = ["nm", "-D", "--undefined-only", native]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    used = {line.split()[-1] for line in done.stdout.splitlines()}
    assert sorted(name for name in used if "6paddle" in name or "12paddle_infer" in name) == listed
    header = (NATIVE / "wheel" / "paddle_inference_api.h").read_text()
    assert f'kPaddleVersion[] = "{version("paddlepaddle")}"' in header


@pytest.mark.parametrize("case", ["another symbol", "no paddle"])
def test_a_library_that_does_not_fit_is_rejected(tmp_path: Path, case: str) -> None:
    if not shutil.which("cmake") or not shutil.which("c++"):
        pytest.skip("cmake and a C++ compiler are not installed")
    source = shutil.copytree(NATIVE, tmp_path / "native")
    python, expected = Path(sys.executable), "paddlepaddle"
    if case == "another symbol":
        (source / "wheel" / "symbols.txt").write_text("_ZN6paddle7MissingEv\n")
        expected = "_ZN6paddle7MissingEv"
    else:
        venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
        python = tmp_path / "venv" / "bin" / "python"
    command = ["cmake", "-S", source, "-B", tmp_path / "build", f"-DPython3_EXECUTABLE={python}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert expected in done.stderr
