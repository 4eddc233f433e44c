"""Runs that race for one output, in random orders and with random pauses.

The real protocol of leases and indexes runs in threads against a store in memory. A scheduler lets
one thread send one request at a time and moves the store's clock. Threads are suspended for longer
than their leases. The test checks one property: if writing an index succeeded, every later index is
based on it.
"""

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from tiers import cases

from job.errors import ObjectChanged, ObjectMissing, OutputError
from job.storage.s3 import index, lease, owner
from job.storage.s3.index import INDEXES, Index, IndexEntry
from job.storage.s3.lease import HOLDER, RELEASED, acquire
from job.storage.s3.responses import S3Object
from job.uri import S3Uri

OUTPUT = S3Uri("bkt", "out")
LEASE_SECONDS = 6.0
COMMITS = 3
SEEDS = 400


class Scheduler:
    """Lets one thread run at a time, in an order that depends on a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311
        self.now = 0.0
        self.turn: int | None = None
        self.ready: dict[int, float] = {}
        self.left = 0
        self.changed = threading.Condition()

    def wait(self, seconds: float = 0.0) -> None:
        """Wait for this thread's turn, at least so long by the store's clock."""
        me = threading.get_ident()
        with self.changed:
            self.ready[me] = self.now + seconds
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.turn == me)
            self.turn = None

    def run(self, actions: Sequence[Callable[[], None]]) -> None:
        """Run actions to their ends."""
        self.left = len(actions)

        def work(action: Callable[[], None]) -> None:
            try:
                self.wait(self.random.uniform(0, 3 * LEASE_SECONDS))
                action()
            finally:
                with self.changed:
                    self.left -= 1
                    self.changed.notify_all()

        threads = [threading.Thread(target=work, args=(action,)) for action in actions]
        for thread in threads:
            thread.start()
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.turn is None and len(self.ready) == self.left)
                if not self.left:
                    break
                self._choose()
                self.changed.notify_all()
        for thread in threads:
            thread.join()

    def _choose(self) -> None:
        for thread in sorted(self.ready):
            if self.random.random() < 0.05:
                self.ready[thread] = self.now + self.random.uniform(0, 5 * LEASE_SECONDS)
        self.now = max(self.now + self.random.uniform(0, 0.3), min(self.ready.values()))
        able = sorted(thread for thread, at in self.ready.items() if at <= self.now)
        self.turn = self.random.choice(able)
        del self.ready[self.turn]


class MemoryStore:
    """A consistent store, whose clock has whole seconds."""

    server = "memory"

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.objects: dict[S3Uri, tuple[bytes, float]] = {}

    def put(self, uri: S3Uri, content: bytes) -> None:
        self.scheduler.wait()
        self.objects[uri] = content, self.scheduler.now

    def read(self, uri: S3Uri) -> bytes:
        self.scheduler.wait()
        if uri not in self.objects:
            raise ObjectMissing(f"{uri}: gone")
        return self.objects[uri][0]

    def delete(self, uris: Sequence[S3Uri]) -> None:
        for uri in uris:
            self.scheduler.wait()
            self.objects.pop(uri, None)

    def list(self, prefix: S3Uri) -> Sequence[S3Object]:
        self.scheduler.wait()
        return tuple(
            S3Object(uri, len(content), '"x"', _time(at))
            for uri, (content, at) in sorted(self.objects.items())
            if uri.key.startswith(prefix.below)
        )


def _time(seconds: float) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=int(seconds))


@dataclass
class Race:
    """Several runs on one output.

    Attributes:
        store: the store.
        confirmed: the files of each index that was written successfully, in order.
        refused: how many runs did not get the lease.
        overtaken: how many runs lost the lease.
    """

    store: MemoryStore
    confirmed: list[frozenset[str]]
    refused: int = 0
    overtaken: int = 0

    def run(self, name: str) -> None:
        """One run: it takes over and commits a few times, as long as it may."""
        store: Any = self.store
        try:
            held = acquire(
                store,
                OUTPUT,
                run=name,
                lease_seconds=LEASE_SECONDS,
                say=lambda text: None,
                pause=self.store.scheduler.wait,
            )
        except OutputError:
            self.refused += 1
            return

        def claim(base: Index, number: int) -> Index:
            return replace(base, epoch=held.epoch, number=number, runs=(*base.runs, name))

        try:
            _, mine = index.take_over(store, OUTPUT, claim)
            self.confirmed.append(frozenset(mine.files))
            for commit in range(COMMITS):
                self.store.scheduler.wait(LEASE_SECONDS / 4)
                held.verify()
                held.put(HOLDER)
                entry = IndexEntry(f"runs/{name}/{commit}/x", 1, "0" * 64)
                files = {**mine.files, f"{name}/{commit}": entry}
                mine = replace(mine, number=mine.number + 1, files=files)
                held.verify()
                older = index.write(store, OUTPUT, mine)
                self.confirmed.append(frozenset(mine.files))
                store.delete([OUTPUT / INDEXES / old for old in older])
            held.put(RELEASED)
        except (OutputError, ObjectChanged):
            self.overtaken += 1


@pytest.fixture(autouse=True)
def strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat each run as if it were on its own machine."""
    monkeypatch.setattr(lease, "known_gone", lambda owner: False)
    assert owner.known_gone is not lease.known_gone


def test_no_order_of_events_loses_what_a_run_was_told_to_be_kept(
    tell: Callable[[str], None],
) -> None:
    refused = overtaken = commits = 0
    for seed in range(cases(SEEDS)):
        scheduler = Scheduler(seed)
        race = Race(MemoryStore(scheduler), [])
        scheduler.run([partial(race.run, f"run-{number}") for number in range(3)])
        for before, after in zip(race.confirmed, race.confirmed[1:], strict=False):
            assert before <= after, f"seed {seed}: {sorted(before - after)} was lost"
        refused, overtaken = refused + race.refused, overtaken + race.overtaken
        commits += len(race.confirmed)
    tell(f"{cases(SEEDS)} races: {commits} commits, {refused} refused, {overtaken} overtaken")
    assert min(refused, overtaken) > cases(50)
