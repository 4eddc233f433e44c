"""Inputs in S3 give the same images and the same cache keys as inputs on a local disk."""

import json
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_fakes import save_folders, save_image
from moto_server import S3Server

from job.data import packed
from job.data.loader import Loader, Normalisation
from job.data.s3.images import remote_of
from job.data.splits import Splits, split
from job.data.transforms import Evaluate
from job.errors import DataError, ManifestError
from job.manifest import Manifest, load, parse
from job.pipeline.fetch_inputs import as_json, from_json, localized
from job.stages import STAGES
from job.stages.dataset import data_files
from job.stages.network import model_files
from job.storage.digests import Digests
from job.uri import S3Uri

CLASSES = ("cat", "dog", "emu")
DATA = {"train_dir": "train", "val_dir": "val", "format": "class_folders"}
DIGITS = {"format": "digits"}
LISTS = {"train_list": "train.txt", "val_list": "val.txt", "format": "imagenet_list"}


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JOB_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of three classes, with lists."""
    root = tmp_path / "data"
    for name in ("train", "val"):
        save_folders(root / name, CLASSES, 4)
        files = sorted((root / name).rglob("*.png"))
        lines = [f"{path.relative_to(root)} {CLASSES.index(path.parent.name)}\n" for path in files]
        (root / f"{name}.txt").write_text("".join(lines))
    return root


def put(server: S3Server, folder: Path, below: S3Uri) -> None:
    """Upload a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            key = (below / str(path.relative_to(folder))).key
            server.client.put_object(Bucket=below.bucket, Key=key, Body=path.read_bytes())


def document(
    root: str | None, data: dict[str, Any], storage: dict[str, Any], **model: Any
) -> dict[str, Any]:
    shape = {"classes": 3, "input_shape": [3, 8, 8]}
    if data == DIGITS:
        shape = {"classes": 10, "input_shape": [1, 8, 8]}
    return {
        "version": 1,
        "name": "tiny",
        "model": {"name": "convnet", **shape, **model},
        "data": {**data, "root": root, "mean": [0.5], "std": [0.5]},
        "storage": storage,
    }


def manifest(
    root: str | None, base: Path, data: dict[str, Any] = DATA, cache_gib: float = 1, **model: Any
) -> Manifest:
    return parse(document(root, data, {"cache_gib": cache_gib}, **model), "m.json", base)


def fetched(wanted: Manifest) -> AbstractContextManager[Manifest]:
    return localized(wanted, lambda text: None)


@contextmanager
def opened(wanted: Manifest, cache: Path) -> Iterator[tuple[Manifest, Splits]]:
    with fetched(wanted) as ready:
        spec, model = ready.data, ready.model
        yield (
            ready,
            split(
                spec,
                model.classes,
                model.input_shape,
                ready.path,
                cache,
                remote=remote_of(ready),
            ),
        )


def batches(part: Any, workers: int = 0) -> list[bytes]:
    half = Normalisation((0.5,), (0.5,))
    with Loader(
        part.source, part.indices, Evaluate((8, 8)), half, batch_size=4, workers=workers
    ) as loader:
        return [batch.images.tobytes() for batch in loader.batches()]


def archive(folder: Path, path: Path) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as opened_zip:
            for each in sorted(folder.rglob("*.png")):
                opened_zip.write(each, each.relative_to(folder))
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
            for each in sorted(folder.rglob("*.png")):
                tar.add(each, each.relative_to(folder))
    return path


def assert_same(one: Splits, other: Splits, workers: int = 0) -> None:
    for name in ("train", "calibration", "selection", "test"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine.how == theirs.how
        assert batches(mine, workers) == batches(theirs)
        assert mine.source.labels.tolist() == theirs.source.labels.tolist()


class TestImages:
    @pytest.mark.parametrize("data", [DATA, LISTS], ids=["folders", "lists"])
    @pytest.mark.parametrize("workers", [0, 1])
    def test_below_a_prefix(
        self,
        s3_server: S3Server,
        bucket: S3Uri,
        folder: Path,
        tmp_path: Path,
        data: dict[str, Any],
        workers: int,
    ) -> None:
        put(s3_server, folder, bucket / "sets/a")
        with (
            opened(manifest(str(folder), tmp_path, data), tmp_path / "c") as (_, here),
            opened(manifest(f"{bucket}sets/a", tmp_path, data), tmp_path / "c") as (_, there),
        ):
            assert_same(there, here, workers)

    @pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
    def test_in_an_archive(
        self, s3_server: S3Server, bucket: S3Uri, folder: Path, tmp_path: Path, name: str
    ) -> None:
        content = archive(folder, tmp_path / name).read_bytes()
        s3_server.client.put_object(Bucket=bucket.bucket, Key=name, Body=content)
        with (
            opened(manifest(str(folder), tmp_path), tmp_path / "c") as (_, here),
            opened(manifest(f"{bucket}{name}", tmp_path), tmp_path / "c") as (_, there),
        ):
            assert_same(there, here)
        kept = [path.stat().st_size for path in tmp_path.rglob("c/**/*") if path.is_file()]
        assert name.endswith(".tar") or len(content) not in kept

    @pytest.mark.parametrize("cache_gib", [1, 1e-5], ids=["roomy", "small"])
    @pytest.mark.parametrize("data", [DATA, LISTS], ids=["folders", "lists"])
    def test_in_tar_shards(
        self,
        s3_server: S3Server,
        bucket: S3Uri,
        folder: Path,
        tmp_path: Path,
        cache_gib: float,
        data: dict[str, Any],
    ) -> None:
        for number, name in enumerate(CLASSES):
            part = tmp_path / f"part{number}"
            for each in ("train", "val"):
                shutil.copytree(folder / each / name, part / each / name)
            content = archive(part, tmp_path / f"{number}.tar").read_bytes()
            s3_server.client.put_object(
                Bucket=bucket.bucket, Key=f"shards/{number}.tar", Body=content
            )
        for name in ("train.txt", "val.txt"):
            text = (folder / name).read_bytes()
            s3_server.client.put_object(Bucket=bucket.bucket, Key=f"shards/{name}", Body=text)
        wanted = manifest(f"{bucket}shards", tmp_path, data, cache_gib)
        with (
            opened(manifest(str(folder), tmp_path, data), tmp_path / "c") as (_, here),
            opened(wanted, tmp_path / "c") as (_, there),
        ):
            assert_same(there, here)

    def test_a_listed_image_that_is_not_there_is_one_bad_image(
        self, s3_server: S3Server, bucket: S3Uri, folder: Path, tmp_path: Path
    ) -> None:
        (folder / "train/cat/0.png").unlink()
        put(s3_server, folder, bucket / "a")
        wanted = manifest(f"{bucket}a", tmp_path, LISTS)
        says = r"1 of \d+ images.*(.|\n)*  train/cat/0.png: "
        with opened(wanted, tmp_path) as (_, there), pytest.raises(DataError, match=says):
            batches(there.train)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_an_object_that_changes_ends_the_job(
        self, s3_server: S3Server, bucket: S3Uri, folder: Path, tmp_path: Path, workers: int
    ) -> None:
        put(s3_server, folder, bucket / "a")
        with opened(manifest(f"{bucket}a", tmp_path), tmp_path) as (_, there):
            save_image(folder / "train/cat/0.png", 999)
            put(s3_server, folder / "train/cat", bucket / "a/train/cat")
            says = rf"s3://{bucket.bucket}/a/train/cat/0\.png on .*changed"
            with pytest.raises(DataError, match=says) as caught:
                batches(there.train, workers)
            assert caught.value.exit_code == 4


class TestFiles:
    def test_weights_have_the_key_of_a_local_file(
        self, s3_server: S3Server, bucket: S3Uri, tmp_path: Path
    ) -> None:
        (tmp_path / "w.pdparams").write_bytes(b"weights")
        s3_server.store.put(bucket / "a/w.pdparams", b"weights")
        body = document(None, DIGITS, {}, weights="w.pdparams")
        s3_server.store.put(bucket / "a/m.json", json.dumps(body).encode())
        digests = Digests(tmp_path / "none")
        local = parse(body, "m.json", tmp_path)
        (path,) = model_files(local)
        mine = {local.called(path): digests.identify(path)}
        with fetched(load(f"{bucket}a/m.json")) as ready:
            (path,) = model_files(ready)
            assert path.read_bytes() == b"weights"
            assert {ready.called(path): digests.identify(path)} == mine
            assert from_json(local, as_json(ready)).path("w.pdparams") == path

    def test_of_a_matrix_only_the_model_that_runs(
        self, s3_server: S3Server, bucket: S3Uri, tmp_path: Path
    ) -> None:
        s3_server.store.put(bucket / "one.pdparams", b"weights")
        models = [
            {"name": name, "set": {"model.weights": f"{bucket}{name}.pdparams"}}
            for name in ("one", "two")
        ]
        body = {**document(None, DIGITS, {}), "matrix": models}
        wanted = parse(body, "m.json", tmp_path)
        with localized(wanted, lambda text: None, index=0) as ready:
            assert list(ready.localized) == [bucket / "one.pdparams"]
        with pytest.raises(DataError, match=r"two\.pdparams"), fetched(wanted):
            pass

    @pytest.mark.parametrize("program", ["pdmodel", "json"])
    @pytest.mark.parametrize("given", ["m/net", "m", "m/net.{}", "m/net.pdiparams"])
    def test_an_inference_model_is_two_files_side_by_side(
        self, s3_server: S3Server, bucket: S3Uri, tmp_path: Path, given: str, program: str
    ) -> None:
        given = given.format(program)
        for suffix in (program, "pdiparams"):
            s3_server.store.put(bucket / f"m/net.{suffix}", suffix.encode())
        s3_server.store.put(bucket / "m/config.json", b"{}")
        wanted = manifest(None, tmp_path, DIGITS, inference_model=f"{bucket}{given}", name=None)
        with fetched(wanted) as ready:
            found = model_files(ready)
            assert [path.read_bytes() for path in found] == [program.encode(), b"pdiparams"]
            assert [str(ready.origin(path)) for path in found] == [
                f"{bucket}m/net.{program}",
                f"{bucket}m/net.pdiparams",
            ]

    def test_packed_files_come_with_their_sidecars(
        self, s3_server: S3Server, bucket: S3Uri, tmp_path: Path
    ) -> None:
        batch = [(np.ones((20, 3, 8, 8), np.float32), np.arange(20) % 3)]
        (tmp_path / "local").mkdir()
        packed.write(tmp_path / "local/val.bin", batch, shape=(3, 8, 8), transform="none")
        put(s3_server, tmp_path / "local", bucket / "p")
        data = {"format": "packed", "val_file": "val.bin"}
        with opened(manifest(f"{bucket}p", tmp_path, data), tmp_path) as (ready, there):
            assert len(there.test) > 0
            assert packed.read_sidecar(data_files(ready)[0]) is not None

    def test_a_changed_data_set_has_another_key(
        self, s3_server: S3Server, bucket: S3Uri, folder: Path, tmp_path: Path
    ) -> None:
        put(s3_server, folder, bucket / "a")
        wanted = manifest(f"{bucket}a", tmp_path)
        identities = []
        for change in (None, "output/report.json", "train/cat/9.png"):
            if change:
                s3_server.store.put(bucket / f"a/{change}", b"x")
            with fetched(wanted) as ready:
                identities.append(Digests(tmp_path / "none").identify(data_files(ready)[0]))
        assert identities[0] == identities[1] != identities[2]

    def test_stages_are_planned_with_addresses(
        self, s3_server: S3Server, bucket: S3Uri, folder: Path, tmp_path: Path
    ) -> None:
        put(s3_server, folder, bucket / "a")
        with fetched(manifest(f"{bucket}a", tmp_path)) as ready:
            found = STAGES[0].files(ready)
            assert [ready.called(path) for path in found] == [f"{bucket}a"]


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "uri"),
        [
            ({"weights": "s3://{}/none.pdparams"}, "s3://{}/none.pdparams on "),
            ({"weights": "s3://no-such-bucket-at-all/w"}, "s3://no-such-bucket-at-all/w on "),
            ({"name": None, "inference_model": "s3://{}/none"}, "s3://{}/none: "),
        ],
    )
    def test_missing_files(
        self, bucket: S3Uri, tmp_path: Path, change: dict[str, Any], uri: str
    ) -> None:
        filled = {key: text and text.format(bucket.bucket) for key, text in change.items()}
        wanted = manifest(None, tmp_path, DIGITS, **filled)
        uri = uri.format(bucket.bucket)
        with pytest.raises(DataError, match=uri) as caught, fetched(wanted):
            pass
        assert caught.value.exit_code == 4

    def test_nothing_below_the_prefix(self, bucket: S3Uri, tmp_path: Path) -> None:
        wanted = manifest(f"{bucket}none", tmp_path)
        with pytest.raises(DataError, match=r"/train, s3://.*/none/val on .*: "), fetched(wanted):
            pass

    def test_a_missing_manifest(self, bucket: S3Uri) -> None:
        with pytest.raises(DataError, match=r"s3://.*/m\.json on "):
            load(f"{bucket}m.json")

    def test_a_manifest_that_is_too_long(self, s3_server: S3Server, bucket: S3Uri) -> None:
        s3_server.store.put(bucket / "m.json", b" " * 1_100_000)
        with pytest.raises(ManifestError, match="1,000,000 bytes"):
            load(f"{bucket}m.json")

    @pytest.mark.parametrize("text", ["s3://B/k", "s3://", "http://x/y", "s3://ok-bucket/a/../b"])
    def test_addresses_that_are_none(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(ManifestError, match="/data/root: "):
            manifest(text, tmp_path)
