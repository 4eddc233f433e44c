"""Who may import whom, and what the command line must not pay for."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import job.stages
from job.process.environment import environment

PACKAGE = Path(job.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imported(path: Path) -> Iterator[str]:
    """Yield every module and name that a file imports, wherever the import stands."""
    module = name_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(filter(None, (above, node.module)))
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def imports_of(*packages: str) -> dict[str, set[str]]:
    """What the modules of some packages import, by module."""
    return {
        name_of(path): set(imported(path))
        for path in MODULES
        if any(below(name_of(path), package) for package in packages)
    }


def test_only_the_engine_imports_paddle() -> None:
    heavy = ("paddle", "paddleslim", "openvino", "onnxruntime", "onnx", "paddle2onnx")
    found = {
        module
        for module, names in imports_of("job").items()
        if any(below(name, package) for name in names for package in heavy)
    }
    assert {module for module in found if not below(module, "job.engine")} == set()


STAGES = {"report", *(stage.name for stage in job.stages.STAGES)}


def test_stages_do_not_import_each_other() -> None:
    for stage in STAGES:
        for module, names in imports_of(f"job.stages.{stage}").items():
            others = {f"job.stages.{other}" for other in STAGES - {stage}}
            assert names & others == set(), module


@pytest.mark.parametrize(
    ("package", "stranger"),
    [
        ("job.engine", "job.manifest.load"),
        ("job.engine", "job.stages"),
        ("job.engine", "job.pipeline.run"),
        ("job.engine", "job.storage"),
        ("job.stages", "job.storage"),
        ("job.stages", "job.pipeline.run"),
        ("job.stages", "job.pipeline.stage_process"),
        ("job.storage", "job.pipeline.run"),
        ("job.storage", "job.stages"),
        ("job.pipeline.fingerprint", "job.storage"),
        ("job.pipeline.fingerprint", "job.pipeline.stage_process"),
        ("job.data", "job.stages"),
        ("job.data", "job.engine"),
        ("job.report", "job.stages"),
        ("job.report", "job.engine"),
        ("job.pipeline.run", "job.engine"),
        ("job.pipeline.run", "job.cli.main"),
        ("job.pipeline.stage_process", "job.pipeline.run"),
    ],
)
def test_direction(package: str, stranger: str) -> None:
    for module, names in imports_of(package).items():
        assert not any(below(name, stranger) for name in names), f"{module} imports {stranger}"


def test_errors_is_a_leaf() -> None:
    for names in imports_of("job.errors").values():
        assert not any(below(name, "job") for name in names)


@pytest.mark.parametrize(
    "module",
    [
        "job.cli.main",
        "job.manifest.load",
        "job.cli.explain",
        "job.pipeline.run",
        "job.doctor.checks",
        "job.stages",
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
