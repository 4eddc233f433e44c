"""The index of an output in S3: validation, and which index is the newest."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto_server import S3Server

from job.errors import DataError, NoRun
from job.storage.s3 import index
from job.storage.s3.index import INDEXES, Index, IndexEntry
from job.storage.s3.objects import ObjectStore
from job.uri import S3Uri

ENTRY = IndexEntry("runs/one/1/fp32/a", 3, "0" * 64)
SOME = Index(2, 5, ("one",), {"fp32/a": ENTRY, "report.json": ENTRY})

WHOLE = {"fp32/a": ENTRY, "report.json": ENTRY, ".report.json": ENTRY}


def document(**changes: Any) -> bytes:
    return json.dumps({**json.loads(SOME.as_bytes()), **changes}).encode()


def entry(**changes: Any) -> dict[str, Any]:
    return {"a": {"object": ENTRY.object, "bytes": 3, "sha256": ENTRY.sha256, **changes}}


REPORT = dict.fromkeys(("report.json", ".report.json"), entry()["a"])


def put(server: S3Server, output: S3Uri, name: str, content: bytes) -> None:
    server.store.put(output / INDEXES / name, content)


def test_there_and_back() -> None:
    assert Index.from_bytes(SOME.as_bytes()) == SOME
    assert (SOME.name, SOME.complete) == ("00000002-00000005.json", False)
    both = SOME.holding(WHOLE).holding({"fp32/a": ENTRY})
    assert Index.from_bytes(both.as_bytes()) == both


def test_a_result_stays_until_there_is_another() -> None:
    begun = SOME.holding({"fp32/a": ENTRY})
    assert (begun.complete, begun.result) == (False, {})
    first = begun.holding(WHOLE)
    assert (first.complete, first.result, first.before) == (True, WHOLE, {})
    later = first.holding({}).holding({"fp32/a": ENTRY})
    assert (later.complete, later.result) == (False, WHOLE)
    assert len(later.entries) == 1 + len(WHOLE)
    newer = {**WHOLE, "int8/a": ENTRY}
    assert later.holding(newer).result == newer
    assert later.holding(newer).before == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"[]", "version"),
        (document(version=2), "version"),
        (document(epoch=-1), "epoch"),
        (document(number=True), "number"),
        (document(runs=["../up"]), "runs"),
        (document(runs="one"), "runs"),
        (document(files=[]), "files"),
        (document(files={"../a": entry()["a"]}), "not a valid path"),
        (document(files={"/etc/passwd": entry()["a"]}), "not a valid path"),
        (document(files={"a//b": entry()["a"]}), "not a valid path"),
        (document(files={"a\\b": entry()["a"]}), "not a valid path"),
        (document(files={"a\nb": entry()["a"]}), "not a valid path"),
        (document(files={"": entry()["a"]}), "not a valid path"),
        (document(files={"a": None}), "object, bytes and sha256"),
        (document(before=["report.json"]), "before"),
        (document(before=entry()), "before"),
        (document(before={"../a": entry()["a"], **REPORT}), "not a valid path"),
        (document(before={**entry(object="runs/two/1/a"), **REPORT}), "not below"),
        (document(files=entry(object="runs/two/1/a")), "not below"),
        (document(files=entry(object="index/one/1")), "not below"),
        (document(files=entry(object="runs/one/../../x")), "not a valid path"),
        (document(files=entry(object=7)), "not below"),
        (document(files=entry(bytes=-1)), "size"),
        (document(files=entry(bytes=1.0)), "size"),
        (document(files=entry(sha256="0" * 63)), "SHA-256"),
        (document(files=entry(sha256=None)), "SHA-256"),
    ],
)
def test_nothing_in_it_is_trusted(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Index.from_bytes(content)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Index.from_bytes(json.dumps(value).encode())


def test_the_highest_epoch_counts(s3_server: S3Server, bucket: S3Uri) -> None:
    output = bucket / "out"
    assert index.newest(s3_server.store, output) is None
    with pytest.raises(NoRun, match=str(output)):
        index.read(s3_server.store, output)
    for epoch, number in ((2, 0), (1, 99), (2, 1), (1, 100)):
        written = Index(epoch, number)
        put(s3_server, output, written.name, written.as_bytes())
    put(s3_server, output, "99999999-zzz.json", b"of somebody else")
    found = index.newest(s3_server.store, output)
    assert found is not None
    assert (found.epoch, found.number) == (2, 1)


def test_one_that_goes_while_it_is_read(s3_server: S3Server, bucket: S3Uri) -> None:
    output = bucket / "out"
    put(s3_server, output, Index(1, 1).name, Index(1, 1).as_bytes())

    class Overtaken(ObjectStore):
        def read(self, uri: S3Uri, **given: Any) -> bytes:
            if uri.name == Index(1, 1).name:
                put(s3_server, output, Index(1, 2).name, Index(1, 2).as_bytes())
                self.delete([uri])
            return super().read(uri, **given)

    found = index.newest(Overtaken(s3_server.client), output)
    assert found is not None
    assert found.number == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{}", "version"), (Index(1, 1).as_bytes(), "00000001-00000001")],
)
def test_a_damaged_one(s3_server: S3Server, bucket: S3Uri, content: bytes, message: str) -> None:
    put(s3_server, bucket, "00000007-00000001.json", content)
    with pytest.raises(DataError, match=rf"00000007-00000001\.json .*{message}"):
        index.newest(s3_server.store, bucket)


def test_removed_while_what_it_named_is_there(s3_server: S3Server, bucket: S3Uri) -> None:
    s3_server.store.put(bucket / "runs/r1/1/report.json", b"{}")
    with pytest.raises(DataError, match=str(bucket)):
        index.read(s3_server.store, bucket)


def test_a_file_that_is_a_folder_too_is_refused() -> None:
    entry = IndexEntry("runs/r1/1/x", 1, "0" * 64)
    both = Index(1, 1, runs=("r1",), files={"int8": entry, "int8/model": entry})
    with pytest.raises(ValueError, match="'int8'"):
        Index.from_bytes(both.as_bytes())
