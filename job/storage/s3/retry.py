"""Trying again what may succeed next time, with growing and random pauses."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from job.errors import TransferFailed
from job.storage.s3.errors import s3_errors
from job.uri import S3Uri

T = TypeVar("T")

# Most failures pass sooner, and nobody need hear of them.
_SAID_AT = 4


@dataclass(frozen=True)
class Retry:
    """How often and how patiently.

    The pause before each further attempt is drawn evenly between 0 and a bound that doubles each
    time: clients that failed together do not come back together.

    Attributes:
        attempts: attempts in a row without progress, at least 1.
        first_seconds: the first bound.
        longest_seconds: the bound stops growing here.
        sleep: pauses.
        say: is told of a failure once it has lasted; None for where nobody listens.
    """

    attempts: int = 8
    first_seconds: float = 0.2
    longest_seconds: float = 20.0
    sleep: Callable[[float], None] = time.sleep
    say: Callable[[str], None] | None = None

    def call(
        self, uri: S3Uri, action: Callable[[], T], progress: Callable[[], int] = lambda: 0
    ) -> T:
        """Return what an action returns, however often it takes.

        Args:
            uri: what it is about, for messages.
            action: one attempt; a further one may go on where the last one stopped.
            progress: tells how far the action has come; more than before begins the count anew.

        Raises:
            TransferFailed: all attempts failed; the message is the last one's.
            StorageError: it failed in a way that no further attempt can mend.
        """
        failed, reached = 0, progress()
        while True:
            try:
                with s3_errors(uri):
                    return action()
            except TransferFailed as error:
                now = progress()
                failed, reached = 1 if now > reached else failed + 1, now
                if failed >= self.attempts:
                    tried = "1 attempt" if failed == 1 else f"{failed} attempts"
                    raise TransferFailed(f"{error.message} (after {tried})", error.hint) from error
                if failed == _SAID_AT and self.say:
                    self.say(f"{error.message}; attempt {failed} of {self.attempts}, trying again")
            bound = min(self.longest_seconds, self.first_seconds * 2 ** (failed - 1))
            self.sleep(random.uniform(0, bound))  # noqa: S311
