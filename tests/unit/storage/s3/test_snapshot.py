"""The files of an unfinished stage that are uploaded while the stage runs."""

import hashlib
from pathlib import Path

from job.storage.s3.snapshot import PARTIALS, snapshot

_KEPT = (".key", "best.npz", "metrics.jsonl", "checkpoints/step-000000001.npz")
_PADDLES = ("inference.pdmodel", "inference.pdiparams", "weights.pdparams")


def test_files_that_the_stage_changes_after_the_snapshot(tmp_path: Path) -> None:
    """The content of each file stays as it was, however the stage writes the file."""
    root, folder = tmp_path / "run", tmp_path / "run" / PARTIALS / "qat"
    (folder / "checkpoints").mkdir(parents=True)
    for name in (*_KEPT, *_PADDLES):
        (folder / name).write_bytes(name.encode() * 100)
    kept = snapshot(root, root / ".pins")
    for name in _KEPT:
        other = folder / f"{name}.tmp"
        other.write_bytes(b"another")
        other.replace(folder / name)
    for name in _PADDLES:
        (folder / name).write_bytes(b"half")
    assert sorted(kept) == sorted(f"{PARTIALS}/qat/{name}" for name in _KEPT)
    for each in kept.values():
        content = each.path.read_bytes()[: each.bytes]
        assert hashlib.sha256(content).hexdigest() == each.sha256
        assert each.is_here()


def test_a_file_that_grows_after_the_snapshot(tmp_path: Path) -> None:
    folder = tmp_path / "run" / PARTIALS / "qat"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "step-000000001.npz").write_bytes(b"x")
    (folder / "metrics.jsonl").write_bytes(b"{}\n")
    kept = snapshot(tmp_path / "run", tmp_path / "run" / ".pins")
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b"{}\n")
    metrics = kept[f"{PARTIALS}/qat/metrics.jsonl"]
    assert metrics.path.read_bytes()[: metrics.bytes] == b"{}\n"
