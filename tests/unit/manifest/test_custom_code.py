"""Permission for a manifest's custom code, and the folders that it is imported from."""

from pathlib import Path

import pytest
from sample_manifest import document

from job.errors import UsageError
from job.manifest import Manifest, parse
from job.manifest.custom_code import ALLOWED, callable_files, check_allowed, code_folders


@pytest.fixture
def own(tmp_path: Path) -> Manifest:
    """A manifest with a custom network, whose module is in the manifest's folder."""
    (tmp_path / "mine.py").write_text("def network(): ...")
    body = document(model__name=None, model__callable="mine:network")
    return parse(body, "m.json", tmp_path)


def test_code_is_refused_unasked(own: Manifest) -> None:
    with pytest.raises(UsageError, match=r"(?s)/model/callable: 'mine:network'.*--allow-code"):
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
    with pytest.raises(UsageError, match=r"(?s)/model/callable: .*--allow-code.*JOB_ALLOWED_CODE"):
        check_allowed(own, allow_code=False)


@pytest.mark.parametrize("allow_code", [False, True])
def test_an_allowed_name_beside_the_manifest_is_not_run(
    own: Manifest, monkeypatch: pytest.MonkeyPatch, allow_code: bool
) -> None:
    monkeypatch.setenv(ALLOWED, "mine")
    with pytest.raises(
        UsageError, match=r"/model/callable: JOB_ALLOWED_CODE .*\bmine\b.* not inst"
    ):
        check_allowed(own, allow_code=allow_code)
    # Dependencies of an allowed package must not be imported from there either.
    assert code_folders(own) == ()
