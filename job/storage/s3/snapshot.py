"""The files of an output folder that are uploaded to S3, fixed at one time."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from job.storage.digests import hash_file, hash_stream
from job.storage.files import TEMPORARY, read_json
from job.storage.local import (
    DEPLOYS,
    FAILURE,
    KEY_FILE,
    LOGS,
    MANIFEST,
    PARTIALS,
    REPORTS,
    RESUME,
    STAGE_FILE,
    remove,
)

# Paddle writes these files in place, so a link to them can have a part of the content. A stage
# writes them after its last checkpoint, and a stage that resumes writes them again.
_IN_PLACE = (".pdmodel", ".pdiparams", ".pdparams")


@dataclass(frozen=True)
class Kept:
    """A file to upload.

    Attributes:
        path: the file; it is missing if it is only in S3.
        bytes: number of bytes to upload, from the start of the file.
        sha256: the SHA-256 of these bytes.
        mtime_ns: the modification time when it was published; None if it was read just now.
    """

    path: Path
    bytes: int
    sha256: str
    mtime_ns: int | None = None

    @property
    def content(self) -> tuple[str, int]:
        """Identifies the content."""
        return self.sha256, self.bytes

    def is_here(self) -> bool:
        """Return whether the file still has the content; it is read only if its time differs."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return False
        if self.mtime_ns in (None, stat.st_mtime_ns):
            return stat.st_size >= self.bytes
        return stat.st_size == self.bytes and hash_file(self.path) == self.sha256


def snapshot(root: Path, pins: Path) -> dict[str, Kept]:
    """Return the files of an output folder by path with slashes.

    Args:
        root: the output folder.
        pins: a folder on the same disk, for links to files that a running stage will replace.
    """
    kept = dict(published_files(root))
    names = (MANIFEST, *DEPLOYS, *REPORTS, FAILURE)
    for path in (*(root / name for name in names), *(root / LOGS).glob("*.log")):
        if path.is_file():
            kept[path.relative_to(root).as_posix()] = _current(path)
    for path in _pinned(root / PARTIALS, pins):
        kept[f"{PARTIALS}/{path.relative_to(pins).as_posix()}"] = _current(path)
    return kept


def checkpoints(root: Path) -> frozenset[tuple[str, int]]:
    """Return path and time of every complete checkpoint of unfinished stages."""
    complete = set()
    for path in (root / PARTIALS).glob(f"*/{RESUME}/*"):
        with suppress(FileNotFoundError):  # the stage removes older checkpoints
            if path.suffix != TEMPORARY:
                complete.add((str(path), path.stat().st_mtime_ns))
    return frozenset(complete)


def published_files(root: Path) -> Iterator[tuple[str, Kept]]:
    """Yield the files of finished stages, with the checksums in their stage.json."""
    for stage_file in sorted(root.glob(f"*/{STAGE_FILE}")):
        folder = stage_file.parent
        yield f"{folder.name}/{STAGE_FILE}", _current(stage_file)
        for name, entry in read_json(stage_file)["files"].items():
            kept = Kept(folder / name, entry["bytes"], entry["sha256"], entry["mtime_ns"])
            yield f"{folder.name}/{name}", kept


def _pinned(partials: Path, pins: Path) -> Iterator[Path]:
    """Yield links to the files of stages that can resume.

    A stage replaces these files atomically or appends to them. It writes a checkpoint after the
    files that the checkpoint refers to. So checkpoints are linked first: files that are linked
    later are as new as the checkpoint, or newer.
    """
    remove(pins)
    for folder in sorted(partials.glob("*")):
        first = sorted((folder / RESUME).glob("*"))
        if not any(path.suffix != TEMPORARY for path in first):
            continue
        others = sorted(path for path in folder.rglob("*") if path.parent != folder / RESUME)
        for path in (*first, *others):
            if path.is_dir() or path.suffix in (TEMPORARY, *_IN_PLACE):
                continue
            pin = pins / path.relative_to(partials)
            pin.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                _link(path, pin)
                yield pin


def _link(path: Path, pin: Path) -> None:
    try:
        os.link(path, pin)
    except PermissionError:  # a file system without links
        shutil.copyfile(path, pin)


def _current(path: Path) -> Kept:
    """Identify the current content of a file; bytes that are appended later do not count."""
    with path.open("rb") as file:
        sha256, length = hash_stream(file, path.stat().st_size)
    return Kept(path, length, sha256)


def is_record(path: str) -> bool:
    """Return whether a file is a record, which planning reads, and not an artifact."""
    folder, _, name = path.partition("/")
    results = (MANIFEST, *DEPLOYS, *REPORTS, FAILURE)
    return path in results or (name == STAGE_FILE and folder != PARTIALS)


def is_log(path: str) -> bool:
    """Return whether a file is the log of a stage."""
    return path.startswith(f"{LOGS}/")


def unfinished_files(stage: str, paths: Iterable[str]) -> list[str]:
    """Return the paths of the unfinished work and the log of a stage."""
    inside, log = f"{PARTIALS}/{stage}/", f"{LOGS}/{stage}.log"
    return sorted(path for path in paths if path.startswith(inside) or path == log)


def is_checkpoint(path: str) -> bool:
    """Return whether a file of unfinished work is a checkpoint."""
    return f"/{RESUME}/" in path


def key_path(stage: str) -> str:
    """Return the path of the file with the cache key of a stage's unfinished work."""
    return f"{PARTIALS}/{stage}/{KEY_FILE}"
