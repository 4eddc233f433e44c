"""Read a list of images: one ``path label`` per line."""

import codecs
import contextlib
import io
import posixpath
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from job.data.decode import EXTENSIONS
from job.errors import DataError
from job.storage.files import open_regular
from job.text_format import shortened
from job.uri import is_uri

# Paths have at most 4,096 bytes.
_LONGEST_LINE = 1 << 16
_LABEL = re.compile(r"-?[0-9]{1,18}")
_SEPARATED = re.compile(r"\S\s*([,;|])\s*-?[0-9]+$")
_WINDOWS_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_TWO_NUMBERS = re.compile(
    rf"({'|'.join(re.escape(suffix) for suffix in sorted(EXTENSIONS))})\s+-?[0-9.]+$", re.IGNORECASE
)
_OPENING_QUOTES = ('"', "'", "`", "\u201c", "\u2018")
_CLOSING_QUOTES = ('"', "'", "`", "\u201d", "\u2019")
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_EXAMPLE = "Write one image and its label per line, such as `val/n01440764_tench.JPEG 0`."


def list_entries(
    path: Path, named: str, root: str, classes: int | None
) -> Iterator[tuple[str, int]]:
    """Yield name and label of each line of a list; a name never has ``..`` or a double slash.

    Lines end with LF, CR LF or CR. A byte order mark is skipped.

    Args:
        path: the list.
        named: the list's name in messages.
        root: the folder of the data set, for messages.
        classes: the number of classes; every label is less. None: the lines have no labels, and
            every label is 0.

    Raises:
        DataError: the list is missing, empty or malformed, or a name leads out of the data set.
    """
    empty = True
    for where, line in _lines(path, named):
        name, label = (line, 0) if classes is None else _entry(line, where)
        problem = path_problem(name)
        if problem:
            raise DataError(f"{where}: {name!r} {problem} {root}")
        empty = False
        if classes is not None and not 0 <= label < classes:
            raise _outside(path, named, where, label, classes)
        yield posixpath.normpath(name), label
    if empty:
        example = "Write one image per line." if classes is None else _EXAMPLE
        raise DataError(f"{named}: the list is empty", example)


def _outside(path: Path, named: str, where: str, label: int, classes: int) -> DataError:
    """Return the error for a label that is not a class, with the range of all labels."""
    labels = [label]
    # A later line may be malformed too. The first fault is reported.
    with contextlib.suppress(DataError):
        for place, line in _lines(path, named):
            labels.append(_entry(line, place)[1])
    low, high = min(labels), max(labels)
    hint = "Set model.classes to more than the highest label; labels start at 0."
    if (low, high) == (1, classes):
        hint = "Subtract 1 from each label, because labels start at 0."
    return DataError(
        f"{where}: label {label} is outside 0 to {classes - 1}; the labels of this list are "
        f"{low} to {high}",
        hint,
    )


def _lines(path: Path, named: str) -> Iterator[tuple[str, str]]:
    try:
        with open_regular(path) as file:
            # Latin-1 keeps every byte, so the text layer only translates the line ends.
            lines = io.TextIOWrapper(file, "latin-1", newline=None)
            for number, line in enumerate(iter(partial(lines.readline, _LONGEST_LINE), ""), 1):
                yield from _line(line.encode("latin-1"), f"{named}:{number}", first=number == 1)
    except OSError as error:
        raise DataError(
            f"cannot read list {named}: {error.strerror}", content_of(path.parent)
        ) from error


def _line(line: bytes, where: str, *, first: bool) -> Iterator[tuple[str, str]]:
    if len(line) == _LONGEST_LINE:
        raise DataError(
            f"{where}: the line has more than {len(line):,} bytes", "Check that the file is a list."
        )
    if first and line.startswith(_UTF_16):
        raise DataError(
            f"{where}: the list is UTF-16 text; expected UTF-8", "Save the list as UTF-8."
        )
    try:
        # Lists joined with `cat` have a mark in the middle too.
        text = line.removeprefix(codecs.BOM_UTF8).decode().strip()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: the line is not UTF-8 text", "Check that the file is a list."
        ) from error
    if text:
        yield where, text


def _entry(line: str, where: str) -> tuple[str, int]:
    parts = line.rsplit(maxsplit=1)
    problem, hint = _form_problem(line, parts)
    if problem:
        raise DataError(f"{where}: expected `path label`, {problem}; found {line[:120]!r}", hint)
    if len(parts) != 2 or not _LABEL.fullmatch(parts[1]):
        raise DataError(
            f"{where}: expected `path label` with a whole number as label, found {line[:120]!r}",
            _EXAMPLE,
        )
    return parts[0], int(parts[1])


def _form_problem(line: str, parts: list[str]) -> tuple[str, str]:
    """Return what is wrong with the form of a line, and what to do; empty if it has the form.

    Such a line could also be split, but at the wrong place. Then its path would name a missing
    image.
    """
    name = parts[0]
    if separated := _SEPARATED.search(line):
        sign = separated[1]
        return (
            f"separated by spaces or a tab and without {sign!r}",
            f"Replace the {sign!r} before each label by a space.",
        )
    quoted = name.startswith(_OPENING_QUOTES) and name.endswith(_CLOSING_QUOTES)
    if quoted or parts[-1].endswith(_CLOSING_QUOTES):
        return "without quotes", "Remove the quotes. A path may contain spaces."
    if _TWO_NUMBERS.search(name):
        return "with one number", "Write one label per image."
    first = line.split(maxsplit=1)
    if _LABEL.fullmatch(first[0]) and not _LABEL.fullmatch(parts[-1]):
        return "with the path first", "Swap path and label."
    if is_uri(name):
        return "with a path below data.root", "Remove the prefix from each path."
    if _WINDOWS_DRIVE.match(name) or ("\\" in name.strip("\\") and "/" not in name):
        return "with `/` in the path, below data.root", "Replace each `\\` by `/`."
    return "", ""


def path_problem(name: str) -> str:
    """Return how a name leads out of a folder, to be followed by the folder's name; or empty."""
    if posixpath.isabs(name):
        return "is an absolute path; expected a path inside"
    if "\0" in name:
        return "contains a NUL byte; expected a path inside"
    if ".." in name.split("/"):
        return "contains `..`; expected a path inside"
    return ""


def content_of(folder: Path) -> str:
    """Return a sentence that names some of the files of a folder."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError:
        return f"The folder {folder} is also missing."
    return f"{folder} contains {shortened(names)}." if names else f"{folder} is empty."
