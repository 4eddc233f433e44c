"""What of an output folder goes to S3, held still while it is sent."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from job.storage.digests import hash_file, hash_stream
from job.storage.files import TEMPORARY, read_json
from job.storage.local import FAILURE, KEY_FILE, MANIFEST, REPORTS, RESUME, STAGE_FILE, remove

LOGS = "logs"
PARTIALS = ".partial"


@dataclass(frozen=True)
class Kept:
    """A file to send.

    Attributes:
        path: holds the content, in its first ``bytes`` bytes; not there if it is in S3 only.
        bytes: how much of it.
        sha256: the digest of that.
        mtime_ns: when it was published; None for what was read just now.
    """

    path: Path
    bytes: int
    sha256: str
    mtime_ns: int | None = None

    @property
    def content(self) -> tuple[str, int]:
        """What tells equal files."""
        return self.sha256, self.bytes

    def is_here(self) -> bool:
        """Whether the file still holds the content; it is read only if its time differs."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return False
        if self.mtime_ns in (None, stat.st_mtime_ns):
            return stat.st_size >= self.bytes
        return stat.st_size == self.bytes and hash_file(self.path) == self.sha256


def snapshot(root: Path, pins: Path) -> dict[str, Kept]:
    """Return what an output folder holds, by path with slashes.

    Args:
        root: the output folder.
        pins: a folder on the same disk for links to files that a stage at work will replace.
    """
    found = dict(published_files(root))
    names = (MANIFEST, *REPORTS, FAILURE)
    for path in (*(root / name for name in names), *(root / LOGS).glob("*.log")):
        if path.is_file():
            found[path.relative_to(root).as_posix()] = _as_it_is(path)
    for path in _pinned(root / PARTIALS, pins):
        found[f"{PARTIALS}/{path.relative_to(pins).as_posix()}"] = _as_it_is(path)
    return found


def checkpoints(root: Path) -> frozenset[tuple[str, int]]:
    """Return name and time of every whole checkpoint of unfinished stages."""
    found = set()
    for path in (root / PARTIALS).glob(f"*/{RESUME}/*"):
        with suppress(FileNotFoundError):  # an older one goes when a newer one is there
            if path.suffix != TEMPORARY:
                found.add((str(path), path.stat().st_mtime_ns))
    return frozenset(found)


def published_files(root: Path) -> Iterator[tuple[str, Kept]]:
    """Yield the files of finished stages; their digests are known."""
    for stage_file in sorted(root.glob(f"*/{STAGE_FILE}")):
        folder = stage_file.parent
        yield f"{folder.name}/{STAGE_FILE}", _as_it_is(stage_file)
        for name, entry in read_json(stage_file)["files"].items():
            kept = Kept(folder / name, entry["bytes"], entry["sha256"], entry["mtime_ns"])
            yield f"{folder.name}/{name}", kept


def _pinned(partials: Path, pins: Path) -> Iterator[Path]:
    """Yield links to the files of stages that can be resumed.

    A stage replaces its files whole or appends to them, and writes a checkpoint after all that it
    refers to. So checkpoints are linked first: what is linked later is as new, or newer.
    """
    remove(pins)
    for folder in sorted(partials.glob("*")):
        first = sorted((folder / RESUME).glob("*"))
        if not any(path.suffix != TEMPORARY for path in first):
            continue
        others = sorted(path for path in folder.rglob("*") if path.parent != folder / RESUME)
        for path in (*first, *others):
            if path.is_dir() or path.suffix == TEMPORARY:
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


def _as_it_is(path: Path) -> Kept:
    """Identify what a file holds now; what is appended later does not count."""
    with path.open("rb") as file:
        sha256, length = hash_stream(file, path.stat().st_size)
    return Kept(path, length, sha256)


def is_record(path: str) -> bool:
    """Tell whether a file is one that planning looks at, not an artifact."""
    folder, _, name = path.partition("/")
    return path in (MANIFEST, *REPORTS, FAILURE) or (name == STAGE_FILE and folder != PARTIALS)


def is_log(path: str) -> bool:
    """Tell whether a file is what a stage's process printed."""
    return path.startswith(f"{LOGS}/")


def unfinished_files(stage: str, paths: Iterable[str]) -> list[str]:
    """Return those of some paths that a stage goes on from: its unfinished work, its log."""
    inside, log = f"{PARTIALS}/{stage}/", f"{LOGS}/{stage}.log"
    return sorted(path for path in paths if path.startswith(inside) or path == log)


def is_checkpoint(path: str) -> bool:
    """Tell whether a file of unfinished work is one of several to go on from."""
    return f"/{RESUME}/" in path


def key_path(stage: str) -> str:
    """Return the path of the file that holds the key of a stage's unfinished work."""
    return f"{PARTIALS}/{stage}/{KEY_FILE}"
