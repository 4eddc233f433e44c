"""The termination message of a container."""

from pathlib import Path

import pytest

from job.cli import termination_log


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "termination-log"
    monkeypatch.setattr(termination_log, "LOG", path)
    return path


def test_one_line(log: Path) -> None:
    log.touch()
    termination_log.write("exit 2: m.json: 1 fault\n  /train/epochs: expected an integer\n")
    assert log.read_text() == "exit 2: m.json: 1 fault /train/epochs: expected an integer"


def test_what_is_too_long_ends_with_a_whole_letter(log: Path) -> None:
    log.touch()
    termination_log.write("x" + "×" * 5000)
    assert len(log.read_bytes()) == 4095
    assert log.read_text(encoding="utf-8").endswith("×")


def test_half_of_a_surrogate_pair_is_escaped(log: Path) -> None:
    log.touch()
    termination_log.write("\ud800")
    assert log.read_text() == r"\ud800"


def test_no_file_is_made_where_kubernetes_made_none(log: Path) -> None:
    termination_log.write("done")
    assert not log.exists()
