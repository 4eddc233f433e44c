"""The lease of an output in S3: one run at a time writes, on any store with consistent listings.

To acquire the lease, a run writes a claim (a small object) under an unused name, then lists all
claims. The run has the lease if all other claims are expired. If two runs write their claims at the
same time, each lists the other claim. Both then delete their claims and retry after a random pause.
The holder renews its claim. A claim is expired if its process has ended on this machine, or if this
run has observed it for its ``lease_seconds`` and it was not renewed. No times of different clocks
are compared: the header Date, the times of objects and the clocks of machines can all differ.

A claim's name starts with its epoch, which is higher than all epochs before. If a run is suspended
for longer than its lease, another run takes over with a higher epoch. An index that the suspended
run writes later is not the newest (see :mod:`job.storage.s3.index`).
"""

import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from job.errors import ObjectMissing, OutputError, StorageError
from job.events import Say
from job.storage.parallel import Background
from job.storage.s3 import index
from job.storage.s3.objects import ObjectStore
from job.storage.s3.owner import known_gone, ourselves
from job.storage.s3.responses import S3Object
from job.uri import S3Uri, on_server

LEASES = "lease"
CANDIDATE, HOLDER, RELEASED = "candidate", "holder", "released"
_RENEWALS = 4
_WITHDRAWN_SECONDS = 1.0
_POLL_SECONDS = 1.0
# A run that must stop reserves this time for releasing its lease.
RELEASE_SECONDS = 2.0
_UNKNOWN: Mapping[str, Any] = {"state": HOLDER, "lease_seconds": 3600.0, "host": "?", "pid": "?"}


@dataclass(frozen=True)
class Claim:
    """A claim of any run, as read from the store.

    Attributes:
        object: the claim's object.
        owner: the content: state, lease_seconds, number of renewals, and the process of the run.
    """

    object: S3Object
    owner: Mapping[str, Any]

    @property
    def epoch(self) -> int:
        """The epoch in its name."""
        return index.epoch_of(self.object.uri.name)

    @property
    def ended(self) -> bool:
        """Whether the run has released the lease, or its process has certainly ended."""
        return self.owner["state"] == RELEASED or known_gone(self.owner)

    def __str__(self) -> str:
        started = self.owner.get("started", "at an unknown time")
        return f"process {self.owner['pid']} on {self.owner['host']}, started {started}"


class _Watch:
    """Observes the claims of other runs, and counts for how long each was not renewed.

    Only the pauses between two listings count. While the store cannot be reached, no run can renew
    its claim, so this time must not count.
    """

    def __init__(self) -> None:
        self._seen: dict[S3Uri, Claim] = {}
        self._seconds: dict[S3Uri, float] = {}

    def observe(self, claim: Claim, paused: float) -> Claim | None:
        """Observe a claim after a pause, and return the claim as it was before the pause."""
        before = self._seen.get(claim.object.uri)
        same = before == claim
        self._seconds[claim.object.uri] = self._seconds[claim.object.uri] + paused if same else 0.0
        self._seen[claim.object.uri] = claim
        return before

    def alive(self, claim: Claim) -> bool:
        """Return False if a claim is expired, so that this run may take over."""
        if claim.ended:
            return False
        if self._seen.get(claim.object.uri) != claim:
            return True
        return bool(self._seconds[claim.object.uri] <= claim.owner["lease_seconds"])


@dataclass
class Lease:
    """The right to write to an output.

    Attributes:
        store: access to S3.
        output: the output.
        run: the name of this run.
        epoch: the epoch of this lease, higher than all before.
        lease_seconds: how long the lease is valid without renewal.
        lost: a description of the run that took over; empty if none did.
        ended: True once this run has released the lease.
        renewals: how many times the claim was written, so that each renewal has another content.
    """

    store: ObjectStore
    output: S3Uri
    run: str
    epoch: int
    lease_seconds: float
    lost: str = ""
    ended: bool = False
    renewals: int = 0

    @property
    def place(self) -> str:
        """The output and its server, for messages."""
        return on_server(self.output, self.store.server)

    @property
    def claim(self) -> S3Uri:
        """The object of this run's claim."""
        return _claim(self.output, self.epoch, self.run)

    def put(self, state: str) -> None:
        """Write or renew the claim."""
        self.renewals += 1
        owner = {
            **ourselves(),
            "state": state,
            "lease_seconds": self.lease_seconds,
            "renewals": self.renewals,
        }
        self.store.put(self.claim, json.dumps(owner).encode())

    def verify(self) -> None:
        """Check that no other run has taken over.

        Raises:
            OutputError: another run has taken over, or this run has released the lease.
        """
        if self.ended:
            raise OutputError(f"{self.place}: this run has already released its lock")
        if not self.lost:
            above = [
                claim
                for claim in claims(self.store, self.output, above=self.epoch)
                if claim.owner["state"] != CANDIDATE
            ]
            written = [
                name
                for name in index.names(self.store, self.output)
                if index.epoch_of(name) > self.epoch
            ]
            if above or written:
                self.lost = str(above[-1]) if above else "a run that has ended"
        if self.lost:
            raise OutputError(
                f"{self.place}: this run renewed its lock too late, and another run has acquired "
                f"the lock: {self.lost}",
                "No result is lost. Run the same command again after the other run has ended.",
            )


def acquire(
    store: ObjectStore,
    output: S3Uri,
    *,
    run: str,
    lease_seconds: float,
    say: Say,
    pause: Callable[[float], None] = time.sleep,
) -> Lease:
    """Acquire the lease of an output. Wait until the lease of a run that has ended expires.

    Args:
        store: access to S3.
        output: the output.
        run: the name of this run.
        lease_seconds: how long the lease is valid without renewal.
        say: callback for status messages while waiting.
        pause: sleeps for a number of seconds.

    Raises:
        OutputError: another run holds the lease and renews it.
    """
    watch = _Watch()
    while True:
        _wait_for_others(store, output, watch, say, pause)
        seen = [claim.epoch for claim in claims(store, output)]
        seen += [index.epoch_of(name) for name in index.names(store, output)]
        lease = Lease(store, output, run, 1 + max(seen, default=0), lease_seconds)
        try:
            lease.put(CANDIDATE)
            listed = claims(store, output)
            others = [claim for claim in listed if claim.object.uri != lease.claim]
            unseen = len(others) == len(listed)
            if not unseen and not any(watch.alive(c) or c.epoch >= lease.epoch for c in others):
                lease.put(HOLDER)
                # If this process was suspended meanwhile, another run may have got the lease.
                lease.verify()
                store.delete([other.object.uri for other in others])
                return lease
        except BaseException:
            # The first error has the reason. If the claim is not removed, it expires.
            with suppress(StorageError):
                store.delete([lease.claim])
            raise
        store.delete([lease.claim])
        pause(random.uniform(0, _WITHDRAWN_SECONDS))  # noqa: S311


@contextmanager
def renewed(lease: Lease) -> Iterator[None]:
    """Renew a lease in the background, and release it at the end."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(lease.lease_seconds / _RENEWALS):
            try:
                lease.verify()
                lease.put(HOLDER)
            except OutputError:
                return  # the next verify() raises the error again
            except StorageError:
                continue  # S3 may be reachable again later; every write verifies the lease

    thread = threading.Thread(target=work, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        lease.ended = True
        ended.set()
        if not lease.lost:
            # If S3 cannot be reached, the lease expires by itself.
            with suppress(StorageError):
                Background(partial(_release, thread, lease)).done_within(RELEASE_SECONDS)


def _release(thread: threading.Thread, lease: Lease) -> None:
    thread.join()
    lease.put(RELEASED)


def claims(store: ObjectStore, output: S3Uri, above: int = 0) -> list[Claim]:
    """Return the claims on an output with an epoch greater than ``above``, the newest last."""
    claimed = []
    for entry in store.list(output / LEASES):
        if not entry.uri.name[:8].isdecimal() or index.epoch_of(entry.uri.name) <= above:
            continue
        try:
            claimed.append(Claim(entry, _owner(store.read(entry.uri))))
        except ObjectMissing:
            continue  # withdrawn after the listing
    return sorted(claimed, key=lambda claim: (claim.epoch, claim.object.uri))


def _owner(content: bytes) -> Mapping[str, Any]:
    """Parse a claim; a damaged claim counts as the claim of a live run."""
    try:
        owner = json.loads(content)
    except ValueError:
        return _UNKNOWN
    if not isinstance(owner, dict) or type(owner.get("lease_seconds")) not in (int, float):
        return _UNKNOWN
    return {**_UNKNOWN, **owner}


def _wait_for_others(
    store: ObjectStore, output: S3Uri, watch: _Watch, say: Say, pause: Callable[[float], None]
) -> None:
    """Return when all other claims are expired.

    Raises:
        OutputError: another run renewed its claim while this function waited.
    """
    paused, place = 0.0, on_server(output, store.server)
    while True:
        rivals = [claim for claim in claims(store, output) if not claim.ended]
        for rival in rivals:
            before = watch.observe(rival, paused)
            if before is None:
                say(
                    f"{place} is locked by another run: {rival}; waiting for up to "
                    f"{rival.owner['lease_seconds']:.0f} s to find out whether it renews its lock"
                )
            elif before != rival and rival.owner["state"] == HOLDER:
                raise OutputError(
                    f"cannot lock {place}: another run is writing to it: {rival}",
                    "Wait for the other run, stop it, or choose another output with --output.",
                )
        if not any(map(watch.alive, rivals)):
            return
        pause(_POLL_SECONDS)
        paused = _POLL_SECONDS


def _claim(output: S3Uri, epoch: int, run: str) -> S3Uri:
    return output / LEASES / f"{epoch:08d}-{run}.json"


def new_run() -> str:
    """Return a unique name for a run."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
