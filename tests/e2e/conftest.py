"""One tiny finished run, shared by all tests; copies of it for those that change something."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_run import Run, job, write_manifest

from job.host import read_host


@pytest.fixture(scope="session")
def needs_vnni() -> None:
    """Skip on machines that cannot do the job."""
    if not read_host().has_vnni:
        pytest.skip("this CPU has no AVX512_VNNI")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    write_manifest(folder)
    return Run(folder, job("run", "m.json", "--log-format", "text", cwd=folder))


@pytest.fixture
def copy(finished: Run, tmp_path: Path) -> Run:
    """A copy of the finished run, as if it had been made where it stands."""
    shutil.copytree(finished.folder, tmp_path / "copy")
    return Run(tmp_path / "copy", finished.done)


@pytest.fixture
def copy_until(finished: Run, tmp_path: Path) -> Callable[..., Run]:
    """Copies of the finished run in which only some folders are left."""

    def make(*output_dir: str) -> Run:
        folder = tmp_path / f"until-{output_dir[-1]}"
        (folder / "out").mkdir(parents=True)
        shutil.copy2(finished.folder / "m.json", folder)
        shutil.copy2(finished.output / ".lock", folder / "out")
        for name in output_dir:
            shutil.copytree(finished.output / name, folder / "out" / name)
        return Run(folder, finished.done)

    return make
