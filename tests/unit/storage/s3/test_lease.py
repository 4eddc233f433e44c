"""The lease of an output in S3."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from moto_server import S3Server

from job.errors import OutputError
from job.storage.s3 import owner
from job.storage.s3.index import INDEXES, Index
from job.storage.s3.lease import (
    HOLDER,
    LEASES,
    Lease,
    acquire,
    claims,
    new_run,
    renewed,
)
from job.storage.s3.objects import ObjectStore
from job.storage.s3.owner import known_gone, ourselves
from job.uri import S3Uri, on_server


def get(server: S3Server, output: S3Uri, seconds: float = 60.0, **given: Any) -> Lease:
    heard: list[str] = given.pop("heard", [])
    store = given.pop("store", server.store)
    return acquire(store, output, run=new_run(), lease_seconds=seconds, say=heard.append, **given)


def elsewhere(server: S3Server, output: S3Uri, epoch: int = 1, seconds: float = 1.0) -> S3Uri:
    """Put the claim of a holder on another machine, whose process cannot be checked."""
    uri = output / LEASES / f"{epoch:08d}-other.json"
    told = {"pid": 7, "host": "node-3", "started": "2026-01-02T03:04:05+00:00"}
    told |= {"state": HOLDER, "lease_seconds": seconds}
    server.store.put(uri, json.dumps(told).encode())
    return uri


class TestOneAtATime:
    def test_the_other_is_told_who_holds_it(self, s3_server: S3Server, bucket: S3Uri) -> None:
        lease = get(s3_server, bucket, 4.0)
        heard: list[str] = []
        with renewed(lease), pytest.raises(OutputError) as raised:
            get(s3_server, bucket, heard=heard)
        us = ourselves()
        assert f"process {us['pid']}" in str(raised.value)
        assert f"on {us['host']}, started {us['started']}" in str(raised.value)
        place = on_server(bucket, s3_server.url)
        assert place in str(raised.value)
        assert len(heard) == 1
        assert place in heard[0]
        assert f"process {us['pid']}" in heard[0]

    def test_released_is_free_at_once(self, s3_server: S3Server, bucket: S3Uri) -> None:
        for epoch in (1, 2, 3):
            lease = get(s3_server, bucket)
            assert lease.epoch == epoch
            with renewed(lease):
                pass
        assert len(claims(s3_server.store, bucket)) == 1

    @pytest.mark.parametrize("round_", range(3))
    def test_of_many_at_once_exactly_one(
        self, s3_server: S3Server, bucket: S3Uri, round_: int
    ) -> None:
        start, won, lost = threading.Barrier(5), [], []

        def contend(number: int) -> None:
            start.wait()
            try:
                lease = get(s3_server, bucket, 4.0)
            except OutputError as error:
                lost.append(error)
                return
            won.append(lease)
            with renewed(lease):
                deadline = time.monotonic() + 60
                while len(lost) < 4 and time.monotonic() < deadline:
                    time.sleep(0.05)

        with ThreadPoolExecutor(5) as pool:
            list(pool.map(contend, range(5)))
        assert (len(won), len(lost)) == (1, 4)


class TestTakingOver:
    def test_a_dead_run_elsewhere_after_its_lease_by_exactly_one(
        self, s3_server: S3Server, bucket: S3Uri
    ) -> None:
        elsewhere(s3_server, bucket, epoch=6)
        won, lost, began = [], [], time.monotonic()

        def contend(number: int) -> None:
            try:
                lease = get(s3_server, bucket, 4.0)
            except OutputError as error:
                lost.append(error)
                return
            won.append(time.monotonic() - began)
            assert lease.epoch > 6
            with renewed(lease):
                deadline = time.monotonic() + 60
                while len(lost) < 2 and time.monotonic() < deadline:
                    time.sleep(0.05)

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(contend, range(3)))
        assert (len(won), len(lost)) == (1, 2)
        assert won[0] > 1.0

    def test_a_process_of_this_machine_that_is_gone_is_not_waited_for(
        self, s3_server: S3Server, bucket: S3Uri
    ) -> None:
        code = (
            "import json; from job.storage.s3.owner import ourselves as us; print(json.dumps(us()))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        told = {**json.loads(done.stdout), "state": HOLDER, "lease_seconds": 3600}
        s3_server.store.put(bucket / LEASES / "00000001-dead.json", json.dumps(told).encode())
        heard: list[str] = []
        assert get(s3_server, bucket, heard=heard).epoch == 2
        assert heard == []

    def test_a_claim_that_cannot_be_read_is_that_of_a_living_run(
        self, s3_server: S3Server, bucket: S3Uri
    ) -> None:
        for content in (b"", b"[]", b'{"lease_seconds": "long"}'):
            s3_server.store.put(bucket / LEASES / "00000001-x.json", content)
            (claim,) = claims(s3_server.store, bucket)
            assert not claim.ended
            assert claim.owner["lease_seconds"] > 0

    def test_a_paused_run_notices(self, s3_server: S3Server, bucket: S3Uri) -> None:
        paused = get(s3_server, bucket, 1.0)
        claim = elsewhere(s3_server, bucket, epoch=paused.epoch + 1)
        with pytest.raises(OutputError, match=r"process 7 on node-3") as raised:
            paused.verify()
        assert on_server(bucket, s3_server.url) in str(raised.value)
        s3_server.store.delete([claim])
        with pytest.raises(OutputError, match="process 7 on node-3"):
            paused.verify()  # once lost, lost for good

    def test_also_when_the_other_has_ended(self, s3_server: S3Server, bucket: S3Uri) -> None:
        paused = get(s3_server, bucket)
        later = Index(paused.epoch + 1, 0)
        s3_server.store.put(bucket / INDEXES / later.name, later.as_bytes())
        with pytest.raises(OutputError, match="a run that has ended"):
            paused.verify()

    def test_two_never_hold_one_epoch(self, s3_server: S3Server, bucket: S3Uri) -> None:
        """A run that had the same idea, and whose claim is dead by now, may still wake up."""
        woken: list[S3Uri] = []

        class Late(ObjectStore):
            def put(self, uri: S3Uri, content: bytes) -> None:
                if not woken:
                    woken.append(elsewhere(s3_server, bucket, epoch=1, seconds=-60.0))
                super().put(uri, content)

        lease = get(s3_server, bucket, store=Late(s3_server.client), pause=lambda s: None)
        assert lease.epoch == 2

    def test_one_paused_while_it_claims_gives_up(self, s3_server: S3Server, bucket: S3Uri) -> None:
        """Between its claim and the look at others', another takes over and ends."""

        class Pausing(ObjectStore):
            def put(self, uri: S3Uri, content: bytes) -> None:
                super().put(uri, content)
                later = Index(5, 3)
                s3_server.store.put(bucket / INDEXES / later.name, later.as_bytes())

        with pytest.raises(OutputError, match="a run that has ended"):
            get(s3_server, bucket, store=Pausing(s3_server.client))
        assert claims(s3_server.store, bucket) == []
        assert get(s3_server, bucket).epoch == 6


class TestRenewing:
    def test_is_seen_by_others_and_ends(self, s3_server: S3Server, bucket: S3Uri) -> None:
        lease = get(s3_server, bucket, 4.0)
        (before,) = claims(s3_server.store, bucket)
        with renewed(lease):
            time.sleep(2.5)
            (after,) = claims(s3_server.store, bucket)
        assert after.object.modified > before.object.modified
        assert after.owner["renewals"] > before.owner["renewals"]
        assert not after.ended
        (released,) = claims(s3_server.store, bucket)
        assert released.ended
        with pytest.raises(OutputError, match=on_server(bucket, s3_server.url)):
            lease.verify()


class TestOwner:
    def test_we_are_here(self) -> None:
        assert not known_gone(ourselves())

    def test_nothing_is_known_of_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        us = ourselves()
        for told in (
            {},
            {**us, "process": None},
            {**us, "process": {"kernel": "another", "start": "1"}},
            {**us, "pid": "1"},
        ):
            assert not known_gone(told)

    def test_a_number_that_was_given_again(self) -> None:
        us = ourselves()
        assert known_gone({**us, "process": {**us["process"], "start": "1"}})

    def test_one_that_waits_to_be_reaped_is_gone(self) -> None:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        us, start = ourselves(), owner._start(child.pid)
        told = {**us, "pid": child.pid, "process": {**us["process"], "start": start}}
        assert not known_gone(told)
        child.kill()
        deadline = time.monotonic() + 60
        while not known_gone(told) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert known_gone(told)
        child.communicate()
