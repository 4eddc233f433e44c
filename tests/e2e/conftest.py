"""One tiny run that all tests share, and copies for tests that change files."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from shared import made_once
from tiny_run import Run, job, write_manifest

from job.host import read_host


@pytest.fixture(scope="session")
def needs_vnni() -> None:
    """Skip on machines whose INT8 is inexact."""
    if not read_host().has_vnni:
        pytest.skip("/proc/cpuinfo lacks avx512_vnni: INT8 is inexact here")


@pytest.fixture(scope="session")
def finished(needs_vnni: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run; not to be changed."""
    return _shared("finished", tmp_path_factory)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Run:
    """A run whose stages before int8 are done, on any machine; not to be changed."""
    if read_host().has_vnni:
        run: Run = request.getfixturevalue("finished")
        return run
    return _shared("trained", tmp_path_factory, "--until", "convert")


def _shared(name: str, factory: pytest.TempPathFactory, *arguments: str) -> Run:
    def make(folder: Path) -> Run:
        write_manifest(folder)
        options = ("--log-format", "text", *arguments)
        return Run(folder, job("run", "m.json", *options, cwd=folder, executed=True))

    return made_once(factory, name, make)


@pytest.fixture
def copy(finished: Run, tmp_path: Path) -> Run:
    """A copy of the finished run, as if it had been made where it stands."""
    shutil.copytree(finished.folder, tmp_path / "copy")
    return Run(tmp_path / "copy", finished.done)


@pytest.fixture
def copy_until(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Run]:
    """Copies of the run in which only some folders are left."""

    def make(*output_dir: str) -> Run:
        of_int8 = {"int8", "accuracy", "benchmark"} & set(output_dir)
        source: Run = request.getfixturevalue("finished" if of_int8 else "trained")
        folder = tmp_path / f"until-{output_dir[-1]}"
        (folder / "out").mkdir(parents=True)
        shutil.copy2(source.folder / "m.json", folder)
        shutil.copy2(source.output / ".lock", folder / "out")
        for name in output_dir:
            shutil.copytree(source.output / name, folder / "out" / name)
        return Run(folder, source.done)

    return make
