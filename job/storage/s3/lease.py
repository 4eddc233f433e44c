"""One run at a time writes to an output in S3, on any store that lists what was put.

A run that wants to write puts a claim under a name of its own, then lists all claims. It wins if no
other claim is alive: of two that put theirs at once, each sees the other, both withdraw and try
again after a random pause. The winner renews its claim; one that is not renewed for its
``lease_seconds`` is dead, and so is one whose process is known to be gone. Ages are those that the
store tells, its own clock against its own, so that no machine's clock matters.

A claim's name begins with its epoch, which must be higher than any seen. A run that was stopped in
the middle of anything for longer than its lease has been overtaken by a higher epoch, and whatever
it writes afterwards is not the newest (see :mod:`job.storage.s3.index`).
"""

import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from job.errors import ObjectMissing, OutputError, StorageError
from job.storage.parallel import Background
from job.storage.s3 import index
from job.storage.s3.objects import ObjectStore, S3Object
from job.storage.s3.owner import known_gone, ourselves
from job.uri import S3Uri

LEASES = "lease"
CANDIDATE, HOLDER, RELEASED = "candidate", "holder", "released"
_RENEWALS = 4
_WITHDRAWN_SECONDS = 1.0
_POLL_SECONDS = 1.0
# Whoever is asked to stop must leave so much of the time for it.
RELEASE_SECONDS = 2.0
# The store's clock is told in whole seconds.
_CLOCK_SECONDS = 1.0
_UNKNOWN: Mapping[str, Any] = {"state": HOLDER, "lease_seconds": 3600.0, "host": "?", "pid": "?"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Claim:
    """Somebody's claim as it stood in the store.

    Attributes:
        found: the object.
        told: what it says of its owner.
        age_seconds: since it was put or renewed, by the store's clock.
    """

    found: S3Object
    told: Mapping[str, Any]
    age_seconds: float

    @property
    def epoch(self) -> int:
        """Its epoch."""
        return index.epoch_of(self.found.uri.name)

    @property
    def alive(self) -> bool:
        """False once others may take over."""
        if self.told["state"] == RELEASED or known_gone(self.told):
            return False
        return bool(self.age_seconds <= self.told["lease_seconds"] + _CLOCK_SECONDS)

    def __str__(self) -> str:
        started = self.told.get("started", "an unknown time")
        return (
            f"process {self.told['pid']} on {self.told['host']}, started {started}, "
            f"heard of {self.age_seconds:.0f} s ago"
        )


@dataclass
class Lease:
    """The right to write to an output.

    Attributes:
        store: where.
        output: the output.
        run: this run's name.
        epoch: this lease's; higher than all before.
        lease_seconds: how long it holds without being renewed.
    """

    store: ObjectStore
    output: S3Uri
    run: str
    epoch: int
    lease_seconds: float
    lost: str = ""
    ended: bool = False

    @property
    def claim(self) -> S3Uri:
        """The object of this run's claim."""
        return _claim(self.output, self.epoch, self.run)

    def put(self, state: str) -> None:
        """Write or renew the claim."""
        told = {**ourselves(), "state": state, "lease_seconds": self.lease_seconds}
        self.store.put(self.claim, json.dumps(told).encode())

    def verify(self) -> None:
        """Make sure that nobody has taken over.

        Raises:
            OutputError: somebody has, or this run has given the lease up.
        """
        if self.ended:
            raise OutputError(f"{self.output}: this run has ended already")
        if not self.lost:
            above = [
                claim
                for claim in claims(self.store, self.output, above=self.epoch)
                if claim.told["state"] != CANDIDATE
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
                f"{self.output} was taken over while this run did not answer, by {self.lost}",
                "Nothing of it is lost: run the same command again once the other has ended.",
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
    """Get the right to write to an output, waiting for the lease of a run that has died.

    Args:
        store: where.
        output: the output.
        run: this run's name.
        lease_seconds: how long the lease holds without being renewed.
        say: is told what is waited for.
        pause: sleeps.

    Raises:
        OutputError: another run writes there and is alive.
    """
    while True:
        _wait_for_others(store, output, say, pause)
        seen = [claim.epoch for claim in claims(store, output)]
        seen += [index.epoch_of(name) for name in index.names(store, output)]
        lease = Lease(store, output, run, 1 + max(seen, default=0), lease_seconds)
        try:
            lease.put(CANDIDATE)
            listed = claims(store, output)
            others = [claim for claim in listed if claim.found.uri != lease.claim]
            unseen = len(others) == len(listed)
            if not unseen and not any(c.alive or c.epoch >= lease.epoch for c in others):
                lease.put(HOLDER)
                # Had this process been stopped since, another might have won in the meantime.
                lease.verify()
                store.delete([other.found.uri for other in others])
                return lease
        except BaseException:
            store.delete([lease.claim])
            raise
        store.delete([lease.claim])
        pause(random.uniform(0, _WITHDRAWN_SECONDS))  # noqa: S311


@contextmanager
def renewed(lease: Lease) -> Iterator[None]:
    """Renew a lease in the background, and give it up at the end."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(lease.lease_seconds / _RENEWALS):
            try:
                lease.verify()
                lease.put(HOLDER)
            except OutputError:
                return  # it is noted in the lease, and told by whoever wants to write
            except StorageError:
                continue  # out of reach just now; before anything is written it is verified

    thread = threading.Thread(target=work, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        lease.ended = True
        ended.set()
        if not lease.lost:
            # Who cannot tell leaves a lease that ends by itself.
            with suppress(StorageError):
                Background(partial(_release, thread, lease)).done_within(RELEASE_SECONDS)


def _release(thread: threading.Thread, lease: Lease) -> None:
    thread.join()
    lease.put(RELEASED)


def claims(store: ObjectStore, output: S3Uri, above: int = 0) -> list[Claim]:
    """Return all claims on an output of epochs above one, the newest last."""
    listing = store.listing(output / LEASES)
    found = []
    for each in listing.found:
        if not each.uri.name[:8].isdecimal() or index.epoch_of(each.uri.name) <= above:
            continue
        age = (listing.at - each.modified).total_seconds()
        try:
            found.append(Claim(each, _told(store.read(each.uri)), age))
        except ObjectMissing:
            continue  # withdrawn since it was listed
    return sorted(found, key=lambda claim: (claim.epoch, claim.found.uri))


def _told(content: bytes) -> Mapping[str, Any]:
    """Read a claim; one that cannot be understood is taken for that of a living run."""
    try:
        told = json.loads(content)
    except ValueError:
        return _UNKNOWN
    if not isinstance(told, dict) or type(told.get("lease_seconds")) not in (int, float):
        return _UNKNOWN
    return {**_UNKNOWN, **told}


def _wait_for_others(
    store: ObjectStore, output: S3Uri, say: Say, pause: Callable[[float], None]
) -> None:
    """Return once no other claim is alive.

    Raises:
        OutputError: one was renewed meanwhile: its run lives.
    """
    waited_for: dict[S3Uri, S3Object] = {}
    while rivals := _alive(claims(store, output)):
        for rival in rivals:
            uri = rival.found.uri
            before = waited_for.get(uri)
            if before is None:
                waited_for[uri] = rival.found
                say(f"waiting whether this run still lives: {rival}")
            elif before.modified != rival.found.modified and rival.told["state"] == HOLDER:
                raise OutputError(
                    f"{output} is being written by another run: {rival}",
                    "Wait for it to end, stop it, or choose another place with --output.",
                )
        pause(_POLL_SECONDS)


def _alive(found: Sequence[Claim]) -> list[Claim]:
    return [claim for claim in found if claim.alive]


def _claim(output: S3Uri, epoch: int, run: str) -> S3Uri:
    return output / LEASES / f"{epoch:08d}-{run}.json"


def new_run() -> str:
    """Return a name for a run that no other has."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
