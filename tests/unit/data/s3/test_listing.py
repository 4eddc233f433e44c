"""Listing of a data set in S3: order, memory, progress, and the listing of an earlier command."""

import resource
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from unusual_s3 import BUCKET, Unusual

from job.data.s3 import index as remote_index
from job.data.s3.known_listing import VALID_SECONDS, KnownListing
from job.data.s3.listed import ListedObjects
from job.errors import DataError, OutputError
from job.manifest import Manifest, parse
from job.manifest.storage_access import access_of
from job.pipeline.fetch_inputs import localized
from job.storage.s3.responses import S3Object
from job.uri import S3Uri

ROOT = BUCKET / "set"
AT = datetime(2026, 1, 1, tzinfo=UTC)
FOLDERS = {"format": "class_folders", "train_dir": "train", "val_dir": "val"}
LISTS = {"format": "imagenet_list", "train_list": "train.txt", "val_list": "val.txt"}


def objects(names: Iterator[str]) -> Iterator[S3Object]:
    return (S3Object(S3Uri("bucket", f"set/{name}"), 7, f'"{name}"', AT) for name in names)


def manifest(server: Unusual, folder: Path, **data: Any) -> Manifest:
    document = {
        "version": 1,
        "name": "tiny",
        "model": {
            "name": "convnet",
            "classes": 2,
            "input_shape": [3, 8, 8],
            "random_weights": True,
        },
        "data": {**(data or FOLDERS), "root": str(ROOT), "mean": [0.5], "std": [0.5]},
        "storage": {"endpoint_url": server.url, "scratch": str(folder / "scratch")},
    }
    return parse(document, "m.json", folder)


def hold(server: Unusual, count: int) -> None:
    for number in range(count):
        for folder in ("train", "val"):
            server.hold(f"set/{folder}/c{number % 2}/{number:06d}.jpg", b"x")


def names_of(wanted: Manifest, *, reuse: bool) -> tuple[str, ...]:
    with localized(wanted, lambda text: None, reuse_listing=reuse) as ready:
        return remote_index.read(ready.localized[ROOT], ROOT).names


class TestListedObjects:
    def test_sorted_by_key_without_duplicates(self, tmp_path: Path) -> None:
        names = ["b/1.jpg", "a/\U0001f600.jpg", "a/\uffee.jpg", "a b", "a", "b/", "b/1.jpg"]
        with ListedObjects.open(tmp_path / "x", ROOT, print) as listed:
            listed.add(objects(iter(names)), lambda entry: not entry.uri.key.endswith("/"))
            found = [key.removeprefix("set/") for key, _, _ in listed]
            assert listed.seen == 7
        assert found == sorted({*names} - {"b/"})

    def test_memory_does_not_grow_with_the_number_of_objects(self, tmp_path: Path) -> None:
        """10,000 objects in memory take 7 MB."""
        with ListedObjects.open(tmp_path / "x", ROOT, print) as listed:
            tracemalloc.start()
            try:
                names = (f"train/c/{number:08d}.jpg" for number in range(10_000))
                listed.add(objects(names), lambda entry: True)
                lines = sum(1 for _ in remote_index.object_lines(ROOT, listed))
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert lines == 10_001
        assert peak < 2_500_000

    def test_a_disk_without_space(self, tmp_path: Path) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        names = (f"{number:09d}.jpg" for number in range(10_000))
        try:
            with (
                pytest.raises(OutputError, match=str(tmp_path / "x")),
                ListedObjects.open(tmp_path / "x", ROOT, print) as listed,
            ):
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
                listed.add(objects(names), lambda entry: True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def test_progress(self, tmp_path: Path) -> None:
        said: list[str] = []
        with ListedObjects.open(tmp_path / "x", ROOT, said.append, 0.0) as listed:
            listed.add(objects(f"{number}.jpg" for number in range(2500)), lambda entry: True)
        assert [text.split(": ")[1] for text in said] == [
            "1,000 objects",
            "2,000 objects",
            "2,500 objects",
        ]


class TestKnownListing:
    @pytest.mark.parametrize(
        ("images", "page_keys"), [(2000, 100), pytest.param(20_000, 1000, marks=pytest.mark.full)]
    )
    def test_a_second_dry_run(
        self, server: Unusual, tmp_path: Path, images: int, page_keys: int
    ) -> None:
        hold(server, images // 2)
        server.habits.page_keys = page_keys
        wanted = manifest(server, tmp_path)
        first = names_of(wanted, reuse=True)
        # Each of four folders has five pages of images. The other pages list the folders.
        assert server.requests["LIST"] <= 4 * 5 + 3
        server.requests.clear()
        began = time.process_time()
        with localized(wanted, lambda text: None, reuse_listing=True):
            passed = time.process_time() - began
        assert server.requests.total() == 0
        assert passed < 0.5
        assert names_of(wanted, reuse=True) == first

    def test_a_run_lists_again(self, server: Unusual, tmp_path: Path) -> None:
        hold(server, 2)
        wanted = manifest(server, tmp_path)
        before = names_of(wanted, reuse=True)
        server.hold("set/train/c0/new.jpg", b"x")
        after = names_of(wanted, reuse=False)
        assert set(after) - set(before) == {"train/c0/new.jpg"}
        assert names_of(wanted, reuse=True) == after

    def test_another_list_or_folder_is_listed_again(self, server: Unusual, tmp_path: Path) -> None:
        hold(server, 4)
        server.hold("set/val.txt", b"val/c0/000000.jpg 0\n")
        server.hold("set/train.txt", b"train/c0/000000.jpg 0\n")
        assert len(names_of(manifest(server, tmp_path), reuse=True)) == 8
        wanted = manifest(server, tmp_path, **LISTS)
        assert len(names_of(wanted, reuse=True)) == 2
        server.hold("set/train.txt", b"train/c0/000000.jpg 0\ntrain/c1/000001.jpg 1\n")
        assert len(names_of(wanted, reuse=True)) == 3

    @pytest.mark.parametrize(("age", "valid"), [(0, True), (600, True), (601, False), (-1, False)])
    def test_validity(self, server: Unusual, tmp_path: Path, age: int, valid: bool) -> None:
        assert VALID_SECONDS == 600
        wanted = manifest(server, tmp_path)
        access = access_of(wanted.storage, wanted.base)
        now = [1000.0]
        known = KnownListing(ROOT, wanted, access, access.cache(), {}, lambda: now[0])

        def fetch(folder: Path) -> None:
            (folder / "description").write_bytes(b"")

        empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        described = access.cache().files(f"description {empty}", 0, fetch) / "description"
        known.keep(described)
        now[0] += age
        said: list[str] = []
        assert known.description(said.append) == (described if valid else None)
        assert len(said) == valid

    def test_a_removed_description_is_listed_again(self, server: Unusual, tmp_path: Path) -> None:
        hold(server, 2)
        wanted = manifest(server, tmp_path)
        with localized(wanted, print) as ready:
            path = ready.localized[ROOT]
        path.unlink()
        assert len(names_of(wanted, reuse=True)) == 4

    def test_an_empty_prefix(self, server: Unusual, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=f"{ROOT}/.*no objects"):
            names_of(manifest(server, tmp_path), reuse=True)


def test_an_index_has_names_below_the_root() -> None:
    lines = list(remote_index.object_lines(S3Uri("bucket", "set"), [("set/a.jpg", 7, '"e"')]))
    assert lines[1:] == [b'["a.jpg", 7, "\\"e\\""]\n']
