"""The distribution: its name, its command, and the content of the source archive."""

import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

import job
from job.manifest.schema import EXAMPLES, example_file

ROOT = Path(__file__).parents[2]
TOML = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, DATA = TOML["project"], TOML["tool"]["setuptools"]["package-data"]
BUILD = "import setuptools.build_meta as b, sys; b.build_sdist(sys.argv[1])"


def test_the_command_is_not_the_name_of_the_distribution() -> None:
    """`job` is too general for an index, so the distribution has another name."""
    assert PROJECT["name"] == "int8-vision-job"
    assert list(PROJECT["scripts"]) == ["job"]
    assert PROJECT["version"] == job.__version__


def test_the_wheel_contains_the_examples() -> None:
    for name in EXAMPLES:
        assert example_file(name) is not None
    assert DATA["job.examples"] == [f"{name}.json" for name in EXAMPLES]


@pytest.mark.full
def test_the_source_archive_contains_tests_and_manifests(tmp_path: Path) -> None:
    ignored = ignore_patterns(".venv", ".git", "runs", "build", "*.egg-info", "__pycache__", ".*")
    copytree(ROOT, tmp_path / "copy", symlinks=True, ignore=ignored)
    subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path)],
        cwd=tmp_path / "copy",
        check=True,
        capture_output=True,
    )
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        # Links to folders outside the package would be broken in a wheel built from the archive.
        links = [member.name for member in archive if member.issym()]
    here = ("tests", "manifests", "schemas", "docs", "k8s")
    wanted = {
        str(path.relative_to(ROOT))
        for folder in here
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    wanted |= {"Makefile", "requirements.lock", "job/schemas/manifest.schema.json", "job/py.typed"}
    assert wanted - names == set()
    assert links == []
