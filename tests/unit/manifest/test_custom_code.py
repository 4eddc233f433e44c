"""Who may let a manifest run code of its own, and where that code is looked for."""

from pathlib import Path

import pytest
from sample_manifest import document

from job.errors import UsageError
from job.manifest import Manifest, parse
from job.manifest.custom_code import ALLOWED, callable_files, check_allowed, code_folders


@pytest.fixture
def own(tmp_path: Path) -> Manifest:
    """A manifest with a network whose module lies beside it."""
    (tmp_path / "mine.py").write_text("def network(): ...")
    body = document(model__name=None, model__callable="mine:network")
    return parse(body, "m.json", tmp_path)


def test_code_is_refused_unasked(own: Manifest) -> None:
    with pytest.raises(UsageError, match=r"'mine:network' runs code of its own\n.*--allow-code"):
        check_allowed(own, allow_code=False)


def test_the_command_line_allows_any_code(own: Manifest) -> None:
    check_allowed(own, allow_code=True)
    assert callable_files(own) == (own.base / "mine.py",)


def test_the_environment_allows_installed_packages(
    own: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "mine.py").write_text("def network(): ...")
    monkeypatch.syspath_prepend(installed)
    monkeypatch.setenv(ALLOWED, "other, mine")
    check_allowed(own, allow_code=False)
    assert callable_files(own) == (installed / "mine.py",)
    monkeypatch.setenv(ALLOWED, "mines,min,mine.network")
    with pytest.raises(UsageError, match="name the installed package mine in JOB_ALLOWED_CODE"):
        check_allowed(own, allow_code=False)


@pytest.mark.parametrize("allow_code", [False, True])
def test_an_allowed_name_beside_the_manifest_is_not_run(
    own: Manifest, monkeypatch: pytest.MonkeyPatch, allow_code: bool
) -> None:
    monkeypatch.setenv(ALLOWED, "mine")
    with pytest.raises(UsageError, match="mine is allowed by JOB_ALLOWED_CODE, but is not inst"):
        check_allowed(own, allow_code=allow_code)
    # Nor would anything be imported from there that the installed package asks for.
    assert code_folders(own) == ()
