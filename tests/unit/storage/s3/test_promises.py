"""Each promise of the documentation about S3, under each habit of a server.

Under a habit, a promise holds, or the job ends with an error that names the bucket. Wrong data is
never returned, and nothing is lost in silence. ``HABITS`` states which promises cannot hold.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from unusual_s3 import BUCKET, Unusual

from job.data.archive_reading import Limits
from job.data.archives import unpack_object
from job.data.s3.archive import RemoteArchive, members_of
from job.data.s3.list_objects import list_below
from job.errors import JobError, ObjectChanged, OutputError
from job.manifest.read import read_object
from job.process.signals import StopSignals
from job.storage.s3.access import Access
from job.storage.s3.client import S3Settings
from job.storage.s3.fetch_run import read_records
from job.storage.s3.index import INDEXES, Index
from job.storage.s3.lease import HOLDER, LEASES, Lease, acquire
from job.storage.s3.objects import ObjectStore
from job.storage.s3.output import S3Output
from job.storage.s3.prefetch import Piece, PieceReader
from job.storage.s3.responses import S3Object
from job.storage.s3.retry import Retry

CONTENT = b"content" * 100
OUTPUT = BUCKET / "run"


@dataclass
class Setting:
    """A server, a store whose pauses take no time, and a function that switches the habit on."""

    server: Unusual
    store: ObjectStore
    folder: Path
    begin: Callable[[], None]
    said: list[str] = field(default_factory=list)

    def output(self, name: str) -> S3Output:
        return S3Output(
            OUTPUT, self.store, self.folder / name, lease_seconds=60.0, say=self.said.append
        )

    def finish(self, name: str, kept: dict[str, Any]) -> None:
        """Run a job on the output that keeps a manifest."""
        output = self.output(name)
        with StopSignals() as stop, output.locked():
            output.keep_manifest(kept)
            output.sync(stop, 25)

    def claim(self, renewals: int) -> None:
        """Store the claim of a run on another machine; each renewal has another ETag."""
        owner = {"pid": 7, "host": "node-3", "started": "?", "state": HOLDER, "lease_seconds": 4.0}
        content = json.dumps({**owner, "renewals": renewals}).encode()
        self.server.hold(f"run/{LEASES}/00000001-other.json", content)


def an_object_is_read_as_it_is(at: Setting) -> None:
    uri = at.server.hold("a", CONTENT)
    at.begin()
    assert at.store.read(uri) == CONTENT


def a_download_is_verified(at: Setting) -> None:
    uri = at.server.hold("a", CONTENT)
    at.begin()
    at.store.download(uri, at.folder / "a")
    assert (at.folder / "a").read_bytes() == CONTENT


def a_replaced_object_is_rejected(at: Setting) -> None:
    uri = at.server.hold("a", CONTENT)
    entry = at.store.head(uri)
    at.server.hold("a", b"another" * 100)
    at.begin()
    with pytest.raises(ObjectChanged):
        at.store.read(uri, etag=entry.etag)


def an_upload_is_verified(at: Setting) -> None:
    path = at.folder / "a"
    path.write_bytes(CONTENT)
    at.begin()
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    at.store.upload(BUCKET / "a", path, sha256=sha256, length=len(CONTENT))
    assert at.server.objects["a"].content == CONTENT


def a_listing_is_complete(at: Setting) -> None:
    names = [f"set/c{number % 2}/{number}.jpg" for number in range(8)]
    for name in names:
        at.server.hold(name, b"x")
    at.begin()
    found: list[S3Object] = []
    list_below([BUCKET / "set"], at.store, found.extend)
    assert sorted(each.uri.key for each in found) == sorted(names)


def an_image_in_the_cache_is_not_read_again(at: Setting) -> None:
    uri = at.server.hold("a", CONTENT)
    access = Access(S3Settings(endpoint_url=at.server.url), at.folder / "cache", 10_000_000)
    reader = PieceReader(access, at.store)
    at.begin()
    entry = at.store.head(uri)
    piece = Piece(entry, None, entry.bytes, None)
    assert reader.fetch(piece) == CONTENT
    at.server.requests.clear()
    assert reader.fetch(piece) == CONTENT
    assert at.server.requests.total() == 0


def packed(kind: str) -> bytes:
    """Return a tar file with two members."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode=f"w:{kind}") as file:
        for name in ("a.jpg", "b.jpg"):
            member = tarfile.TarInfo(name)
            member.size = len(CONTENT)
            file.addfile(member, io.BytesIO(CONTENT))
    return written.getvalue()


def a_tar_file_is_read_by_ranges(at: Setting) -> None:
    uri = at.server.hold("set.tar", packed(""))
    at.begin()
    entry = at.store.head(uri)
    members = members_of(RemoteArchive(entry, at.store), Limits())
    assert [each.name for each in members] == ["a.jpg", "b.jpg"]
    access = Access(S3Settings(endpoint_url=at.server.url), at.folder / "cache", 10_000_000)
    member = members[1]
    piece = Piece(entry, member.start, member.bytes, member.sha256)
    assert PieceReader(access, at.store).fetch(piece) == CONTENT


def an_archive_is_unpacked(at: Setting) -> None:
    uri = at.server.hold("set.tar.gz", packed("gz"))
    at.begin()
    archive = RemoteArchive(at.store.head(uri), at.store)
    folder = unpack_object(archive, {"etag": archive.entry.etag}, at.folder / "unpacked")
    assert (folder / "b.jpg").read_bytes() == CONTENT


def a_manifest_is_read(at: Setting) -> None:
    text = json.dumps({"version": 1, "name": "kept"})
    uri = at.server.hold("m.json", text.encode())
    at.begin()
    assert read_object(uri, at.store) == text


def a_reader_finds_a_published_result(at: Setting) -> None:
    at.begin()
    at.finish("a", {"name": "kept"})
    records = read_records(at.store, OUTPUT, ["manifest.json"])
    assert records == {"manifest.json": {"name": "kept"}}


def another_machine_resumes(at: Setting) -> None:
    at.finish("a", {"name": "kept"})
    at.begin()
    second = at.output("b")
    with second.locked():
        assert json.loads((at.folder / "b" / "manifest.json").read_bytes()) == {"name": "kept"}


def a_result_stays_until_the_next_one_is_published(at: Setting) -> None:
    at.finish("a", {"name": "first"})
    at.begin()
    second = at.output("b")
    with second.locked():
        second.keep_manifest({"name": "second"})
        records = read_records(at.store, OUTPUT, ["manifest.json"])
    assert records == {"manifest.json": {"name": "first"}}


def a_second_run_is_rejected(at: Setting) -> None:
    renewals = count()
    at.claim(next(renewals))
    at.begin()
    with pytest.raises(OutputError, match="node-3"):
        acquire(
            at.store,
            OUTPUT,
            run="ours",
            lease_seconds=60.0,
            say=at.said.append,
            pause=lambda seconds: at.claim(next(renewals)),
        )


def the_lock_of_a_crashed_run_expires(at: Setting) -> None:
    at.claim(0)
    at.begin()
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        assert sum(pauses) < 8

    acquire(at.store, OUTPUT, run="a", lease_seconds=60.0, say=print, pause=pause)
    assert sum(pauses) > 4


def a_paused_run_can_no_longer_write(at: Setting) -> None:
    lease = Lease(at.store, OUTPUT, "ours", 1, 60.0)
    later = Index(2, 0)
    at.server.hold(f"run/{INDEXES}/{later.name}", later.as_bytes())
    at.begin()
    with pytest.raises(OutputError, match="another run"):
        lease.verify()


PROMISES = (
    an_object_is_read_as_it_is,
    a_download_is_verified,
    a_replaced_object_is_rejected,
    an_upload_is_verified,
    a_listing_is_complete,
    an_image_in_the_cache_is_not_read_again,
    a_tar_file_is_read_by_ranges,
    an_archive_is_unpacked,
    a_manifest_is_read,
    a_reader_finds_a_published_result,
    another_machine_resumes,
    a_result_stays_until_the_next_one_is_published,
    a_second_run_is_rejected,
    the_lock_of_a_crashed_run_expires,
    a_paused_run_can_no_longer_write,
)
READING = {
    an_object_is_read_as_it_is,
    a_download_is_verified,
    an_image_in_the_cache_is_not_read_again,
    a_tar_file_is_read_by_ranges,
    an_archive_is_unpacked,
    a_manifest_is_read,
    a_reader_finds_a_published_result,
    another_machine_resumes,
    a_result_stays_until_the_next_one_is_published,
    a_second_run_is_rejected,
    the_lock_of_a_crashed_run_expires,
}
# For each habit: the switches, and the promises that end with an error.
HABITS: dict[str, tuple[dict[str, Any], set[Callable[[Setting], None]]]] = {
    "none": ({}, set()),
    "ignores_if_match": ({"ignores_if_match": True}, set()),
    "first_version_listings": (
        {"first_version_listings": True, "page_keys": 2},
        {a_listing_is_complete},
    ),
    "listings_without_token": (
        {"listings_without_token": True, "page_keys": 2},
        {a_listing_is_complete},
    ),
    "without_etag": (
        {"without_etag": True},
        {*PROMISES} - {a_replaced_object_is_rejected, a_paused_run_can_no_longer_write},
    ),
    "without_message": ({"without_message": True}, set()),
    "throttles": ({"throttles": 5}, set()),
    "away_for_90_s": ({"away_until": 90.0}, set()),
    "flips_a_byte": ({"flips_a_byte": True}, READING),
    "encrypts": ({"encrypts": True}, set()),
    "weak_etags": ({"etags": 'W/"{}"'}, set()),
    "etags_without_quotes": ({"etags": "{}"}, set()),
    "chunked": ({"chunked": True}, set()),
    "ignores_range": ({"ignores_range": True}, {a_tar_file_is_read_by_ranges}),
    "needs_md5": ({"needs_md5": True}, set()),
    "times_a_day_ahead": ({"times_ahead": 86_400.0}, set()),
    "times_a_day_behind": ({"times_ahead": -86_400.0}, set()),
    "html": ({"html": True}, {*PROMISES}),
    "redirects": ({"redirects": True}, {*PROMISES}),
    "plain_http_on_tls": ({"plain_http_on_tls": True}, {*PROMISES}),
}


@pytest.mark.parametrize("habit", HABITS)
def test_every_promise(
    habit: str, server: Unusual, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    switches, rejected = HABITS[habit]
    now, failed = [0.0], set()

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def begin() -> None:
        for name, value in switches.items():
            setattr(server.habits, name, value)

    store = server.store(Retry(sleep=sleep, clock=lambda: now[0]))
    for promise in PROMISES:
        server.habits.reset()
        server.objects.clear()
        # Pauses advance this clock, so an outage of 90 s takes no time.
        now[0], server.habits.clock = 0.0, lambda: now[0]
        folder = tmp_path / promise.__name__
        folder.mkdir()
        try:
            promise(Setting(server, store, folder, begin))
        except JobError as error:
            assert BUCKET.bucket in str(error)
            assert error.hint
            failed.add(promise)
    held = len(PROMISES) - len(failed)
    tell(f"{held} of {len(PROMISES)} promises hold, {len(failed)} end with an error")
    assert {each.__name__ for each in failed} == {each.__name__ for each in rejected}
