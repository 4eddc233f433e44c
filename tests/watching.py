"""Reads files that another process writes, renames or removes at the same time."""

from pathlib import Path


def text_of(path: Path) -> str:
    """The content of a file, or an empty string if there is none at the moment."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def lines_of(path: Path) -> list[str]:
    """The lines of a file that are complete."""
    return [line for line in text_of(path).splitlines(keepends=True) if line.endswith("\n")]


def found_in(folder: Path, pattern: str) -> list[Path]:
    """Paths below a folder that match a pattern; none if it is renamed in the meantime."""
    try:
        return list(folder.glob(pattern))
    except FileNotFoundError:
        return []
