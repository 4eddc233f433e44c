"""Transfers that go wrong: each is healed or refused, none is believed wrongly.

``make test-all`` makes 500, ``make test`` a tenth of them.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from faulty_proxy import KINDS, Schedule, faulty
from moto_server import S3Server
from tiers import cases

from job.errors import DataError, ObjectChanged, StorageError, TransferFailed
from job.storage.s3 import upload as s3_upload
from job.storage.s3.access import Access, input_errors
from job.storage.s3.client import S3Settings, make_client, make_session
from job.storage.s3.fast_get import FastGet
from job.storage.s3.objects import ObjectStore
from job.storage.s3.prefetch import Piece, PieceReader
from job.storage.s3.retry import Retry
from job.uri import S3Uri

TRANSFERS = 500
SEED = 4
# A few transfers meet nothing but faults and must be refused; the others may heal.
FAILS_ALWAYS = 0.03
ATTEMPTS = 7


@dataclass(frozen=True)
class Bench:
    """The stores and servers of the transfers.

    Attributes:
        store: an object store behind the proxy.
        quick: the same, with the fast GET of data sets.
        truth: an object store on the server itself.
        schedule: the schedule of the faults.
        bucket: the bucket of the test.
        folder: a folder for files.
        url: the URL of the proxy.
    """

    store: ObjectStore
    quick: ObjectStore
    truth: ObjectStore
    schedule: Schedule
    bucket: S3Uri
    folder: Path
    url: str


@pytest.fixture
def bench(s3_server: S3Server, bucket: S3Uri, tmp_path: Path) -> Iterator[Bench]:
    schedule = Schedule(SEED)
    with faulty(s3_server.url, schedule) as proxy:
        client = make_client(S3Settings(endpoint_url=proxy.url), read_seconds=0.25)
        retry = Retry(attempts=ATTEMPTS, sleep=lambda seconds: None)
        fast = FastGet(client, make_session())
        store, quick = (ObjectStore(client, retry, get) for get in (None, fast))
        yield Bench(store, quick, s3_server.store, schedule, bucket, tmp_path, proxy.url)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def given(bench: Bench, dice: random.Random, size: int) -> tuple[S3Uri, bytes]:
    """Put an object there, past the proxy; half of them without the digest that the job keeps."""
    content, uri = dice.randbytes(size), bench.bucket / f"given/{dice.getrandbits(64):x}"
    if dice.random() < 0.5:
        bench.truth.put(uri, content)
    else:
        bench.truth.client.put_object(Bucket=uri.bucket, Key=uri.key, Body=content)
    return uri, content


Check = Callable[[bool], None]


def read_whole(bench: Bench, dice: random.Random) -> tuple[Callable[[], None], Check]:
    uri, content = given(bench, dice, dice.choice([0, 1, 300, 70_000]))

    store = dice.choice([bench.store, bench.quick])

    def act() -> None:
        assert store.read(uri) == content

    return act, lambda done: None


def read_piece(bench: Bench, dice: random.Random) -> tuple[Callable[[], None], Check]:
    uri, content = given(bench, dice, 50_000)
    start, length = dice.randrange(40_000), dice.randrange(1, 10_000)
    wanted = content[start : start + length]
    access = Access(S3Settings(endpoint_url=bench.url), bench.folder / "cache", 10_000_000)
    piece = Piece(bench.truth.head(uri), start, length, sha(wanted))

    def act() -> None:
        reader = PieceReader(access, bench.quick)
        assert reader.fetch(piece) == wanted

    def check(done: bool) -> None:
        kept = access.cache().get(f"{access.name(piece.of)} {start} {length}")
        assert kept == (wanted if done else None)

    return act, check


def download(bench: Bench, dice: random.Random) -> tuple[Callable[[], None], Check]:
    uri, content = given(bench, dice, dice.choice([0, 5_000, 2_500_000]))
    path = bench.folder / "download"
    path.unlink(missing_ok=True)

    def act() -> None:
        bench.store.download(uri, path)

    def check(done: bool) -> None:
        assert path.exists() == done
        if done:
            assert path.read_bytes() == content
            assert not list(path.parent.glob("*.part"))

    return act, check


def landed(bench: Bench, uri: S3Uri, old: bytes, new: bytes) -> Check:
    """What is there is the old or the new content, and the new one if that was promised."""

    def check(done: bool) -> None:
        found = bench.truth.client.get_object(Bucket=uri.bucket, Key=uri.key)["Body"].read()
        if done:
            assert found == new
        elif found not in (old, new):
            # Sent changed, noticed, refused: its digest, which is kept with it, tells everybody.
            with pytest.raises(ObjectChanged):
                bench.truth.read(uri)

    return check


def put(bench: Bench, dice: random.Random) -> tuple[Callable[[], None], Check]:
    uri, old = given(bench, dice, 100)
    new = dice.randbytes(dice.choice([0, 1, 300, 70_000]))
    return lambda: bench.store.put(uri, new), landed(bench, uri, old, new)


def upload(bench: Bench, dice: random.Random) -> tuple[Callable[[], None], Check]:
    uri, old = given(bench, dice, 100)
    # The server takes no smaller parts than of 5 MiB.
    long = dice.random() < 0.15
    new = dice.randbytes(1000) * (5_500 if long else 1)
    path = bench.folder / "upload"
    path.write_bytes(new)

    def act() -> None:
        bench.store.upload(uri, path, sha256=sha(new), length=len(new))

    return act, landed(bench, uri, old, new)


WAYS = (read_whole, read_piece, download, put, upload)


def listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def test_faulty_transfers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tell: Callable[[str], None]
) -> None:
    monkeypatch.setattr(s3_upload, "PART_BYTES", 5 << 20)
    dice = random.Random(SEED)  # noqa: S311
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    count = cases(TRANSFERS)
    for number in range(count):
        way = WAYS[number % len(WAYS)]
        bench.schedule.begin(share=0)
        act, check = way(bench, dice)
        fails_always = dice.random() < FAILS_ALWAYS
        kind = KINDS[number % len(KINDS)]
        bench.schedule.begin(share=1.0 if fails_always else 0.25, first=kind)
        try:
            act()
        except (TransferFailed, ObjectChanged) as error:
            assert str(error).startswith("s3://")
            assert error.hint
            outcomes[f"{way.__name__} refused"] += 1
            reasons[type(error).__name__] += 1
            done = False
        else:
            outcomes[f"{way.__name__} healed"] += 1
            done = True
        bench.schedule.begin(share=0)
        check(done)
    faults = bench.schedule.injected
    tell(
        f"faulty transfers: {count:,}, faults: {sum(faults.values()):,}\n"
        f"  {listed(faults)}\n  {listed(outcomes)}\n  refused as {listed(reasons)}"
    )
    assert sum(outcomes.values()) == count
    assert min(faults[kind] for kind in KINDS) >= cases(10)
    healed = sum(count for name, count in outcomes.items() if name.endswith("healed"))
    assert 0.9 * count < healed < count


def refusing(code: str, status: int) -> Callable[[S3Uri], StorageError]:
    from job.storage.s3.errors import _of_answer

    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return lambda uri: _of_answer(uri, str(uri), answer, "GetObject")


@pytest.mark.parametrize(
    ("code", "status", "says"),
    [
        ("RequestTimeTooSkewed", 403, ".*clock"),
        ("AccessDenied", 403, r".*\(GetObject: 403 AccessDenied\)"),
        ("NoSuchBucket", 404, ".*bucket bucket"),
        ("NoSuchKey", 404, ".*object"),
        ("PreconditionFailed", 412, ".*changed"),
    ],
)
def test_an_input_that_is_refused_ends_the_job_with_4(code: str, status: int, says: str) -> None:
    uri = S3Uri("bucket", "key")
    with pytest.raises(DataError, match=f"s3://bucket/key: {says}") as caught, input_errors():
        raise refusing(code, status)(uri)
    assert caught.value.exit_code == 4
    assert caught.value.hint
